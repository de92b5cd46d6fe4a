package cpuid

import (
	"bufio"
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

const (
	maxText   = 16 << 20 // bytes: cpuid(1) writes some 5 KB for each logical CPU
	maxLeaves = 4096     // of one logical CPU
)

// TextError is a line that cannot be what it seems to be.
type TextError struct {
	Form   string // what the text is taken for: "cpuid dump"
	Line   int    // 1 is the first; 0: the text as a whole
	Reason string
	Hint   string // what to do, "" if nothing

	noLeaf bool // of a dump
}

func (e *TextError) Error() string {
	if e.Line == 0 {
		return e.Form + ": " + e.Reason
	}
	return fmt.Sprintf("%s: line %d: %s", e.Form, e.Line, e.Reason)
}

func badDump(line int, format string, a ...any) error {
	return &TextError{Form: "cpuid dump", Line: line, Reason: fmt.Sprintf(format, a...)}
}

// A leafForm is a way to print a leaf. The groups leaf, sub, eax, ebx, ecx and edx are
// hexadecimal; of the decimal ones, basic and ext number the leaves of a range, and
// inner the sub-leaves of the leaf that was named last.
type leafForm struct {
	starts func() *regexp.Regexp // what begins so, and goes on in no form, is damaged
	line   func() *regexp.Regexp
	sparse bool // the program leaves out what is all zero
}

func form(starts, line string) leafForm {
	line = strings.ReplaceAll(line, "H)", "[0-9a-f]{1,8})")
	return leafForm{starts: pattern(`(?i)^` + starts), line: pattern(`(?i)^` + line + `$`)}
}

func (f leafForm) leavesOutZeros() leafForm {
	f.sparse = true
	return f
}

const (
	equations = `eax=0x(?<eax>H),?\s+ebx=0x(?<ebx>H),?\s+ecx=0x(?<ecx>H),?\s+edx=0x(?<edx>H)`
	spaced    = `(?<eax>H) (?<ebx>H) (?<ecx>H) (?<edx>H)`
)

var leafForms = sync.OnceValue(func() []leafForm {
	return []leafForm{
		// cpuid -r, of old without a sub-leaf, and kcpuid -r of Linux.
		form(`0x[0-9a-f]+[ _:].*eax`, `0x(?<leaf>H)(?:[ _]+0x(?<sub>H))?:\s*`+equations),
		// kcpuid -r, below "0x0000000d: subleafs:".
		form(`\d+: *eax`, `(?<inner>\d{1,3}):\s*`+equations),
		// AIDA64, whose dumps InstLatx64, klauspost/cpuid and libcpuid collect.
		form(`CPUID [0-9a-f]{8}\s*:?\s*[0-9a-f]{8}[ -]`, `CPUID (?<leaf>H)\s*:?\s*(?<eax>H)[ -](?<ebx>H)[ -](?<ecx>H)[ -](?<edx>H)\b(?:\s*\[SL (?<sub>H)\])?.*`),
		// cpuid by S. Noonan.
		form(`CPUID [0-9a-f]{8}(:[0-9a-f]+|, index [0-9a-f]+)? =`, `CPUID (?<leaf>H)(?:(?::|, index )(?<sub>H))? = `+spaced+`\b.*`),
		// libcpuid.
		form(`basic_cpuid\[`, `basic_cpuid\[(?<basic>\d{1,3})\]=`+spaced),
		form(`ext_cpuid\[`, `ext_cpuid\[(?<ext>\d{1,3})\]=`+spaced),
		// x86info -r.
		form(`eax in: `, `eax in: 0x(?<leaf>H), eax = (?<eax>H) ebx = (?<ebx>H) ecx = (?<ecx>H) edx = (?<edx>H)`),
		// cpucontrol of FreeBSD.
		form(`cpuid level 0x.*: `, `cpuid level 0x(?<leaf>H)(?:, level_type 0x(?<sub>H))?: 0x(?<eax>H) 0x(?<ebx>H) 0x(?<ecx>H) 0x(?<edx>H)`),
		// Linux, in its log, when it doubts leaf 0xD.
		form(`(\[[ .0-9]+\] )?CPUID\[`, `(?:\[[ .0-9]+\] )?CPUID\[(?<leaf>H), (?<sub>H)\]: eax=(?<eax>H) ebx=(?<ebx>H) ecx=(?<ecx>H) edx=(?<edx>H)`),
		// libvirt: <cpudata arch='x86'>, of old with function for eax_in.
		form(`<cpuid `, `<cpuid (?:eax_in|function)=.0x(?<leaf>H).(?: ecx_in=.0x(?<sub>H).)? eax=.0x(?<eax>H). ebx=.0x(?<ebx>H). ecx=.0x(?<ecx>H). edx=.0x(?<edx>H). ?/>`),
		// xen-cpuid -p.
		form(`[0-9a-f]{8}:[0-9a-f]{8}\s+->`, `(?<leaf>H):(?<sub>H)\s+-> (?<eax>H):(?<ebx>H):(?<ecx>H):(?<edx>H)`).leavesOutZeros(),
	}
})

var (
	cpuHeading  = pattern(`^CPU *\d*:$`)                                    // cpuid(1)
	innerLeaves = pattern(`^0x([0-9a-f]{8}): subleafs:$`)                   // kcpuid
	kcpuidHead  = pattern(`^(Basic|Extended) Leafs *:$`)                    // kcpuid, which leaves out zeros
	decoded     = pattern(`^[a-z][a-z0-9 ()/_-]*(=|\(0x[0-9a-f]+.*\):|:$)`) // cpuid(1) without -r
)

// leafLine is a line of a dump.
type leafLine struct {
	leaf   Leaf
	regs   Regs
	inner  bool // of the leaf that was named last
	sparse bool
}

// parseLeaf reads a line; looks reports that it begins as one that has a leaf.
func parseLeaf(line string) (l leafLine, ok, looks bool) {
	for _, f := range leafForms() {
		if !f.starts().MatchString(line) {
			continue
		}
		looks = true
		if m := f.line().FindStringSubmatch(line); m != nil {
			l.sparse = f.sparse
			for i, group := range f.line().SubexpNames() {
				l.put(group, m[i])
			}
			return l, true, true
		}
	}
	return l, false, looks
}

// put puts what a group of a form holds in its place; the form has seen to it that it
// is a number.
func (l *leafLine) put(group, text string) {
	hex64, _ := strconv.ParseUint(text, 16, 32)
	dec64, _ := strconv.ParseUint(text, 10, 32)
	hex, dec := uint32(hex64), uint32(dec64)
	switch group {
	case "leaf":
		l.leaf.EAX = hex
	case "sub":
		if l.leaf.ECX = hex; hex == 1<<32-1 { // xen-cpuid: there is none
			l.leaf.ECX = 0
		}
	case "basic":
		l.leaf.EAX = dec
	case "ext":
		l.leaf.EAX = leafExt + dec
	case "inner":
		l.leaf.ECX, l.inner = dec, true
	case "eax":
		l.regs.EAX = hex
	case "ebx":
		l.regs.EBX = hex
	case "ecx":
		l.regs.ECX = hex
	case "edx":
		l.regs.EDX = hex
	}
}

// ParseDump reads the raw answers of the CPUID instruction as programs print them, one
// table for each logical CPU. Lines that are no part of a dump are passed over; one
// that begins as a leaf must be one. The error is a [*TextError].
func ParseDump(b []byte) ([]Recorded, error) {
	if len(b) > maxText {
		return nil, badDump(0, "%d bytes are more than any machine has", len(b))
	}
	d := dump{cpu: Recorded{}, at: 1}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for ; sc.Scan(); d.at++ {
		if line := strings.TrimSpace(sc.Text()); line != "" && line[0] != '#' {
			if err := d.line(line); err != nil {
				return nil, err
			}
		}
	}
	if sc.Err() != nil { // bytes can be read; only their length is left to complain of
		return nil, badDump(d.at, "longer than %d KiB", bufio.MaxScanTokenSize>>10)
	}
	switch d.next(); {
	case len(d.all) > 0:
	case d.stranger == 0:
		return nil, &TextError{Form: "cpuid dump", Reason: "no leaf in it", noLeaf: true}
	default:
		return nil, &TextError{Form: "cpuid dump", Line: d.stranger, Reason: "neither here nor below is a leaf", noLeaf: true}
	}
	if d.sparse {
		for _, cpu := range d.all {
			cpu.fillZeros()
		}
	}
	return d.all, nil
}

// dump is what was read so far.
type dump struct {
	all      []Recorded
	cpu      Recorded // the one whose leaves follow
	at       int      // the line
	last     Leaf     // that was named, for the sub-leaves below it
	headed   bool     // cpuid(1) has put a heading, and its first leaf is due
	sparse   bool     // what is all zero is left out
	stranger int      // the first line that is no part of a dump
}

// next begins with another CPU.
func (d *dump) next() {
	if len(d.cpu) > 0 {
		d.all = append(d.all, d.cpu)
		d.cpu = Recorded{}
	}
}

func (d *dump) line(line string) error {
	l, ok, looks := parseLeaf(line)
	switch {
	case ok:
		return d.leaf(l)
	case cpuHeading().MatchString(line):
		d.next()
		d.headed = true
	case d.headed && len(d.all) == 0 && decoded().MatchString(line):
		return &TextError{Form: "cpuid dump", Line: d.at, Reason: "made without -r: it explains the registers, but does not have them", Hint: "cpuid -1 -r writes one that does"}
	case looks || d.headed && !strings.HasPrefix(line, "cpuid:"):
		return badDump(d.at, "%.40q is no leaf: want 0xLEAF 0xSUB: and the four registers, as eax=0x0000001f", line)
	case kcpuidHead().MatchString(line):
		d.sparse = true
	case innerLeaves().MatchString(line):
		v, _ := strconv.ParseUint(innerLeaves().FindStringSubmatch(line)[1], 16, 32)
		d.last = Leaf{EAX: uint32(v)}
	case d.stranger == 0:
		d.stranger = d.at
	}
	return nil
}

// leaf puts a leaf into the table of its CPU.
func (d *dump) leaf(l leafLine) error {
	d.headed, d.sparse = false, d.sparse || l.sparse
	if l.inner {
		l.leaf.EAX = d.last.EAX
	}
	d.last = l.leaf
	if _, twice := d.cpu[l.leaf]; twice {
		if l.leaf != (Leaf{}) {
			return nil // leaf 2 repeats
		}
		d.next()
	}
	if d.cpu[l.leaf] = l.regs; len(d.cpu) > maxLeaves {
		return badDump(d.at, "more than %d leaves", maxLeaves)
	}
	return nil
}

// fillZeros puts zeros for the leaves that a [reader] asks for and that are not there.
func (r Recorded) fillZeros() {
	for _, leaf := range []uint32{leafFeatures, 6, leafStruct, leafXState, 0xf, leafExt + 1, leafExt + 2, leafExt + 3, leafExt + 4, leafExt + 7, leafExt + 8, leafExt + 0xa} {
		for sub := range uint32(64) {
			at := Leaf{leaf, sub}
			if _, ok := r[at]; !ok {
				r[at] = Regs{}
			}
		}
	}
}

// dumpCPU is the machine that all of the logical CPUs make: what each of them has.
func dumpCPU(all []Recorded) *xstate.CPU {
	cpus := make([]*xstate.CPU, len(all))
	for i, r := range all {
		cpus[i] = CPU(r)
	}
	return sameOrCommon(cpus)
}

// sameOrCommon is what a machine's CPUs share: one of them where they are alike.
func sameOrCommon(cpus []*xstate.CPU) *xstate.CPU {
	if !slices.ContainsFunc(cpus, func(c *xstate.CPU) bool { return !reflect.DeepEqual(c, cpus[0]) }) {
		return cpus[0]
	}
	c := Common(cpus...)
	c.Name = cpus[0].Name
	return c
}
