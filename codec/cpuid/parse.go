package cpuid

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf16"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// A source is a form in which a machine is described.
type source struct {
	is   func(lines []string) bool
	read func(lines []string) (*xstate.CPU, error)
}

// sources are what [Parse] tells apart, the richest first: a file may hold several.
var sources = [...]source{
	{hasLine(`^x86\.(cpu_features|processor)[.[]`), parseLdSo},
	{func(lines []string) bool {
		return slices.ContainsFunc(lines, func(line string) bool { _, ok, _ := parseLeaf(strings.TrimSpace(line)); return ok })
	}, parseDumpLines},
	{func(lines []string) bool { return slices.ContainsFunc(lines, isFlagsLine) }, parseCPUInfoText},
	{hasLine(`^\(\d{2,}\.\d{6}\) |cpu: (fpu: xfeatures_mask|fpu:\d|x86_family) `), parseCRIULog},
	{hasLine(`x86/fpu: |xsave(/xrstor)?: enabled xstate_bv`), parseKernelLog},
}

// strangers are texts that look like the description of a machine and are none that can
// be used, with what to do instead.
var strangers = [...]struct {
	is         func(lines []string) bool
	name, hint string
}{
	{hasLine(`^\s*(CPU implementer\s*:|Architecture:\s*(aarch64|arm))`), "an ARM machine, and this is about x86", ""},
	{hasLine(`^\s*(isa\s*:\s*rv|Architecture:\s*riscv)`), "a RISC-V machine, and this is about x86", ""},
	{hasLine(`^\s*(cpu\s*:\s*(POWER|PPC|7[45])|Architecture:\s*ppc)`), "a PowerPC machine, and this is about x86", ""},
	{hasLine(`^\s*(vendor_id\s*:\s*IBM/S390|Architecture:\s*s390)`), "an IBM Z machine, and this is about x86", ""},
	{hasLine(`(?i)^\s*(model name\s*:\s*loongson|Architecture:\s*loongarch)`), "a LoongArch machine, and this is about x86", ""},
	{hasLine(`^\s*(cpucaps\s*:|type\s*:\s*sun4|Architecture:\s*sparc)`), "a SPARC machine, and this is about x86", ""},
	{hasLine(`^\s*(system type\s*:|ASEs implemented|Architecture:\s*mips)`), "a MIPS machine, and this is about x86", ""},
	{hasLine(`^dl_platform=|^aarch64\.`), "what ld.so says of a machine that is no x86", ""},
	{hasLine(`^\s*x86-64-v\d \(`), "what ld.so says of levels; a level is named itself", "name the highest that is supported, such as --host=x86-64-v3, or ld.so --list-diagnostics writes more"},
	{hasLine(`<(domain|domainCapabilities|capabilities|cpu|cpus|cpuTest|host)[\s>/]`), "XML of libvirt: a CPU model and what is added to it, not what the guest has", "cpuid -1 -r or cat /proc/cpuinfo in the guest, or on the host, writes that"},
	{hasLine(`^Available CPUs:|^x86 +(qemu64|max|host|Haswell|base)\b`), "a list of QEMU's CPU models", "cpuid -1 -r or cat /proc/cpuinfo in the guest writes what one of them has"},
	{hasLine(`^Coreinfo v|^CPU-Z|^HWiNFO`), "a report of a Windows program without raw CPUID registers", "AIDA64's CPUID dump has them, and so has cpuid -1 -r of Linux"},
	{hasLine(`^machdep\.cpu\.`), "sysctl of macOS", ""},
	{hasLine(`^\s*Features\d?=0x[0-9a-f]+<`), "the log of a BSD kernel", "cpucontrol -i LEAF,SUB /dev/cpuctl0 prints raw leaves"},
	{hasLine(`^\s*(Architecture|CPU op-mode\(s\)|Vendor ID):`), "lscpu without its line Flags", "cat /proc/cpuinfo has the flags"},
	{hasLine(`^\s*vendor_id\s*:`), "/proc/cpuinfo without its line flags", "copy the file whole"},
}

func hasLine(expr string) func([]string) bool {
	re := pattern(expr)
	return func(lines []string) bool { return slices.ContainsFunc(lines, re().MatchString) }
}

// pattern compiles a regular expression when it is first used: most runs read no text.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// Parse reads the description of a machine, told apart by content: a profile in JSON,
// a dump of CPUID as [ParseDump] takes it, /proc/cpuinfo or lscpu, what ld.so
// --list-diagnostics prints, a log of CRIU, or of the kernel. The error is a
// [*ProfileError] or a [*TextError].
func Parse(b []byte) (*xstate.CPU, error) {
	if len(b) > maxText && bytes.HasPrefix(b, []byte("(0")) {
		b = b[:maxText] // a log of CRIU says what the CPU has at its start
	}
	if len(b) > maxText {
		return nil, &TextError{Form: "profile", Reason: fmt.Sprintf("%d bytes are more than any description of a machine has", len(b))}
	}
	b = plainText(b)
	if trimmed := bytes.TrimSpace(b); len(trimmed) > 0 && trimmed[0] == '{' {
		if lines, ok := lscpuJSON(trimmed); ok {
			return parseCPUInfoText(lines)
		}
		return ParseProfile(b)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, &TextError{Form: "profile", Reason: "there is nothing in it"}
	}
	lines := strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
	for _, s := range sources {
		if s.is(lines) {
			return s.read(lines)
		}
	}
	for _, s := range strangers {
		if s.is(lines) {
			return nil, &TextError{Form: "profile", Reason: s.name, Hint: s.hint}
		}
	}
	cpu, err := parseDumpLines(lines)
	if text, ok := errors.AsType[*TextError](err); ok && text.noLeaf {
		return nil, &TextError{Form: "profile", Line: text.Line, Reason: "neither here nor below is a machine described"}
	}
	return cpu, err
}

// plainText takes a byte order mark away, and makes UTF-8 of what PowerShell writes.
func plainText(b []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		return b[3:]
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return b
	}
	var units []uint16
	for b = b[2:]; len(b) >= 2; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	return []byte(string(utf16.Decode(units)))
}

func parseDumpLines(lines []string) (*xstate.CPU, error) {
	all, err := ParseDump([]byte(strings.Join(lines, "\n")))
	if err != nil {
		return nil, err
	}
	return dumpCPU(all), nil
}

// lscpuJSON returns the lines of lscpu -J.
func lscpuJSON(b []byte) (lines []string, ok bool) {
	type field struct {
		Field    string  `json:"field"`
		Data     string  `json:"data"`
		Children []field `json:"children"`
	}
	var doc struct {
		LSCPU []field `json:"lscpu"`
	}
	if json.Unmarshal(b, &doc) != nil || doc.LSCPU == nil {
		return nil, false
	}
	var walk func([]field)
	walk = func(list []field) {
		for _, f := range list {
			lines = append(lines, strings.TrimSuffix(f.Field, ":")+": "+f.Data)
			walk(f.Children)
		}
	}
	walk(doc.LSCPU)
	return lines, true
}
