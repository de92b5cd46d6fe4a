package vmtest

import (
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// machine is a CPU model of the matrix.
type machine struct {
	name   string // in the table
	cpu    string // qemu's -cpu
	target bool   // nothing is dumped on it

	// What phase one leaves on the host.
	profile string // path of the JSON profile that fpuimg wrote there
	vendor  string
	flags   []string
}

// machines tell apart all that CRIU compares. Under TCG all have Intel's offsets and
// none XSAVEC or AVX-512.
func machines() []*machine {
	return []*machine{
		{name: "max", cpu: "max"}, // AVX, MPX, PKU
		{name: "haswell", cpu: "Haswell"},
		{name: "epyc", cpu: "EPYC"},
		{name: "epyc-milan", cpu: "EPYC-Milan"},   // PKU without MPX
		{name: "qemu64", cpu: "qemu64,-xsave"},    // FXSAVE only
		{name: "nehalem", cpu: "Nehalem"},         // FXSAVE only, with SSE4.2
		{name: "sandybridge", cpu: "SandyBridge"}, // AVX without AVX2
		{name: "denverton", cpu: "Denverton"},     // XSAVE and MPX without AVX
		{name: "max-bare", cpu: "max,-pku,-mpx"},  // the components of Haswell, other instructions
	}
}

// program is a test program on the machine where it is dumped.
type program struct {
	testprog.Program
	kind               string
	on                 *machine
	criu               *guest.CRIU // that dumps it; nil: the guest's own
	processes, threads int

	// ticks is how many lines it must have written after a restore until
	// nothing new is to be expected of it. The first may be of a check before the
	// dump.
	ticks int

	// needs returns the instruction sets without which the program dies of
	// SIGILL, of those that the machine it started on has.
	needs func(*machine) []string

	// buffer is that it saves registers with XSAVE into a buffer of the size that
	// was right on the machine it started on.
	buffer bool

	// memory is that all of this is left to fpuimg check, which looks at its memory.
	memory bool

	// accept is what level is to accept of it.
	accept string

	// downOnly is that it is restored on machines without XSAVE alone.
	downOnly bool
}

// kinds are the programs by name, with the machines whose checkpoints of it
// the matrix has; none is all.
var kinds = []struct {
	name, command      string
	processes, threads int
	on                 []string
}{
	{"auto", "/job/fpuhold auto $STATUS", 1, 1, nil},
	{"blind", "/job/fpuhold -b auto $STATUS", 1, 1, nil},
	{"plain", "/job/lazycall $STATUS /tmp/go", 1, 1, nil},
	{"tuned", "env " + testprog.Tunables + " /job/lazycall $STATUS /tmp/go", 1, 1, []string{"haswell", "max", "epyc"}},
	{"tuned-amd", "env " + testprog.TunablesAMD + " /job/lazycall $STATUS /tmp/go", 1, 1, []string{"max", "epyc"}},
	{"sse", "/job/fpuhold sse $STATUS", 1, 1, []string{"haswell", "max", "epyc", "qemu64"}},
	{"threads", "/job/fpuhold auto $STATUS 8", 1, 8, []string{"haswell", "max", "epyc", "qemu64"}},
	{"tree", "/job/fpuhold auto $STATUS 2 3", 3, 2, []string{"haswell", "max", "epyc", "qemu64"}},
	{"erased", "/job/fpuhold erased $STATUS 2", 1, 2, []string{"haswell", "qemu64"}},
	{"live", "/job/fpuhold auto $STATUS 2", 1, 2, liveMachines},
	{"pkru", "/job/fpuhold pkru $STATUS 4", 1, 4, []string{"max"}},
	{"mpx", "/job/fpuhold mpx $STATUS", 1, 1, []string{"max"}},
}

// programs returns the programs to be dumped on each machine, each with a process
// number of its own: it must be free where the checkpoint is restored.
func programs(all []*machine) []*program {
	var out []*program
	for _, m := range all {
		for _, k := range kinds {
			if m.target || k.on != nil && !slices.Contains(k.on, m.name) {
				continue
			}
			p := &program{kind: k.name, on: m, processes: k.processes, threads: k.threads, ticks: 2}
			p.Program = testprog.Program{Name: m.name + "-" + k.name, PID: 100000 + 100*len(out), Command: k.command}
			if strings.Contains(k.command, "lazycall") {
				p.ticks = 16
			}
			switch k.name {
			case "blind":
				p.needs = blindNeeds
			case "plain":
				p.needs, p.buffer = plainNeeds, true
			case "tuned":
				p.needs = tunedNeeds
			}
			out = append(out, p)
		}
	}
	return out
}

// blindNeeds: fpuhold -b goes on to use XSAVE itself, but no instruction of the
// components that it loaded.
func blindNeeds(on *machine) []string { return had(on, "xsave") }

// plainNeeds: glibc 2.36 saves registers with XSAVE in its lazy resolver where it
// finds it (sysdeps/x86/cpu-features.c), and chooses the AVX2 variants of memcpy,
// strlen and others where it finds that.
func plainNeeds(on *machine) []string { return had(on, "xsave", "xsavec", "avx2") }

// tunedNeeds: without the others, glibc chooses the SSSE3 variant of memmove, but
// not on a CPU that it knows to have fast unaligned copies, as Intel's
// (sysdeps/x86_64/multiarch/ifunc-memmove.h, Fast_Unaligned_Copy).
func tunedNeeds(on *machine) []string {
	if on.vendor == "intel" {
		return nil
	}
	return had(on, "ssse3")
}

func had(on *machine, names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(on.flags, name) })
}
