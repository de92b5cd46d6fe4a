package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// glibcSuites are suites of Debian whose libc the programs run with.
var glibcSuites = []string{"bookworm", "trixie"}

// suitePrograms run in each suite: lazycall, linked in unlike ways, and Debian's python3.
// When they have been restored they call IFUNCs of the libc and look at the results. Some
// call functions that are not bound yet. A guest without RDRAND has no random numbers
// for python3 so early.
var suitePrograms = []struct {
	kind, command string
	ticks         int
	buffer        bool
	link          []string
	all           bool // not in the cross-section
}{
	{"lazy", "chroot $ROOT /lazy $STATUS /tmp/go", 16, true, []string{"-Wl,-z,lazy"}, false},
	{"now", "chroot $ROOT /now $STATUS /tmp/go", 16, false, []string{"-Wl,-z,now"}, false},
	{"static", "chroot $ROOT /static $STATUS /tmp/go", 16, false, []string{"-static"}, false},
	{"static-pie", "chroot $ROOT /static-pie $STATUS /tmp/go", 16, false, []string{"-static-pie"}, true},
	{"python", "env PYTHONHASHSEED=0 chroot $ROOT /usr/bin/python3 -SB /ticker.py $STATUS /tmp/go", 4, true, nil, false},
}

// memoryMachines are those of the cross-section: AVX2 with the small buffer, more
// components than that, and none.
var memoryMachines = []string{"haswell", "max", "nehalem"}

// everything is whether to leave the cross-section for all.
func everything() bool { return os.Getenv("FPU_VM_ALL") == "1" }

// TestMemoryVM is described in the package's comment.
func TestMemoryVM(t *testing.T) {
	im := guest.Require(t)
	on := machines()
	if !everything() {
		on = slices.DeleteFunc(on, func(on *machine) bool { return !slices.Contains(memoryMachines, on.name) })
	}
	m := newMatrix(t, im, on)
	m.addSuites()
	// It is in a signal handler when it is dumped.
	m.addProgram("frame", testprog.Program{Name: "haswell-frame", Command: "/job/fpuhold -s /tmp/go auto $STATUS"}, m.machine("haswell"), 4, false)

	begin := time.Now()
	m.dumpAll()
	m.planMemory()
	m.checkAll()
	m.restoreAll()
	t.Logf("%d restores in %d boots after %s; Linux %s, CRIU %s, %s", len(m.cells), m.boots, time.Since(begin).Round(time.Second), im.Linux, im.CRIU, im.QEMU)
	m.report("-memory")
	for _, c := range m.cells {
		if err := c.met(m.roots); err != nil {
			t.Errorf("%v: %v\n%s", c, err, c.detail)
		}
	}

	// That predictions and events agree would also be so if nothing worked at all.
	died := outcome{dies: []string{"SIGILL"}}
	for _, suite := range glibcSuites {
		m.want(t, "haswell/"+suite+"-lazy", "max", "default", outcome{overrun: true})
		m.want(t, "haswell/"+suite+"-lazy.level-max", "max", "default", outcome{})
		m.want(t, "max/"+suite+"-lazy", "haswell", "default", outcome{})
		for _, p := range suitePrograms {
			if p.all && !everything() {
				continue
			}
			m.want(t, "haswell/"+suite+"-"+p.kind, "nehalem", "default", outcome{refused: "xsave-record"})
			m.want(t, "haswell/"+suite+"-"+p.kind, "nehalem", "none", died)
			m.want(t, "haswell/"+suite+"-"+p.kind+".level-nehalem", "nehalem", "default", outcome{})
			m.want(t, "nehalem/"+suite+"-"+p.kind, "max", "default", outcome{})
		}
	}
	m.want(t, "haswell/frame", "nehalem", "none", outcome{lost: []string{"AVX"}})
	m.want(t, "haswell/frame", "max", "default", outcome{})
}

// addSuites puts the suites into the guests, with programs in each.
func (m *matrix) addSuites() {
	m.t.Helper()
	own := filepath.Join(m.dir, "programs")
	m.roots = []string{own}
	for _, suite := range glibcSuites {
		// It has the same path in the guests as below this directory.
		dir := guest.RequireSuite(m.t, suite, "python3-minimal")
		root := "/" + filepath.Base(dir)
		m.files[root] = dir
		m.roots = append(m.roots, filepath.Dir(dir))
		if err := os.MkdirAll(filepath.Join(own, root), 0o755); err != nil {
			m.t.Fatal(err)
		}
		m.files[filepath.Join(root, "ticker.py")] = filepath.Join("testprog", "src", "ticker.py")
		for _, p := range suitePrograms {
			if p.all && !everything() {
				continue
			}
			if p.link != nil {
				path := filepath.Join(root, p.kind)
				m.files[path] = filepath.Join(own, path)
				if err := testprog.LinkLazyCall(m.t.Context(), m.files[path], p.link...); err != nil {
					m.t.Fatal(err)
				}
			}
			for _, on := range m.machines {
				m.addProgram(suite+"-"+p.kind, testprog.Program{Name: on.name + "-" + p.kind, Root: root, Command: p.command}, on, p.ticks, p.buffer)
			}
		}
	}
}

// addProgram has a program dumped on a machine, of which check is to foretell all.
func (m *matrix) addProgram(kind string, p testprog.Program, on *machine, ticks int, buffer bool) {
	p.PID = 100000 + 100*len(m.programs)
	m.programs = append(m.programs, &program{Program: p, kind: kind, on: on, processes: 1, threads: 1, ticks: ticks, buffer: buffer, memory: true})
}

// planMemory restores everything everywhere; where there is no XSAVE also so that CRIU does
// not refuse it. What does not fit is restored levelled, too: all of it in the end, in the
// cross-section from one machine.
func (m *matrix) planMemory() {
	m.t.Helper()
	for _, p := range m.programs {
		img := m.image(p.on.name + "/" + p.kind)
		for _, on := range m.machines {
			m.add(img, on.name, "default")
			if !slices.Contains(on.flags, "xsave") && slices.Contains(p.on.flags, "xsave") {
				m.add(img, on.name, "none")
			}
			if p.Root != "" && p.on != on && (p.on.name == "haswell" || everything()) {
				if levelled := m.level(img, on); levelled != nil {
					m.add(levelled, on.name, "default")
				}
			}
		}
	}
}

// level has fpuimg level an image for a machine. It returns nil if there is nothing to do.
func (m *matrix) level(from *image, on *machine) *image {
	m.t.Helper()
	to := *from
	to.name = from.name + ".level-" + on.name
	to.dir = filepath.Join(m.dir, "levelled", strings.ReplaceAll(to.name, "/", "-"))
	if err := os.MkdirAll(filepath.Dir(to.dir), 0o755); err != nil {
		m.t.Fatal(err)
	}
	args := []string{"level", "--json", "--host=" + on.profile, "-o", to.dir}
	for _, root := range m.roots {
		args = append(args, "--root="+root)
	}
	out, _ := m.fpuimg.run(m.t, []int{exitOK}, append(args, from.dir)...)
	var doc convertDoc
	decode(m.t, out, &doc)
	if len(doc.Images) != 1 || doc.Images[0].Output == nil {
		return nil
	}
	m.images[to.name] = &to
	return &to
}

// predictByMemory is what fpuimg check says of a program whose memory it has looked at. A
// buffer that is too small is a risk: it comes true if the program calls a function that
// is not bound yet.
func (c *cell) predictByMemory(loses []string) outcome {
	var o outcome
	loses = slices.Concat(loses, c.stripped)
	for _, f := range c.check(c.image).all() {
		switch {
		case f.Severity == "fatal" && slices.Contains([]string{"code-missing", "thread-in-code", "lazy-save"}, f.Rule):
			o.dies = append(o.dies, f.Features...)
		case f.Severity == "risky" && f.Rule == "lazy-save":
			if o.overrun = c.buffer; strings.HasSuffix(c.kind, "-python") { // it has no pattern there
				o.overrun, o.dies = false, append(o.dies, "SIGSEGV")
			}
		case f.Rule == "frame-unfit" && strings.Contains(f.Message, "SIGSEGV"):
			o.dies = append(o.dies, "SIGSEGV")
		case f.Rule == "frame-unfit":
			loses = append(loses, f.Components...)
		}
	}
	slices.Sort(o.dies)
	o.dies = slices.Compact(o.dies)
	var err error
	if o.lost, err = sorted(loses); err != nil {
		return outcome{refused: "no prediction: " + err.Error()}
	}
	return o
}

// invalidOpcode is the kernel's line about a process that ends so:
// "traps: lazy[100400] trap invalid opcode ip:7f12 sp:7ffc error:0 in libc.so.6[7f00+195000]".
var invalidOpcode = regexp.MustCompile(`\[(\d+)\] trap invalid opcode ip:([0-9a-f]+)`)

// met decodes the instruction at which the process died of SIGILL, if it did, by its
// checkpoint and the programs' files below the roots. The error is that it needs nothing
// of what was predicted to be missing.
func (c *cell) met(roots []string) error {
	if !slices.Equal(c.happened.dies, []string{"SIGILL"}) {
		return nil
	}
	var ip uint64
	for _, line := range invalidOpcode.FindAllStringSubmatch(c.detail, -1) {
		if line[1] == strconv.Itoa(c.PID) {
			ip, _ = strconv.ParseUint(line[2], 16, 64)
		}
	}
	mem, err := memory.Open(codec.Dir(c.dump.dir), uint32(c.PID))
	if err != nil {
		return err
	}
	v, ok := mem.VMA(ip)
	if !ok || v.Path() == "" {
		return fmt.Errorf("it died at %#x, where no file is mapped", ip)
	}
	var code [15]byte
	for _, root := range roots {
		f, err := os.Open(filepath.Join(root, v.Path()))
		if err != nil {
			continue
		}
		defer f.Close()
		if _, err := f.ReadAt(code[:], int64(v.Offset+ip-v.Start)); err != nil {
			return err
		}
	}
	inst, ok := isa.Decode(code[:])
	var needs []string
	for f := range inst.Faults().All() {
		needs = append(needs, f.String())
	}
	if !ok || !slices.ContainsFunc(needs, func(f string) bool { return slices.Contains(c.predicted.dies, f) }) {
		return fmt.Errorf("the instruction % x at %#x of %s needs %s", code, ip-v.Start+v.Offset, v.Path(), strings.Join(needs, " "))
	}
	return nil
}
