package program

import (
	"debug/elf"
	"testing"

	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// Every resolver chooses what the slot that it filled holds.
func TestResolve(t *testing.T) {
	for _, name := range corpus.Names(t) {
		truth := corpus.Load(t, name)
		for _, proc := range truth.Processes {
			p := lookAt(t, name, proc.PID)
			slots, _ := p.slots()
			n := 0
			for _, s := range slots {
				if s.kind != elf.R_X86_64_IRELATIVE {
					continue
				}
				n++
				got, err := p.choice(s.irelative())
				if err != nil {
					t.Errorf("%s: %v", name, err)
				} else if got != s.value {
					t.Errorf("%s: resolver %#x of %v chooses %#x, want %#x", name, s.irelative(), s.names, got, s.value)
				}
			}
			t.Logf("%s %d: %d", name, proc.PID, n)
		}
	}
}
