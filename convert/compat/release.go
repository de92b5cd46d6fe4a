package compat

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// change is something that CRIU does otherwise from a release on, as far as it decides
// what becomes of an FPU record. What it has stored and restored of the components from
// when on is in the table of components ([xstate.CRIURestores]).
type change uint8

const (
	knowsHygon   change = iota // takes Hygon's CPUs for AMD's, whose features it does not see before
	optionalYMM                // takes an XSAVE record without ymmh_space
	maskAsSet                  // compares xfeatures_mask bit by bit, not as a number
	endOfFrame                 // puts the end mark of the frame behind the last component
	followsBV                  // restores what XSTATE_BV says, not all that the host has
	shadowStacks               // restores shadow stacks
	widePages                  // reads the 64-bit page counts of pagemap
	readsPacked                // reads compressed pages
	changesKnown
)

// since is the one table of what changed when, read in CRIU's source at the tags of the
// releases from 3.11 on. The semantics of --cpu-cap and all that is compared of
// cpuinfo.img else is the same in all of them (criu/config.c:parse_cpu_cap,
// criu/arch/x86/cpu.c:cpu_validate_features); so are the components that are known and
// the error in xfeatures_mask ([xstate.CPU.CRIUMask]).
//
// Of 4.3 there was only Debian's program to go by, which is built without LZ4: its messages
// about the FPU and the CPU are those of 4.2, and in guests it did what 4.2 does.
var since = [changesKnown]xstate.Release{
	// compel/arch/x86/src/lib/cpu.c:compel_cpuid returns for an unknown vendor before it
	// has looked at any feature, and nobody asks for what it returns.
	knowsHygon: {Major: 3, Minor: 13},
	// criu/arch/x86/crtools.c:valid_xsave_frame
	optionalYMM: {Major: 3, Minor: 13},
	// criu/arch/x86/cpu.c:cpu_validate_features
	maskAsSet: {Major: 3, Minor: 14},
	// criu/arch/x86/crtools.c:restore_fpu, assign_xsave: before, xstate_size is the sum of
	// the sizes, and FP_XSTATE_MAGIC2 lands on what lies there if the area has holes.
	endOfFrame: {Major: 3, Minor: 15},
	// assign_xsave again
	followsBV: {Major: 3, Minor: 18},
	// criu/arch/x86/shstk.c:arch_shstk_prepare
	shadowStacks: {Major: 4},
	// criu/pagemap.c:init_compat_pagemap_entry
	widePages: {Major: 4, Minor: 2},
	// criu/pagemap.c
	readsPacked: {Major: 4, Minor: 3},
}

// does reports whether a release has a change.
func does(r xstate.Release, c change) bool { return !r.Before(since[c]) }

// lastOf are the last releases of the major numbers.
var lastOf = [...]xstate.Release{{Major: 3, Minor: 19}, xstate.NewestCRIU}

// OldestCRIU is the oldest release that is predicted.
var OldestCRIU = xstate.Release{Major: 3, Minor: 11}

// ParseRelease reads a release of CRIU, such as 3.17.1, from [OldestCRIU] to
// [xstate.NewestCRIU]. The third number makes no difference to what is predicted.
func ParseRelease(s string) (xstate.Release, error) {
	var n [3]int
	parts := strings.Split(strings.TrimPrefix(s, "v"), ".")
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 8)
		if err != nil || len(parts) < 2 || len(parts) > len(n) {
			return xstate.Release{}, fmt.Errorf("%q is no release of CRIU, such as 3.17.1", s)
		}
		n[i] = int(v)
	}
	r := xstate.Release{Major: n[0], Minor: n[1], Patch: n[2]}
	there := slices.ContainsFunc(lastOf[:], func(last xstate.Release) bool { return last.Major == r.Major && last.Minor >= r.Minor })
	if !there || r.Before(OldestCRIU) {
		return xstate.Release{}, fmt.Errorf("nothing is known of CRIU %v, but of %v to %v and %d.0 to %v",
			r, OldestCRIU, lastOf[0], xstate.NewestCRIU.Major, xstate.NewestCRIU)
	}
	return r, nil
}

// release is the CRIU that is asked about.
func (t Target) release() xstate.Release {
	if t.CRIU == (xstate.Release{}) {
		return xstate.NewestCRIU
	}
	return t.CRIU
}

// seenBy returns the host as a release of CRIU sees it, which finds no feature at all on
// the CPUs of vendors that it does not know.
func seenBy(r xstate.Release, host *xstate.CPU) (seen *xstate.CPU, blind bool) {
	switch host.Vendor {
	case "", "intel", "amd":
		return host, false
	case "hygon":
		if does(r, knowsHygon) {
			return host, false
		}
	}
	return &xstate.CPU{Name: host.Name, Vendor: host.Vendor, XSave: new(false), Flags: []string{},
		Capability: make([]uint32, xstate.CapabilityWords), XSaveSize: new(uint32(0)), XSaveSizeMax: new(uint32(0))}, true
}

// overwritten returns the components of the host of which a release overwrites four bytes
// with the end mark of the frame, of those that it fills. known is false where that
// depends on places that are not recorded.
func overwritten(r xstate.Release, host *xstate.CPU, filled xstate.Features) (set xstate.Features, known bool) {
	if does(r, endOfFrame) {
		return 0, true
	}
	const mark = 4
	end := xstate.Layout{}.CompactLayout(filled).End(filled)
	layouts := host.Layouts()
	for i, l := range layouts {
		var hit xstate.Features
		for f := range (filled &^ xstate.Legacy).All() {
			if p, ok := l.Find(f); ok && p.Offset < end+mark && end < p.Offset+p.Size {
				hit |= f.Mask()
			}
		}
		if i > 0 && hit != set {
			return set | hit, false
		}
		set = hit
	}
	return set, len(layouts) > 0 || filled&^xstate.Legacy&^xstate.AVX.Mask() == 0
}
