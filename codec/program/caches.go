package program

import (
	"encoding/binary"
	"math/bits"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// words are the CPUID words that programs keep, by leaf and register (as in
// [facts.Leaf]), and a flag of each, whose place in the flag table is the word's.
var words = []struct {
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
	loader := p.loader()
	left := uint64(maxScan / 8)
	buf := make([]byte, 64<<10)
	for i, r := range p.ranges {
		if r.module == loader || r.module.obj != nil && r.module.obj.isGlibc() || r.Prot&memory.Write == 0 {
			continue
		}
		end := r.End
		if v, ok := p.mem.VMA(end); ok && v.Anonymous() && (i+1 == len(p.ranges) || p.ranges[i+1].Start > end) { // .bss
			end = min(v.End, end+maxScan/8)
		}
		for run := range p.mem.Ranges(r.Start, end) {
			if run.State != memory.Dumped {
				continue
			}
			for at := run.Start; at < run.End && left > 0; at += uint64(len(buf)) {
				n, _ := p.mem.ReadAt(buf[:min(uint64(len(buf)), run.End-at, left)], at)
				left -= min(left, uint64(len(buf)))
				for j := 0; j+4 <= n; j += 4 {
					if names, ok := flags[binary.LittleEndian.Uint32(buf[j:])]; ok {
						p.Caches = append(p.Caches, facts.Cache{Object: r.module.fact, Address: at + uint64(j), Flags: names})
						if len(p.Caches) == maxCaches {
							return
						}
					}
				}
			}
		}
	}
}

// maxCaches bounds what is found: HotSpot keeps six words.
const maxCaches = 256
