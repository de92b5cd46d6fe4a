package program

import (
	"os"
	"path"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// TestConcurrentSweep: code that is read in parts has what the whole has.
func TestConcurrentSweep(t *testing.T) {
	truth := corpus.Load(t, "pyhash-1")
	n := 0
	for _, m := range truth.Processes[0].Objects {
		if base := path.Base(m.Path); base != "python3.11" && base != "libc.so.6" {
			continue
		}
		f, err := os.Open(corpus.Object(t, m.BuildID))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		o, err := readObject(f, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		swept := &file{fact: &facts.Object{}, obj: o, reaches: map[uint64]reach{}}
		swept.sweep()
		var whole sweeper
		functions := o.functions().all()
		for _, sec := range o.codeSections() {
			in := functions[:]
			for len(in) > 0 && in[0].start < sec.Addr {
				in = in[1:]
			}
			whole.part(o.table(sec.Addr, sec.Size), sec.Addr, in, len(functions) > 0)
			if sec.Size > 4*sweepAtOnce {
				n++
			}
		}
		own := swept.fact.Own
		if own == nil {
			own = &facts.Own{Needs: []string{}}
		}
		if own.AsksCPUID != whole.cpuid || !slices.Equal(own.Needs, flagNames(whole.features)) {
			t.Errorf("%s: %+v in parts, %v, %v as a whole", m.Path, own, whole.cpuid, flagNames(whole.features))
		}
	}
	if n == 0 {
		t.Error("no object has more than some parts")
	}
}
