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

// glibcPrograms are lazycall, linked in unlike ways: when it has been restored it calls
// IFUNCs of the libc and looks at the results. Some call functions that are not bound yet.
var glibcPrograms = []struct {
	kind   string
	buffer bool
	link   []string
}{
	{"lazy", true, []string{"-Wl,-z,lazy"}},
	{"now", false, []string{"-Wl,-z,now"}},
	{"static", false, []string{"-static"}},
}

// glibcMachines are those of the cross-section: AVX2 with the small buffer, more
// components than that, and none.
var glibcMachines = []string{"haswell", "max", "nehalem"}

// TestGlibcVM is described in the package's comment.
func TestGlibcVM(t *testing.T) {
	im := guest.Require(t)
	on := machines()
	if os.Getenv("FPU_VM_ALL") != "1" {
		on = slices.DeleteFunc(on, func(on *machine) bool { return !slices.Contains(glibcMachines, on.name) })
	}
	m := newMatrix(t, im, on)
	m.addSuites()

	begin := time.Now()
	m.dumpAll()
	m.planSuites()
	m.checkAll()
	m.restoreAll()
	t.Logf("%d restores in %d boots after %s; Linux %s, CRIU %s, %s", len(m.cells), m.boots, time.Since(begin).Round(time.Second), im.Linux, im.CRIU, im.QEMU)
	m.report("-glibc")
	for _, c := range m.cells {
		if err := c.met(m.roots); err != nil {
			t.Errorf("%v: %v\n%s", c, err, c.detail)
		}
	}

	// That predictions and events agree would also be so if nothing worked at all.
	died := outcome{dies: []string{"SIGILL"}}
	for _, suite := range glibcSuites {
		m.want(t, "haswell/"+suite+"-lazy", "max", "default", outcome{overrun: true})
		m.want(t, "max/"+suite+"-lazy", "haswell", "default", outcome{})
		for _, p := range glibcPrograms {
			m.want(t, "haswell/"+suite+"-"+p.kind, "nehalem", "default", outcome{refused: "xsave-record"})
			m.want(t, "haswell/"+suite+"-"+p.kind, "nehalem", "none", died)
			m.want(t, "haswell/"+suite+"-"+p.kind+".nehalem", "nehalem", "default", died)
			m.want(t, "nehalem/"+suite+"-"+p.kind, "max", "default", outcome{})
		}
	}
}

// addSuites puts the suites into the guests, with programs in each.
func (m *matrix) addSuites() {
	m.t.Helper()
	own := filepath.Join(m.dir, "programs")
	m.roots = []string{own}
	for _, suite := range glibcSuites {
		// It has the same path in the guests as below this directory.
		dir := guest.RequireSuite(m.t, suite, "libc6")
		root := "/" + filepath.Base(dir)
		m.files[root] = dir
		m.roots = append(m.roots, filepath.Dir(dir))
		if err := os.MkdirAll(filepath.Join(own, root), 0o755); err != nil {
			m.t.Fatal(err)
		}
		for _, p := range glibcPrograms {
			path := filepath.Join(root, p.kind)
			m.files[path] = filepath.Join(own, path)
			if err := testprog.LinkLazyCall(m.t.Context(), m.files[path], p.link...); err != nil {
				m.t.Fatal(err)
			}
			for _, on := range m.machines {
				prog := &program{kind: suite + "-" + p.kind, on: on, processes: 1, threads: 1, ticks: 16, buffer: p.buffer}
				prog.Program = testprog.Program{
					Name: on.name + "-" + p.kind, PID: 100000 + 100*len(m.programs),
					Root: root, Command: "chroot $ROOT /" + p.kind + " $STATUS /tmp/go",
				}
				m.programs = append(m.programs, prog)
			}
		}
	}
}

// planSuites restores everything everywhere; where there is no XSAVE also as converted,
// and so that CRIU does not refuse it.
func (m *matrix) planSuites() {
	m.t.Helper()
	for _, p := range m.programs {
		img := m.image(p.on.name + "/" + p.kind)
		for _, on := range m.machines {
			m.add(img, on.name, "default")
			if !slices.Contains(on.flags, "xsave") && slices.Contains(p.on.flags, "xsave") {
				m.add(img, on.name, "none")
				m.add(m.convert(img, on.name, "--host="+on.profile, "--force"), on.name, "default")
			}
		}
	}
}

// predictByCode is what fpuimg check says of a program whose code it has looked at. A
// buffer that is too small is a risk: it comes true if the program calls a function that
// is not bound yet.
func (c *cell) predictByCode(loses []string) outcome {
	var o outcome
	for _, f := range c.check(c.image).all() {
		switch {
		case f.Severity == "fatal" && slices.Contains([]string{"code-missing", "thread-in-code", "lazy-save"}, f.Rule):
			o.dies = append(o.dies, f.Features...)
		case f.Severity == "risky" && f.Rule == "lazy-save":
			o.overrun = c.buffer
		}
	}
	slices.Sort(o.dies)
	o.dies = slices.Compact(o.dies)
	var err error
	if o.lost, err = sorted(slices.Concat(loses, c.stripped)); err != nil {
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
