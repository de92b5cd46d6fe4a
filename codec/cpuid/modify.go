package cpuid

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// FlagError is a change of a CPU's flags that cannot be made.
type FlagError struct {
	Flag string // as it was written
	// By is the flag without which there is no Flag, and which another change takes
	// away; "" if there is no flag of that name.
	By string
}

func (e *FlagError) Error() string {
	switch e.By {
	case "":
		return fmt.Sprintf("no flag %q", e.Flag)
	case e.Flag:
		return e.Flag + " is added and taken away"
	}
	return e.Flag + " needs " + e.By + ", which is taken away"
}

// otherNames are those that QEMU (target/i386/cpu.c) and compilers give flags besides
// Linux's, without punctuation.
var otherNames = [...][2]string{
	{"sse3", "pni"}, {"lzcnt", "abm"}, {"pclmul", "pclmulqdq"}, {"pclmuldq", "pclmulqdq"}, {"bmi", "bmi1"}, {"sha", "sha_ni"},
	{"ffxsr", "fxsr_opt"}, {"xd", "nx"}, {"i64", "lm"}, {"ds", "dts"}, {"tscdeadline", "tsc_deadline_timer"}, {"apxf", "apx"},
	{"ssbd", "spec_ctrl_ssbd"}, {"stibp", "intel_stibp"}, {"ibpb", "amd_ibpb"}, {"amdnossb", "amd_ssb_no"}, {"corecapability", "core_capabilities"},
}

// flagName returns Linux's name for a flag that is spelled as Linux, QEMU or a compiler
// does: sse4_1, sse4.1 or SSE4-1.
func flagName(spelled string) (name string, ok bool) {
	plain := strings.NewReplacer("-", "", "_", "", ".", "")
	spelled = plain.Replace(strings.ToLower(spelled))
	for _, other := range otherNames {
		if other[0] == spelled {
			return other[1], true
		}
	}
	for f := range xstate.AllFlags() {
		if plain.Replace(f.Name) == spelled {
			return f.Name, true
		}
	}
	return "", false
}

// switchedOn has the flags that Linux adds to those that the CPU has.
var switchedOn = [...]struct{ has, adds string }{{"xsave", "osxsave"}, {"pku", "ospke"}, {"shstk", "user_shstk"}}

// needs returns the named flags, all that they need, and what Linux switches on with them.
func needs(flags ...string) []string {
	out := append(slices.Clone(flags), xstate.DependenciesOf(flags...)...)
	for _, s := range switchedOn {
		if slices.Contains(out, s.has) {
			out = append(out, s.adds)
		}
	}
	return out
}

// Modify returns a CPU with the flags add, all that they need and what Linux switches on
// with them, and without the flags drop and all that needs them: as a hypervisor makes it,
// in CPUID too. Components, layout and sizes follow; where they cannot be told, they are
// unknown. The error is a [*FlagError]: no such flag, or one that drop leaves without
// what it needs.
func Modify(c *xstate.CPU, add, drop []string) (*xstate.CPU, error) {
	on, add, err := flagNames(add)
	if err != nil {
		return nil, err
	}
	off, drop, err := flagNames(drop)
	if err != nil {
		return nil, err
	}
	for i, name := range on {
		need := needs(name)
		j := slices.IndexFunc(off, func(gone string) bool { return slices.Contains(need, gone) })
		switch {
		case j < 0:
		case off[j] == name:
			return nil, &FlagError{Flag: add[i], By: add[i]}
		default:
			return nil, &FlagError{Flag: add[i], By: drop[j]}
		}
	}
	on, off = needs(on...), append(off, xstate.DependentsOf(off...)...)
	m := *c
	m.Flags = xstate.WithoutFlags(names(append(slices.Clone(on), c.Flags...)), off...)
	for _, s := range switchedOn[:2] { // of no use where Linux keeps it off
		if slices.Contains(off, s.adds) {
			m.Flags = xstate.WithoutFlags(m.Flags, s.has)
		}
	}
	m.UnknownFlags = xstate.UnknownFlags(m.Flags, func(f xstate.Flag) bool {
		_, known := c.HasFlag(f.Name)
		return known || slices.Contains(on, f.Name) || slices.Contains(off, f.Name)
	})
	m.Capability = slices.Clone(c.Capability)
	set, clear := xstate.CapabilityMask(on...), xstate.CapabilityMask(off...)
	for i := range min(len(m.Capability), len(set)) {
		m.Capability[i] = m.Capability[i]&^clear[i] | set[i]
	}
	changeState(&m, on, off)
	return &m, nil
}

// flagNames returns the names of flags, each once, and how they are spelled.
func flagNames(spelled []string) (names, as []string, err error) {
	for _, s := range spelled {
		name, ok := flagName(s)
		switch {
		case !ok:
			return nil, nil, &FlagError{Flag: s}
		case !slices.Contains(names, name):
			names, as = append(names, name), append(as, s)
		}
	}
	return names, as, nil
}

// changeState makes what the CPU can hold follow the flags that come and go.
func changeState(c *xstate.CPU, on, off []string) {
	changes := func(name string) bool { return slices.Contains(on, name) || slices.Contains(off, name) }
	if changes("fxsr") {
		c.FXSave = new(slices.Contains(on, "fxsr"))
	}
	if changes("osxsave") {
		c.XSave = new(slices.Contains(on, "osxsave"))
	}
	if changes("misalignsse") {
		setMisaligned(c, slices.Contains(on, "misalignsse"))
	}
	old := *c
	usable, hw := value(c.XFeatures), value(c.XFeaturesHW)
	if slices.Contains(on, "xsave") {
		usable, hw = usable|xstate.Legacy, hw|xstate.Legacy
	}
	changed := changes("osxsave")
	for f := range (xstate.User() &^ xstate.Legacy).All() {
		switch {
		case !changes(f.Flag()):
			continue
		case slices.Contains(on, f.Flag()):
			usable, hw = usable|f.Mask(), hw|f.Mask()
		default:
			usable, hw = usable&^f.Mask(), hw&^f.Mask()
		}
		changed = true
	}
	switch { // Linux keeps off what CPUID has
	case slices.Contains(off, "osxsave"):
		usable = 0
	case slices.Contains(off, "ospke"):
		usable &^= xstate.PKRU.Mask()
	}
	gone := slices.Contains(off, "xsave")
	if gone {
		hw = 0
	}
	if c.XFeatures != nil {
		c.XFeatures, changed = &usable, usable != *c.XFeatures
	}
	if changed {
		c.Layout = place(&old, usable)
		c.XSaveSize = resize(c.Layout, old.XSaveSize, usable, gone)
	}
	// What the hardware lists and Linux does not use, PKRU of Zen 2, may lie elsewhere.
	more := usable&^value(old.XFeatures) != 0
	if c.XFeaturesHW != nil {
		c.XFeaturesHW, changed = &hw, hw != *c.XFeaturesHW
	}
	if changed || more {
		c.XSaveSizeMax = resize(c.Layout, old.XSaveSizeMax, hw, gone)
	}
}

// place returns where a CPU like c puts the components of set, nil if it does not say:
// where it has put them, and the others where its vendor does, or else the other one.
func place(c *xstate.CPU, set xstate.Features) xstate.Layout {
	if c.Layout == nil {
		return nil
	}
	like := xstate.CPU{Vendor: c.Vendor, XFeatures: &set}
	for _, l := range append([]xstate.Layout{c.Layout}, like.Layouts()...) {
		l = slices.DeleteFunc(slices.Clone(l), func(p xstate.Placement) bool { return !set.Has(p.Feature) })
		fits := covers(l, set)
		for i, p := range l {
			was, ok := c.Layout.Find(p.Feature)
			fits = fits && (!ok || was == p) && !slices.ContainsFunc(l[:i], p.Overlaps)
		}
		if fits {
			return l
		}
	}
	return nil
}

// covers reports whether the layout has a place for all of set beyond the legacy area.
func covers(l xstate.Layout, set xstate.Features) bool {
	for f := range (set &^ xstate.Legacy).All() {
		if _, ok := l.Find(f); !ok {
			return false
		}
	}
	return true
}

// resize returns the size of an area for the components of set, which had one of size
// bytes before: 0 if XSAVE is gone, nil if it is not known.
func resize(l xstate.Layout, size *uint32, set xstate.Features, gone bool) *uint32 {
	switch {
	case size == nil || l == nil || !covers(l, set):
		return nil
	case gone:
		return new(uint32)
	}
	return new(uint32(l.End(set)))
}
