package compat_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// The CPU models of the tests, by what their profiles list.
var (
	psABI, _ = xstate.ByName("x86-64-v3") // says nothing of xsavec
	// zen4 is the source: AMD's layout, AVX-512, no PKU.
	zen4 = sized32(machine(0xe7, append(names("avx512bw avx512f avx512vl sha_ni xsavec"), psABI.Flags...)...), 2432)
	// v3 has AVX2 and neither AVX-512 nor XSAVEC, as QEMU's Haswell.
	v3 = sized32(machine(0x7, slices.Clone(psABI.Flags)...), 832)
	// milan has room in its frames for more than it has components.
	milan = sized32(machine(0x207, append(names("pku"), psABI.Flags...)...), 2696)
	// amx has tiles, whose data the kernel leaves out of signal frames.
	amx = sized32(machine(0x602e7, append(names("amx_tile avx512f xsavec"), psABI.Flags...)...), 11008)
	old = &xstate.CPU{Name: "old", FXSave: new(true), XSave: new(false), Flags: names("lm sse sse2")}
)

func sized32(c *xstate.CPU, size uint32) *xstate.CPU {
	c.XSaveSize = &size
	return c
}

// The objects and the process of the tests: a glibc program that chose AVX-512 code.
var (
	libc = &facts.Object{Path: "/usr/lib/x86_64-linux-gnu/libc.so.6", BuildID: "93ac61ec", Status: facts.OK}
	libm = &facts.Object{Path: "/usr/lib/x86_64-linux-gnu/libm.so.6", BuildID: "f902f8a5", Status: facts.OK}
	app  = &facts.Object{Path: "/usr/bin/app", BuildID: "befc0308", Status: facts.OK}
)

func names(list string) []string { return strings.Fields(list) }

// program returns the facts about a program that runs everywhere, but for the options.
func program(opts ...func(*facts.Process)) *facts.Process {
	p := &facts.Process{PID: 7, Rooted: true, Libc: "glibc 2.36", Objects: []*facts.Object{app, libc, libm},
		Targets: []facts.Target{{Object: libc, Address: 0x1000, Functions: names("stpcpy"), Slots: 2, Needs: names("sse2")}},
		Source: &facts.Source{CPU: &xstate.CPU{Vendor: "amd", Family: new(25), Model: new(17), Stepping: new(1), Flags: zen4.Flags},
			Active: zen4.Flags, ISALevel: 4, SaveSize: 2496}}
	for _, o := range opts {
		o(p)
	}
	return p
}

func evex(p *facts.Process) {
	p.Targets = append(p.Targets,
		facts.Target{Object: libc, Address: 0x2000, Functions: names("strlen"), Slots: 30, Needs: names("avx2 avx512bw avx512vl bmi2")},
		facts.Target{Object: libc, Address: 0x3000, Functions: names("memset"), Slots: 3, Needs: names("avx512vl")},
		facts.Target{Object: libm, Address: 0x4000, Functions: names("sin"), Slots: 1, Needs: names("avx512f")})
}

func save(kind facts.SaveKind, size, lazy int) func(*facts.Process) {
	return func(p *facts.Process) { p.Save = &facts.Save{Kind: kind, Size: size, Lazy: lazy} }
}

// unrooted takes away what only ELF files tell.
func unrooted(p *facts.Process) {
	p.Rooted, p.Targets, p.Save = false, nil, nil
	p.Objects = []*facts.Object{{Path: libc.Path, BuildID: libc.BuildID, Status: facts.Unread}}
}

func unknown(u facts.Unknown) func(*facts.Process) {
	return func(p *facts.Process) { p.Unknowns = append(p.Unknowns, u) }
}

func object(o facts.Object) func(*facts.Process) {
	return func(p *facts.Process) { p.Objects = append(p.Objects, &o) }
}

func running(th facts.Thread) func(*facts.Process) {
	return func(p *facts.Process) {
		th.TID = 7
		p.Threads = []facts.Thread{th}
	}
}

// judged returns what is said of the process, with one thread in the state.
func judged(host *xstate.CPU, s *xstate.State, p *facts.Process) *compat.Judgement {
	j := compat.Judge(onHost(host), compat.Policy{})
	j.Code([]*facts.Process{p})
	j.Taken(nil)
	j.Thread(compat.Thread{PID: 7, TID: 7, State: s})
	return j
}

func allOf(j *compat.Judgement) []compat.Finding {
	out := slices.Clone(j.Findings)
	for _, t := range j.Tasks {
		out = append(out, t.Findings...)
	}
	for _, t := range j.Threads {
		out = append(out, t.Findings...)
	}
	return out
}

func of(host *xstate.CPU, opts ...func(*facts.Process)) []compat.Finding {
	return allOf(judged(host, fxsave(), program(opts...)))
}

func with(s *xstate.State, host *xstate.CPU, th facts.Thread) []compat.Finding {
	return allOf(judged(host, s, program(running(th))))
}

func frame(bv xstate.Features, size int) facts.Thread {
	return facts.Thread{Frames: []facts.Frame{{Features: 0xe7, BV: bv, Size: size, Live: true}}}
}

var codeCases = []ruleCase{
	{compat.CodeMissing, compat.Fatal, of(v3, evex),
		"", "avx512bw avx512f avx512vl", "34 of 36 IFUNC slots hold functions that need avx512bw avx512f avx512vl, which target lacks: 33 in libc.so.6 and 1 in libm.so.6. " +
			"It dies of SIGILL at its next call of memset, strlen and sin"},
	{compat.ThreadInCode, compat.Fatal, with(fxsave(), v3, facts.Thread{IP: 0x2040, Object: libc, Symbol: "__strlen_evex", Needs: names("avx512vl"), Certain: names("avx512vl")}),
		"", "avx512vl", "__strlen_evex of libc.so.6, at 0x2040"},
	{compat.ThreadInCode, compat.Risky, with(fxsave(), v3, facts.Thread{IP: 0x2040, Object: libc, Symbol: "__strlen_evex", Needs: names("avx512vl"), Certain: names("avx2")}),
		"", "avx512vl", "if it goes that way"},
	{compat.FrameUnfit, compat.Risky, with(fxsave(), machine(0x7, "avx", "xsave"), frame(0x7, 2432)),
		"AVX", "", "the kernel's on target 832"},
	{compat.ComponentDead, compat.Note, with(xsave(use(xstate.Opmask, "k1")), v3, facts.Thread{Syscall: "clock_nanosleep", Dead: xstate.AVX512}),
		"opmask", "", "waits in clock_nanosleep"},
	{compat.FrameUnfit, compat.Risky, with(fxsave(), v3, frame(0x7, 2432)),
		"AVX", "", "the frame's area has 2432 bytes, the kernel's on target 832"},
	{compat.FrameUnfit, compat.Note, with(fxsave(), v3, facts.Thread{Frames: []facts.Frame{{BV: 0xe7, Size: 2432}}}),
		"AVX opmask ZMM_Hi256 Hi16_ZMM", "", "left on the stack, and does not count"},
	{compat.FrameUnfit, compat.Risky, with(fxsave(), milan, frame(0xe7, 2432)),
		"opmask ZMM_Hi256 Hi16_ZMM", "", "SIGSEGV at the return"},
	{compat.FrameUnfit, compat.Risky, with(fxsave(), old, frame(0x7, 2432)),
		"AVX", "", "old has no XSAVE"},
	{compat.FrameUnfit, compat.Risky, with(fxsave(), amx, frame(0x7, 3000)),
		"AVX", "", "3000 bytes, the kernel's on target 2816"},
	{compat.LazySave, compat.Fatal, of(v3, save(facts.XSaveC, 2496, 48)),
		"", "xsavec", "with XSAVEC, which target lacks: the program dies of SIGILL at the first call of a symbol that is not bound yet (48 are left)"},
	{compat.LazySave, compat.Fatal, of(old, save(facts.XSave, 896, 48)),
		"", "xsave", "with XSAVE, which old lacks"},
	{compat.LazySave, compat.Note, of(v3, save(facts.XSaveC, 2496, 0)),
		"", "xsavec", "would die"},
	{compat.LazySave, compat.Note, of(psABI, save(facts.XSaveC, 2496, 48)),
		"", "", "nothing is recorded of whether x86-64-v3 has it"},
	{compat.LazySave, compat.Risky, of(zen4, save(facts.XSave, 896, 48)),
		"", "", "a buffer of 832 bytes that was sized when the program started, and target writes 2432: the first call"},
	{compat.LazySave, compat.Risky, of(zen4, save(facts.XSave, 896, 0)),
		"", "", "a library that it opens later (all others are bound) overruns it by 1600 bytes"},
	{compat.LazySave, compat.Risky, of(zen4, func(p *facts.Process) {
		unrooted(p)
		p.Source.SaveSize, p.Source.Active = 896, v3.Flags
	}), "", "", "the first call of a symbol that is not bound yet overruns it"},
	{compat.LazySave, compat.Note, of(zen4, save(facts.XSaveC, 896, 48)),
		"", "", "harmless"},
	{compat.OwnDispatch, compat.Risky, of(v3, object(facts.Object{Path: "/lib/libcrypto.so.3", Own: &facts.Own{Needs: names("avx2 avx512f sha_ni"), AsksCPUID: true}})),
		"", "avx512f sha_ni", "libcrypto.so.3 asks CPUID itself"},
	{compat.CompiledISA, compat.Risky, of(v3, object(facts.Object{Path: "/lib/libfast.so", Own: &facts.Own{Needs: names("avx2 avx512f")}})),
		"", "avx512f", "libfast.so holds code that needs avx512f"},
	{compat.CompiledISA, compat.Risky, of(v3, object(facts.Object{Path: "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v4/libz.so.1"})),
		"", "avx512bw avx512cd avx512dq avx512f avx512vl", "is the build for x86-64-v4"},
	{compat.CompiledISA, compat.Risky, of(v3, func(p *facts.Process) {
		p.Targets = append(p.Targets, facts.Target{Object: libm, Functions: names("_ZGVeN8v_sin"), Slots: 1, Needs: names("avx512f")})
	}), "", "avx512f", "_ZGVeN8v_sin"},
	{compat.CachedCPUID, compat.Risky, of(v3, func(p *facts.Process) {
		p.Caches = []facts.Cache{{Object: app, Address: 0x9000, Flags: names("avx2 avx512f erms")}, {Object: app, Flags: names("sha_ni")}}
	}), "", "avx512f sha_ni", "app keeps what CPUID said"},
	{compat.JITCode, compat.Risky, of(v3, func(p *facts.Process) { p.Areas = []facts.Area{{Start: 0x10000, End: 0x30000, Writable: true}} }),
		"", "avx512bw avx512f avx512vl sha_ni xsavec", "128 KiB of anonymous executable memory"},
	{compat.CodeUnknown, compat.Note, of(zen4, unrooted),
		"", "", "for want of its ELF files"},
	{compat.CodeUnknown, compat.Note, of(zen4, object(facts.Object{Path: "/lib/libssl.so.3", Status: facts.Differs}), object(facts.Object{Path: "/lib/libx.so", Status: facts.Missing})),
		"", "", "libx.so: not found below the roots; libssl.so.3: not the file that was mapped"},
	{compat.CodeUnknown, compat.Risky, of(zen4, unknown(facts.Unknown{Topic: facts.Libc, Object: libc, Reason: "its build-id differs"})),
		"", "", "libc.so.6: its build-id differs"},
	{compat.CodeUnknown, compat.Note, of(zen4, unknown(facts.Unknown{Topic: facts.Proof, TID: 7, Reason: "a 32-bit task"})),
		"", "", "thread 7: a 32-bit task"},
	{compat.CodeUnknown, compat.Note, of(psABI, func(p *facts.Process) {
		p.Targets = []facts.Target{{Object: libc, Slots: 1, Needs: names("xsavec"), Functions: names("f"), Incomplete: "a jump through memory"}}
	}), "", "xsavec", "its functions need xsavec, and nothing is recorded of whether x86-64-v3 has that; not decoded to the end: libc.so.6 (f): a jump through memory"},
	{compat.SourceInferred, compat.Note, of(zen4),
		"", "", "amd family 25 model 17 stepping 1"},
	{compat.ISAMissing, compat.Risky, of(v3),
		"", "avx512bw avx512f avx512vl sha_ni xsavec", "the source had instruction sets"},
	{compat.VendorDiffers, compat.Note, of(source(0xe7, "intel", 2432, zen4.Flags...)),
		"", "", "taken on a CPU of amd"},
}

// TestCodeFits: what the host can run, and what cannot be known, is not said to be
// unfit.
func TestCodeFits(t *testing.T) {
	dead := facts.Thread{Syscall: "pause", Dead: xstate.AVX512}
	k1 := xsave(use(xstate.Opmask, "k1"))
	tests := []struct {
		name     string
		findings []compat.Finding
		not      compat.Rule
	}{
		{"all that the code needs is there", of(zen4, evex, save(facts.XSaveC, 2496, 48)), compat.CodeMissing},
		{"the buffer fits", of(zen4, save(facts.XSaveC, 2816, 48)), compat.LazySave},
		{"FXSAVE fits everywhere", of(zen4, save(facts.FXSave, 0, 48)), compat.LazySave},
		{"nothing is bound lazily", of(zen4, func(p *facts.Process) { p.Source.SaveSize, p.Source.Active = 896, v3.Flags }), compat.LazySave},
		{"the buffer is judged by itself", of(wide, save(facts.XSave, 896, 0)), compat.XSaveSizeDiffers},
		{"musl has no such buffer", of(wide, func(p *facts.Process) { p.Libc, p.Source = "musl", nil }), compat.XSaveSizeDiffers},
		{"a profile without flags", of(blank, evex), compat.CodeMissing},
		{"a frame of SSE alone", with(fxsave(), v3, frame(0x3, 2432)), compat.FrameUnfit},
		{"a frame that fits", with(fxsave(), milan, frame(0x7, 2432)), compat.FrameUnfit},
		{"a frame whose values are dead", with(fxsave(), v3, facts.Thread{Frames: []facts.Frame{{BV: 0xe7, Size: 2432, Live: true, Dead: 0xe4}}}), compat.FrameUnfit},
		{"code that the host runs", with(fxsave(), v3, facts.Thread{Needs: names("avx2")}), compat.ThreadInCode},
		{"dead, and the host has it", with(k1, zen4, dead), compat.ComponentDead},
		{"dead, with a live frame", with(k1, v3, facts.Thread{Syscall: "pause", Dead: xstate.AVX512, Frames: []facts.Frame{{Live: true}}}), compat.ComponentDead},
		{"in no system call", with(k1, v3, facts.Thread{Dead: xstate.AVX512}), compat.ComponentDead},
		{"not dead", with(k1, v3, facts.Thread{Syscall: "pause", Dead: 1 << xstate.AVX}), compat.ComponentDead},
		{"an object of the level that the host has", of(v3, object(facts.Object{Path: "/lib/glibc-hwcaps/x86-64-v2/libz.so.1"})), compat.CompiledISA},
		{"own code that the host runs", of(v3, object(facts.Object{Own: &facts.Own{Needs: names("avx2"), AsksCPUID: true}})), compat.OwnDispatch},
		{"own code that the source could not run either", of(v3, object(facts.Object{Own: &facts.Own{Needs: names("amx_tile"), AsksCPUID: true}})), compat.OwnDispatch},
		{"hints in a cache", of(v3, func(p *facts.Process) { p.Caches = []facts.Cache{{Object: app, Flags: names("avx2 erms")}} }), compat.CachedCPUID},
		{"code made for no more than the host has", of(zen4, func(p *facts.Process) { p.Areas = []facts.Area{{End: 4096}} }), compat.JITCode},
		{"everything was looked at", of(zen4, evex), compat.CodeUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, f := range tt.findings {
				if f.Rule == tt.not {
					t.Errorf("%v %s: %s", f.Severity, f.Rule, f.Reason)
				}
			}
		})
	}
}

func TestCodeVerdict(t *testing.T) {
	k1 := xsave(use(xstate.Opmask, "k1"))
	blocked := facts.Thread{Syscall: "pause", Dead: xstate.AVX512}
	tests := []struct {
		name      string
		judgement *compat.Judgement
		verdict   compat.Verdict
		task      compat.Verdict
		unfit     int
		chief     compat.Rule
		remedies  string // of the chief finding
	}{
		{"unfit", judged(v3, k1, program(evex)), compat.CodeUnfit, compat.CodeUnfit, 34, compat.CodeMissing, "code-missing=host avx512bw,avx512f,avx512vl|anew|level"},
		{"unfit by a thread", judged(v3, k1, program(running(facts.Thread{Needs: names("avx512f"), Certain: names("avx512f")}))), compat.CodeUnfit, compat.CodeUnfit, 0, compat.ThreadInCode, "thread-in-code=host avx512f|later"},
		{"damaged is worse", judged(v3, xsave(sized(xstate.AVX, 8)), program(evex)), compat.Damaged, compat.Damaged, 34, compat.ComponentShort, "component-short=again"},
		{"lossy", judged(v3, k1, program()), compat.DowngradeLossy, compat.DowngradeLossy, 0, compat.ComponentMissing, "component-missing=host avx512f|force"},
		{"dead", judged(v3, k1, program(running(blocked))), compat.Compatible, compat.Compatible, 0, compat.ISAMissing, "isa-missing=host avx512bw,avx512f,avx512vl,sha_ni,xsavec|anew"},
		{"dead, on a host without XSAVE", judged(old, k1, program(running(blocked))), compat.DowngradeLossless, compat.DowngradeLossless, 0, compat.FormatXSave, "format-xsave=host xsave|force"},
		{"nothing is fatal without a root", judged(v3, fxsave(), program(evex, unrooted)), compat.Compatible, compat.Compatible, 0, compat.ISAMissing, "isa-missing=host avx512bw,avx512f,avx512vl,sha_ni,xsavec|anew"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := tt.judgement
			chief := j.Chief()
			if j.Verdict != tt.verdict || j.Tasks[0].Verdict != tt.task || j.Tasks[0].Unfit != tt.unfit || chief.Rule != tt.chief {
				t.Errorf("%v, task %v, %d slots, for %s", j.Verdict, j.Tasks[0].Verdict, j.Tasks[0].Unfit, chief.Rule)
			}
			if got := remedies([]compat.Finding{*chief}); got != tt.remedies {
				t.Errorf("got  %s\nwant %s", got, tt.remedies)
			}
			if got := remedies(allOf(j)); tt.verdict == compat.CodeUnfit && strings.Contains(got, "force") {
				t.Errorf("force is advised, and helps nothing: %s", got)
			}
			if j.Unchecked {
				t.Error("unchecked")
			}
		})
	}
	if j := judged(v3, fxsave(), program(unknown(facts.Unknown{Topic: facts.Libc, Reason: "two records"}))); !j.Unchecked {
		t.Error("a libc that is not proven leaves the code unchecked, and it does not say so")
	}
}

// TestForceInVain: whichever is told first, a thread that force would help or one that
// dies all the same, force is advised for neither.
func TestForceInVain(t *testing.T) {
	lossy := compat.Thread{PID: 7, TID: 8, State: xsave(use(xstate.Opmask, "k1"))}
	within := compat.Thread{PID: 7, TID: 7, State: fxsave()}
	for _, order := range [][]compat.Thread{{lossy, within}, {within, lossy}} {
		j := compat.Judge(onHost(v3), compat.Policy{})
		j.Code([]*facts.Process{program(running(facts.Thread{Needs: names("avx512f"), Certain: names("avx512f")}))})
		for _, th := range order {
			j.Thread(th)
		}
		if got := remedies(allOf(j)); strings.Contains(got, "force") || !strings.Contains(got, "component-missing=host avx512f") {
			t.Error(got)
		}
	}
}

// TestProofs: a conversion takes the proofs about registers from the memory, and does
// not judge code.
func TestProofs(t *testing.T) {
	for _, target := range []compat.Target{onHost(v3), to(xstate.FormatFXSave)} {
		j := compat.Judge(target, compat.Policy{Force: true})
		p := program(evex, running(facts.Thread{Syscall: "pause", Dead: xstate.AVX512, Needs: names("avx512f"), Certain: names("avx512f")}))
		j.Proofs([]*facts.Process{p})
		j.Taken(nil)
		s := xsave(use(xstate.Opmask, "k1"), use(xstate.AVX, "ymm3"))
		r := j.Thread(compat.Thread{PID: 7, TID: 7, State: s})
		if len(j.Tasks) != 0 || j.Verdict == compat.CodeUnfit {
			t.Errorf("code was judged: %v", j.Verdict)
		}
		if got := compat.LossNames(r.Dead); !slices.Equal(got, []string{"k1"}) || r.Blocked != "pause" {
			t.Errorf("dead: %v in %q", got, r.Blocked)
		}
		if want := target.Host == nil; slices.Contains(compat.LossNames(r.Lost), "ymm3") != want || slices.Contains(compat.LossNames(r.Lost), "k1") {
			t.Errorf("lost: %v", r.Lost)
		}
		if out := r.Apply(s); out.BV.Has(xstate.Opmask) || out.Data(xstate.Opmask) != nil {
			t.Errorf("opmask stays: %v", out.BV)
		}
	}
}

// TestThreadInCodeRedacted: the address is a register's value.
func TestThreadInCodeRedacted(t *testing.T) {
	for _, f := range with(fxsave(), v3, facts.Thread{IP: 0x2040, Object: libc, Needs: names("avx512vl")}) {
		if r := f.Redacted().Reason; f.Rule == compat.ThreadInCode && (strings.Contains(r, "0x") || !strings.Contains(r, "in libc.so.6, and")) {
			t.Error(r)
		}
	}
}
