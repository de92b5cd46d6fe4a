package level

import (
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// isHome reports whether a host is the CPU that a process was started on: its family,
// model and stepping, with the same instruction sets as far as both are recorded.
func isHome(host, source *xstate.CPU) bool {
	same := func(a, b *int) bool { return a != nil && b != nil && *a == *b }
	if !same(host.Family, source.Family) || !same(host.Model, source.Model) || !same(host.Stepping, source.Stepping) ||
		host.Vendor != source.Vendor && host.Vendor != "" && source.Vendor != "" {
		return false
	}
	for f := range xstate.AllFlags() {
		a, known := host.HasFlag(f.Name)
		b, recorded := source.HasFlag(f.Name)
		if f.ISA() && known && recorded && a != b {
			return false
		}
	}
	return true
}

// completed is a host with the flags that its profile does not record, and another
// record of the same CPU does.
func completed(host, source *xstate.CPU) *xstate.CPU {
	c := *host
	c.Flags, c.UnknownFlags = slices.Clone(host.Flags), nil
	for _, name := range host.UnknownFlags {
		switch has, known := source.HasFlag(name); {
		case has:
			c.Flags = append(c.Flags, name)
		case !known:
			c.UnknownFlags = append(c.UnknownFlags, name)
		}
	}
	slices.Sort(c.Flags)
	return &c
}

// has reports whether a host has all that cpuinfo.img may be compared with there, as far
// as both are recorded: another kernel, or microcode, may have taken some of it away.
func has(host, source *xstate.CPU) bool {
	for f := range xstate.AllFlags() {
		if a, known := host.HasFlag(f.Name); known && !a && f.InCapability() {
			if b, _ := source.HasFlag(f.Name); b {
				return false
			}
		}
	}
	same := func(a, b *uint32) bool { return a == nil || b == nil || *a == *b }
	return same(host.XSaveSize, source.XSaveSize) && same(host.XSaveSizeMax, source.XSaveSizeMax)
}
