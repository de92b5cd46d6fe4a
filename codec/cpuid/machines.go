package cpuid

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// machines are the CPUs that compilers name, a paragraph each: the name and the dump
// that the answers of CPUID below are from, with what Linux switches on switched on.
// internal/test/machines writes it.
//
//go:embed machines.txt
var machines string

// dumpOf returns the name and the leaves of the next machine, and what follows it.
func dumpOf(text string) (name, leaves, rest string) {
	text, rest, _ = strings.Cut(text, "\n\n")
	head, leaves, _ := strings.Cut(text, "\n")
	name, _, _ = strings.Cut(head, " ")
	return name, leaves, rest
}

// Names returns the names that [ByName] knows: the levels of the x86-64 psABI in
// ascending order, then CPUs by vendor, the oldest first.
func Names() []string {
	names := xstate.LevelNames()
	for text := machines; text != ""; {
		var name string
		if name, _, text = dumpOf(text); name != "#" {
			names = append(names, name)
		}
	}
	return names
}

// ByName returns a new CPU of a name that compilers give it, such as znver3, or of a
// level, as [xstate.ByName] has it. Case does not count. A CPU is the one whose CPUID was
// dumped, under a Linux that uses all it has: what its firmware, its microcode or a
// hypervisor keep off, Modify takes away.
func ByName(name string) (*xstate.CPU, bool) {
	name = strings.ToLower(name)
	if level, ok := xstate.ByName(name); ok {
		return level, true
	}
	for text := machines; text != ""; {
		var found, leaves string
		if found, leaves, text = dumpOf(text); found != name || name == "#" {
			continue
		}
		all, err := ParseDump([]byte(leaves))
		if err != nil {
			return nil, false // a test reads them all
		}
		c := dumpCPU(all)
		c.Name, c.MXCSRMask = name, new(uint32(mxcsr))
		setMisaligned(c, slices.Contains(c.Flags, "misalignsse"))
		return c, true
	}
	return nil, false
}

// Bits of MXCSR that a 64-bit CPU may set (SDM vol. 1, 10.2.3), and the one that comes
// with misalignsse (APM vol. 1, 4.2.2).
const (
	mxcsr   = 0xffff
	mxcsrMM = 1 << 17
)

// setMisaligned says whether MXCSR has the bit MM, if its mask is known.
func setMisaligned(c *xstate.CPU, has bool) {
	switch {
	case c.MXCSRMask == nil:
	case has:
		c.MXCSRMask = new(*c.MXCSRMask | mxcsrMM)
	default:
		c.MXCSRMask = new(*c.MXCSRMask &^ mxcsrMM)
	}
}
