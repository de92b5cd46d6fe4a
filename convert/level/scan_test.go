package level

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestFind: what is found in memory is what a look at each byte of it finds.
func TestFind(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		matches := map[uint64]match{}
		var addrs []uint64
		for range 1 + random.IntN(6) {
			base := []uint64{0x7fcf40ffffc0, 0x400000, 0x555555554000, 0x7fcf42345000}[random.IntN(4)]
			addrs = append(addrs, base+uint64(random.IntN(128)))
			matches[addrs[len(addrs)-1]] = match{}
		}
		p := (&task{matches: matches}).pattern()
		p.from, p.to = 0x7fcf41000000, 0x7fcf41000000+uint64(random.IntN(3))<<16
		p.key, p.guarded = random.Uint64(), random.IntN(4) > 0
		b := make([]byte, random.IntN(400))
		for range random.IntN(20) {
			value := addrs[random.IntN(len(addrs))]
			switch random.IntN(4) {
			case 0:
				value = bits.RotateLeft64(value^p.key, guardShift)
			case 1:
				value = p.from + uint64(random.IntN(1<<17))
			}
			if len(b) >= 8 {
				binary.LittleEndian.PutUint64(b[random.IntN(len(b)-7)&^(7*random.IntN(2)):], value)
			}
		}
		n, kept := len(b)-min(len(b), random.IntN(8)), random.IntN(3) > 0
		const start = 0x10000
		var want []candidate
		for at := 0; at < n && at+8 <= len(b); at++ {
			w := binary.LittleEndian.Uint64(b[at:])
			if _, ok := matches[w]; ok {
				want = append(want, candidate{addr: start + uint64(at), word: w})
			}
			if at%8 != 0 {
				continue
			}
			if kept && w-p.from < p.to-p.from {
				want = append(want, candidate{kept: true, addr: start + uint64(at), word: w})
			}
			if _, ok := matches[bits.RotateLeft64(w, -guardShift)^p.key]; ok && p.guarded {
				want = append(want, candidate{mangled: true, addr: start + uint64(at), word: w})
			}
		}
		got := p.find(b, n, start, kept)
		for _, list := range []*[]candidate{&got, &want} {
			slices.SortStableFunc(*list, func(a, b candidate) int { return cmp.Compare(a.addr, b.addr) })
			*list = slices.Compact(*list) // what is found in two ways
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%x: found %v, want %v", b, got, want)
		}
	}
}
