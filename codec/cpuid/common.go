package cpuid

import (
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Common returns a CPU called "common" that has what all the given ones have: what
// fits it fits each of them. Components, flags and the MXCSR mask are those that
// all share who record them, so that a CPU of which they are unknown does not lift
// what another one lacks. Feature words are shared by all; vendor, model and sizes
// are known only where they are equal, and the layout where all put the shared
// components in the same places. With no CPUs, nothing is known.
func Common(cpus ...*xstate.CPU) *xstate.CPU {
	if len(cpus) == 0 {
		return &xstate.CPU{Name: "common"}
	}
	c := new(*cpus[0]) // what its pointers lead to is nowhere changed
	c.Name, c.Capability = "common", slices.Clone(c.Capability)
	unknown := c.UnknownWords()
	for _, o := range cpus[1:] {
		if c.Vendor != o.Vendor {
			c.Vendor = ""
		}
		if c.ModelName != o.ModelName {
			c.ModelName = ""
		}
		c.Family, c.Model, c.Stepping = equal(c.Family, o.Family), equal(c.Model, o.Model), equal(c.Stepping, o.Stepping)
		c.FXSave, c.XSave = both(c.FXSave, o.FXSave), both(c.XSave, o.XSave)
		c.XFeatures, c.XFeaturesHW = and(c.XFeatures, o.XFeatures), and(c.XFeaturesHW, o.XFeaturesHW)
		c.XSaveSize, c.XSaveSizeMax = equal(c.XSaveSize, o.XSaveSize), equal(c.XSaveSizeMax, o.XSaveSizeMax)
		c.MXCSRMask = and(c.MXCSRMask, o.MXCSRMask)
		c.Capability = andWords(c.Capability, o.Capability, unknown, o.UnknownWords())
		unknown &= o.UnknownWords()
	}
	if c.XSave != nil && !*c.XSave {
		c.XFeatures = new(xstate.Features)
	}
	c.Flags, c.UnknownFlags = sharedFlags(cpus)
	c.Layout = sharedLayout(cpus, c.XFeatures)
	return c
}

func equal[T comparable](a, b *T) *T {
	if a == nil || b == nil || *a != *b {
		return nil
	}
	return a
}

func both(a, b *bool) *bool {
	switch {
	case a != nil && !*a || b != nil && !*b:
		return new(false)
	case a == nil || b == nil:
		return nil
	}
	return new(true)
}

// and takes an unknown set for one that lacks nothing.
func and[T ~uint32 | ~uint64](a, b *T) *T {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return new(*a & *b)
}

// sharedFlags takes an unknown flag for one that is there, unless all do not know it.
func sharedFlags(cpus []*xstate.CPU) (flags, unknown []string) {
	var all []string
	for _, c := range cpus {
		if c.Flags != nil {
			all = append(append(all, c.Flags...), c.UnknownFlags...)
			flags = []string{}
		}
	}
	for _, name := range names(all) {
		has, lacks := false, false
		for _, c := range cpus {
			yes, known := c.HasFlag(name)
			has, lacks = has || yes, lacks || known && !yes
		}
		switch {
		case has && !lacks:
			flags = append(flags, name)
		case !lacks:
			unknown = append(unknown, name)
		}
	}
	return flags, unknown
}

// andWords keeps as many words as both have: 12 are CRIU's version 1. One that is
// unknown lacks nothing.
func andWords(a, b []uint32, unknownA, unknownB uint32) []uint32 {
	if a == nil || b == nil {
		return nil
	}
	a = a[:min(len(a), len(b))]
	for i := range a {
		switch {
		case unknownB>>i&1 != 0 && unknownA>>i&1 == 0:
		case unknownA>>i&1 != 0 && unknownB>>i&1 == 0:
			a[i] = b[i]
		default:
			a[i] &= b[i]
		}
	}
	return a
}

// sharedLayout returns where all the CPUs put the components of set, nil if one
// puts one of them elsewhere or does not say.
func sharedLayout(cpus []*xstate.CPU, set *xstate.Features) xstate.Layout {
	if set == nil {
		return nil
	}
	var out xstate.Layout
	for i, c := range cpus {
		if c.Layout == nil {
			return nil
		}
		l := xstate.Layout{}
		for _, p := range c.Layout {
			if set.Has(p.Feature) {
				l = append(l, p)
			}
		}
		if i > 0 && !slices.Equal(out, l) {
			return nil
		}
		out = l
	}
	return out
}
