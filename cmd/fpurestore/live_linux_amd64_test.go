package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

func init() { cleanup = append(cleanup, func() { os.RemoveAll(programs.dir) }) }

// TestThreads restores into processes of 1, 8 and 1000 threads, and each thread
// reports what it holds.
func TestThreads(t *testing.T) {
	for _, n := range []int{1, 8, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := startTarget(t, targetConfig{threads: n})
			g.expect(g.states)
			want := g.others(1, everything)
			r := mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, same))
			r.says(t, fmt.Sprintf("process %d: %d thread", g.pid, n))
			g.untraced()
			g.expect(want)
		})
	}
}

// TestComponents restores images that have only some of the components that the
// target uses: the others become INIT, but PKRU keeps its value.
func TestComponents(t *testing.T) {
	for _, set := range []xstate.Features{xstate.Legacy, xstate.Legacy | xstate.AVX.Mask(), xstate.Legacy | xstate.AVX.Mask() | xstate.AVX512,
		xstate.Legacy | xstate.PKRU.Mask(), everything} {
		t.Run(set.String(), func(t *testing.T) {
			if set != everything {
				needCPU(t, set)
			}
			g := startTarget(t, targetConfig{nr: spinning, threads: 2})
			want := g.others(uint64(set), set)
			mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, same))
			if !set.Has(xstate.PKRU) {
				if d := g.states[0].Data(xstate.PKRU); d != nil {
					for i := range want {
						want[i].SetData(xstate.PKRU, g.states[i].Data(xstate.PKRU))
						want[i].BV |= xstate.PKRU.Mask()
					}
				}
			}
			g.expect(want)
		})
	}
}
