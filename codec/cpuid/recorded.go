package cpuid

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Leaf is a CPUID leaf and sub-leaf: EAX and ECX going in.
type Leaf struct{ EAX, ECX uint32 }

// Regs is what CPUID answers.
type Regs struct{ EAX, EBX, ECX, EDX uint32 }

// Recorded is a CPU from a table of its answers. What is not in the table reads as
// zero, as it does for a sub-leaf that a CPU does not have.
type Recorded map[Leaf]Regs

// CPUID implements [Querier].
func (r Recorded) CPUID(leaf, sub uint32) (eax, ebx, ecx, edx uint32) {
	v := r[Leaf{leaf, sub}]
	return v.EAX, v.EBX, v.ECX, v.EDX
}

// XCR0 implements [Querier]. A table of CPUID answers has no XCR0, so it is what
// Linux would enable: the user components of leaf 0xD whose feature flag is there
// (so Zen 2, which lists PKRU without PKU, does not get it), but no more than fit
// the size of the enabled ones, which leaf 0xD did record. The parts of AVX-512,
// AMX and MPX go together.
func (r Recorded) XCR0() xstate.Features {
	lo, size, _, hi := r.CPUID(leafXState, 0)
	flags := xstate.FlagsOf(newReader(r).words())
	var set xstate.Features
	for f := range ((xstate.Features(hi)<<32 | xstate.Features(lo)) & xstate.Known).All() {
		name := f.Flag()
		if f == xstate.PKRU {
			name = "ospke"
		}
		if _, ok := slices.BinarySearch(flags, name); ok {
			set |= f.Mask()
		}
	}
	for l := layout(r, set); len(l) > 0 && l.End(set) > int(size); {
		top := slices.MaxFunc(l, func(a, b xstate.Placement) int { return a.Offset + a.Size - b.Offset - b.Size })
		for f := range set.All() {
			if f.Flag() == top.Feature.Flag() {
				set &^= f.Mask()
			}
		}
		l = slices.DeleteFunc(l, func(p xstate.Placement) bool { return !set.Has(p.Feature) })
	}
	return set
}

const (
	maxDump   = 16 << 20 // bytes: cpuid(1) writes some 5 KB for each logical CPU
	maxLeaves = 4096     // of one logical CPU
)

// DumpError is a line that is no part of a dump.
type DumpError struct {
	Line   int // 1 is the first; 0: the dump as a whole
	Reason string
}

func (e *DumpError) Error() string {
	if e.Line == 0 {
		return "cpuid dump: " + e.Reason
	}
	return fmt.Sprintf("cpuid dump: line %d: %s", e.Line, e.Reason)
}

// ParseDump reads the raw output of the cpuid(1) tool (cpuid -r, with or without
// -1). Of several logical CPUs the first one counts, but all lines must be well
// formed. The error is a [*DumpError].
//
// A line is "0x0000000d 0x01: eax=0x... ebx=0x... ecx=0x... edx=0x..."; headings
// are "CPU:" or "CPU 0:".
func ParseDump(b []byte) (Recorded, error) {
	if len(b) > maxDump {
		return nil, &DumpError{0, fmt.Sprintf("%d bytes are more than any machine has", len(b))}
	}
	rec := Recorded{}
	n, cpus := 0, 0
	for sc := bufio.NewScanner(bytes.NewReader(b)); ; {
		if n++; !sc.Scan() {
			if sc.Err() != nil {
				return nil, &DumpError{n, sc.Err().Error()}
			}
			break
		}
		line := strings.TrimSpace(sc.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case isHeading(line):
			cpus++
			continue
		}
		leaf, regs, err := parseLine(line)
		if err != nil {
			return nil, &DumpError{n, err.Error()}
		}
		if _, ok := rec[leaf]; ok || cpus > 1 {
			continue // leaf 2 repeats
		}
		if rec[leaf] = regs; len(rec) > maxLeaves {
			return nil, &DumpError{n, fmt.Sprintf("more than %d leaves", maxLeaves)}
		}
	}
	if _, ok := rec[Leaf{0, 0}]; !ok {
		return nil, &DumpError{0, "no leaf 0"}
	}
	return rec, nil
}

func isHeading(line string) bool {
	rest, ok := strings.CutPrefix(line, "CPU")
	if rest, colon := strings.CutSuffix(rest, ":"); ok && colon {
		return strings.Trim(rest, " 0123456789") == ""
	}
	return false
}

func parseLine(line string) (leaf Leaf, regs Regs, err error) {
	in, out, ok := strings.Cut(line, ":")
	words := strings.Fields(in)
	values := strings.Fields(out)
	if !ok || len(words) < 1 || len(words) > 2 || len(values) != 4 {
		return leaf, regs, fmt.Errorf("%.40q is no leaf: want 0xLEAF 0xSUB: and the four registers, as eax=0x1f", line)
	}
	for i, p := range []*uint32{&leaf.EAX, &leaf.ECX}[:len(words)] {
		if *p, err = parseHex(words[i]); err != nil {
			return leaf, regs, err
		}
	}
	for i, p := range []*uint32{&regs.EAX, &regs.EBX, &regs.ECX, &regs.EDX} {
		name := [...]string{"eax=", "ebx=", "ecx=", "edx="}[i]
		v, ok := strings.CutPrefix(values[i], name)
		if !ok {
			return leaf, regs, fmt.Errorf("%.40q stands where %s is due", values[i], name)
		}
		if *p, err = parseHex(v); err != nil {
			return leaf, regs, err
		}
	}
	return leaf, regs, nil
}

func parseHex(s string) (uint32, error) {
	digits, ok := strings.CutPrefix(s, "0x")
	v, err := strconv.ParseUint(digits, 16, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("%.40q is no 32-bit number in hex", s)
	}
	return uint32(v), nil
}
