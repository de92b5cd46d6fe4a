package level

import (
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// TestHas: cpuinfo.img stays as it is for the CPU that it records, and not for one of
// which a kernel or microcode has taken something away that CRIU compares.
func TestHas(t *testing.T) {
	source := &xstate.CPU{Vendor: "amd", Family: new(23), Model: new(49), Stepping: new(0), XSave: new(true), XSaveSize: new(uint32(832)), XSaveSizeMax: new(uint32(832)),
		Flags: []string{"avx", "xsave", "xsavec", "xsaves"}}
	without := func(name string, unknown bool) *xstate.CPU {
		c := *source
		c.Flags = slices.DeleteFunc(slices.Clone(c.Flags), func(f string) bool { return f == name })
		if unknown {
			c.UnknownFlags = []string{name}
		}
		return &c
	}
	small := *source
	small.XSaveSize = new(uint32(576))
	sizeless := *source
	sizeless.XSaveSize, sizeless.XSaveSizeMax = nil, nil
	for name, tt := range map[string]struct {
		host *xstate.CPU
		has  bool
	}{
		"itself": {source, true}, "of unknown size": {&sizeless, true}, "not known to have XSAVES": {without("xsaves", true), true},
		"without XSAVES": {without("xsaves", false), false}, "of another size": {&small, false},
	} {
		if !isHome(tt.host, source) {
			t.Errorf("a CPU %s is another one", name)
		}
		if got := has(tt.host, source); got != tt.has {
			t.Errorf("a CPU %s: %v", name, got)
		}
	}
}
