package program

import (
	"maps"
	"math/bits"
	"slices"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// words are the CPUID words that programs keep, by leaf and register (as in
// [facts.Leaf]), and a flag of each, whose place in the flag table is the word's.
var words = [4]struct {
	leaf     uint32
	register int
	flag     string
}{{1, 2, "avx"}, {7, 1, "avx2"}, {7, 2, "vaes"}, {0x80000001, 2, "abm"}}

// findCaches finds copies of the CPUID words of glibc's record in the data of other
// objects: OpenSSL's, gnutls', HotSpot's. Words of few bits or nearly all stand anywhere
// by chance and are left out. So is what no file is mapped for, such as the heap.
func (p *process) findCaches() {
	if p.Source == nil {
		return
	}
	flags := map[uint32][]string{} // by the value of the word
	for _, leaf := range p.Source.Leaves {
		for _, w := range words {
			if leaf.Leaf != w.leaf || leaf.Subleaf != 0 {
				continue
			}
			v := leaf.CPUID[w.register]
			f, _ := xstate.LookupFlag(w.flag)
			if n := bits.OnesCount32(v); n < 8 || n > 31 {
				continue
			}
			flags[v] = []string{}
			for _, name := range p.Source.CPU.Flags {
				if g, _ := xstate.LookupFlag(name); g.Word == f.Word {
					flags[v] = append(flags[v], name)
				}
			}
		}
	}
	if len(flags) == 0 {
		return
	}
	wanted := [len(words)]uint32{}
	for i, v := range slices.Sorted(maps.Keys(flags)) {
		for ; i < len(wanted); i++ { // fewer than there is room for: the last stands again
			wanted[i] = v
		}
	}
	loader := p.loader()
	left := uint64(maxScan / 8)
	buf := make([]byte, 64<<10)
	for r := range p.data {
		if r.module == loader || r.module.obj != nil && r.module.obj.isGlibc() {
			continue
		}
		for run := range p.mem.Ranges(r.Start, r.End) {
			if run.State != memory.Dumped {
				continue
			}
			for at := run.Start; at < run.End && left > 0; at += uint64(len(buf)) {
				n, _ := p.mem.ReadAt(buf[:min(uint64(len(buf)), run.End-at, left)], at)
				left -= min(left, uint64(len(buf)))
				for j := nextWord(buf[:n], 0, &wanted); j < n; j = nextWord(buf[:n], j+4, &wanted) {
					p.Caches = append(p.Caches, facts.Cache{Object: r.module.fact, Address: at + uint64(j), Flags: flags[le32(buf[j:])]})
					if len(p.Caches) == maxCaches {
						return
					}
				}
			}
		}
	}
}

// data yields the writable mappings of the objects, each with the .bss behind it.
func (p *process) data(yield func(mapped) bool) {
	for i, r := range p.ranges {
		if r.Prot&memory.Write == 0 {
			continue
		}
		if v, ok := p.mem.VMA(r.End); ok && v.Anonymous() && (i+1 == len(p.ranges) || p.ranges[i+1].Start > r.End) {
			r.End = min(v.End, max(r.End, r.module.bss(r.End)))
		}
		if !yield(r) {
			return
		}
	}
}

// maxCaches bounds what is found: HotSpot keeps six words.
const maxCaches = 256

// nextWord returns the offset of the next aligned word of b from at on that is wanted,
// len(b) if there is none.
func nextWord(b []byte, at int, wanted *[len(words)]uint32) int {
	w0, w1, w2, w3 := wanted[0], wanted[1], wanted[2], wanted[3] // a loop takes three times as long
	for ; at+4 <= len(b); at += 4 {
		if v := le32(b[at:]); v == w0 || v == w1 || v == w2 || v == w3 {
			return at
		}
	}
	return len(b)
}

// maxBSS is how much of the anonymous memory behind a file without a proof may be its
// .bss: HotSpot's words lie 350 KiB behind it. The rest, or all of it, belongs to others.
const maxBSS = 512 << 10

// bss returns the end of .bss, which begins where the mappings of the file end.
func (m *module) bss(start uint64) uint64 {
	if m.obj == nil || len(m.obj.loads) == 0 {
		return start + maxBSS
	}
	last := m.obj.loads[len(m.obj.loads)-1]
	return m.bias + last.Vaddr + last.Memsz
}
