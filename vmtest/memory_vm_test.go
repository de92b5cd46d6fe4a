package vmtest

import (
	"errors"
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
	"github.com/fpuimg/fpuimg/convert/level"
	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// glibcSuites are suites of Debian whose libc the programs run with: 2.31, 2.36 and 2.41.
var glibcSuites = []string{"bullseye", "bookworm", "trixie"}

// suiteProgram runs in suites. When it has been restored it calls IFUNCs of the libc and
// looks at the results. Some call functions that are not bound yet.
type suiteProgram struct {
	kind, command      string
	ticks              int
	processes, threads int
	buffer             bool
	link               []string // gcc's options, of what is lazycall under this name
	pkg                string   // of Debian's that has it
	probe, accept      string   // the latter of level
	suites, more       []string // in the cross-section, and of all if that differs
	anywhere           string   // the suite of which it runs as it is
	downOnly           bool     // dumped on one machine, for those without XSAVE
}

// suitePrograms are lazycall, linked in unlike ways, and programs of Debian's. A guest
// without RDRAND has no random numbers for python3 so early. The libraries of glibc 2.31
// are bound lazily in any program, it chooses in a static PIE before it knows the CPU, which
// runs anywhere, and it has none of what today's libgcc asks it for, to unwind. OpenSSL 3.5
// in nginx of trixie keeps functions with AES-NI for its random numbers: level refuses that
// by name.
var suitePrograms = []suiteProgram{
	{kind: "lazy", command: "/lazy $STATUS /tmp/go 1 keep", ticks: 16, buffer: true, link: []string{"-Wl,-z,lazy"}, suites: glibcSuites},
	{kind: "lazy-6", command: "/lazy-6 $STATUS /tmp/go 6 keep", threads: 6, ticks: 16, buffer: true, link: []string{"-Wl,-z,lazy"}, suites: glibcSuites, downOnly: true},
	{kind: "now", command: "/now $STATUS /tmp/go 1 keep", ticks: 16, link: []string{"-Wl,-z,now"}, suites: glibcSuites[1:]},
	{kind: "now-6", command: "/now-6 $STATUS /tmp/go 6 keep", threads: 6, ticks: 16, link: []string{"-Wl,-z,now"}, suites: glibcSuites[:1], more: glibcSuites, downOnly: true},
	{kind: "static", command: "/static $STATUS /tmp/go 1 more", ticks: 16, link: []string{"-static", unwind}, suites: glibcSuites},
	{kind: "static-6", command: "/static-6 $STATUS /tmp/go 6 more", threads: 6, ticks: 16, link: []string{"-static", unwind}, suites: glibcSuites[1:2], more: glibcSuites, downOnly: true},
	{kind: "static-pie", command: "/static-pie $STATUS /tmp/go 1 keep", ticks: 16, link: []string{"-static-pie", unwind}, suites: glibcSuites[:2], more: glibcSuites, anywhere: "bullseye", downOnly: true},
	{kind: "static-pie-6", command: "/static-pie-6 $STATUS /tmp/go 6 keep", threads: 6, ticks: 16, link: []string{"-static-pie", unwind}, more: glibcSuites, anywhere: "bullseye", downOnly: true},
	{kind: "python", command: "/usr/bin/python3 -SB /ticker.py $STATUS /tmp/go", ticks: 4, buffer: true, pkg: "python3-minimal", suites: glibcSuites[1:], more: glibcSuites},
	{kind: "python-hash", command: "/usr/bin/python3 -SB /ticker.py $STATUS /tmp/go hash", ticks: 4, buffer: true, pkg: "python3-minimal", suites: glibcSuites[1:], more: glibcSuites, downOnly: true},
	{kind: "perl", command: "/usr/bin/perl /ticker.pl $STATUS /tmp/go", ticks: 4, pkg: "perl-base", suites: glibcSuites[1:2], more: glibcSuites, downOnly: true},
	{kind: "bash", command: "/usr/bin/bash /ticker.sh $STATUS /tmp/go", ticks: 4, pkg: "bash", suites: glibcSuites[1:2], more: glibcSuites[1:], downOnly: true},
	{kind: "redis", command: "/usr/bin/redis-server --bind 127.0.0.1 --save '' --dir /tmp --crash-log-enabled no", ticks: 2, pkg: "redis-server",
		probe: redisProbe, accept: "own-dispatch", suites: glibcSuites[1:2], downOnly: true},
	{kind: "nginx", command: "/usr/sbin/nginx -e stderr -c /nginx.conf", processes: 2, ticks: 2, pkg: "nginx",
		probe: nginxProbe, suites: glibcSuites[1:2], downOnly: true},
}

const unwind = "-Wl,--defsym=_dl_find_object=0"

// The probes ask for more when the program has been restored.
const (
	redisProbe = `{ printf 'SET f 1.5\r\nINCRBYFLOAT f 1.25\r\n'; [ ! -e /tmp/go ] || printf 'EVAL "return redis.sha1hex(string.rep([[a]], 999))" 0\r\nPFCOUNT none\r\n'; printf 'QUIT\r\n'; } |
		nc -w 20 127.0.0.1 6379 | tr -d '\r' | tr '\n' ' ' | grep -Eqx '\+OK \$4 2.75 (\$40 d8e4b5c1594d2e9c1c4154eb8ea5715cfe9dd055 :0 )?\+OK '`
	nginxProbe = `get() { printf 'GET /ticker.py HTTP/1.0\r\n%b\r\n' "$1" | nc -w 20 127.0.0.1 8098 | sed '1,/^\r$/d'; }
		get '' | cmp -s - $ROOT/ticker.py && { [ ! -e /tmp/go ] || get 'Accept-Encoding: gzip\r\n' | gunzip | cmp -s - $ROOT/ticker.py; }`
)

// sources are the files of the programs in each suite's root, on the host.
var sources = map[string]string{
	"ticker.py": "testprog/src/ticker.py", "ticker.pl": "testprog/src/ticker.pl", "ticker.sh": "testprog/src/ticker.sh",
	"nginx.conf": "testprog/src/nginx.conf", "etc/passwd": "/etc/passwd", "etc/group": "/etc/group",
}

// in are the suites that the program runs in.
func (p *suiteProgram) in() []string {
	if everything() && p.more != nil {
		return p.more
	}
	return p.suites
}

// memoryMachines are those of the cross-section: AVX2 with the small buffer, more
// components than that, and none.
var memoryMachines = []string{"haswell", "max", "nehalem"}

// lesser are machines without AVX that all of haswell's is levelled for.
var lesser = []string{"nehalem", "qemu64"}

// everything is whether to leave the cross-section for all.
func everything() bool { return os.Getenv("FPU_VM_ALL") == "1" }

// ablations are what is put back as it was dumped after a levelling: without that part it
// dies.
var ablations = []struct{ kind, what string }{
	{"lazy", "copy"}, {"lazy", "cpu-features"}, {"lazy", "trampoline"}, {"python-hash", "openssl"},
}

// TestMemoryVM is described in the package's comment.
func TestMemoryVM(t *testing.T) {
	im := guest.Require(t)
	on := machines()
	if !everything() {
		on = slices.DeleteFunc(on, func(on *machine) bool {
			on.target = !slices.Contains(memoryMachines, on.name)
			return on.target && !slices.Contains(lesser, on.name)
		})
	}
	m := newMatrix(t, im, on)
	m.addSuites()
	// It is in a signal handler when it is dumped.
	m.addProgram("haswell", &program{
		Program: testprog.Program{Command: "/job/fpuhold -s /tmp/go auto $STATUS"}, kind: "frame", processes: 1, threads: 1, ticks: 4,
	})

	begin := time.Now()
	m.dumpAll()
	t.Logf("all dumped after %s", time.Since(begin).Round(time.Second))
	m.planMemory()
	m.checkAll()
	t.Logf("all checked after %s", time.Since(begin).Round(time.Second))
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
	}
	for _, p := range suitePrograms {
		for _, suite := range p.in() {
			img := "haswell/" + suite + "-" + p.kind
			unlevelled := died
			if suite == p.anywhere {
				unlevelled = outcome{}
			}
			for _, on := range lesser {
				m.want(t, img, on, "none", unlevelled)
				m.want(t, img+".level-"+on, on, "default", outcome{})
			}
			if !p.downOnly {
				m.want(t, img, "nehalem", "default", outcome{refused: "xsave-record"})
				m.want(t, "nehalem/"+suite+"-"+p.kind, "max", "default", outcome{})
			}
			for _, a := range ablations {
				if a.kind == p.kind {
					m.want(t, img+".level-nehalem.without-"+a.what, "nehalem", "default", died)
				}
			}
		}
	}
	m.want(t, "haswell/frame", "nehalem", "none", outcome{lost: []string{"AVX"}})
	m.want(t, "haswell/frame", "max", "default", outcome{})
}

// addSuites puts the suites into the guests, with programs in each.
func (m *matrix) addSuites() {
	m.t.Helper()
	for _, suite := range glibcSuites {
		here := slices.DeleteFunc(slices.Clone(suitePrograms), func(p suiteProgram) bool { return !slices.Contains(p.in(), suite) })
		packages := []string{"libc6"}
		for _, p := range here {
			if p.pkg != "" && !slices.Contains(packages, p.pkg) {
				packages = append(packages, p.pkg)
			}
		}
		root := m.addSuite(suite, packages...)
		for name, host := range sources {
			m.files[filepath.Join(root, name)] = host
		}
		for _, p := range here {
			if p.link != nil {
				m.addLazyCall(suite, filepath.Join(root, p.kind), p.link...)
			}
			for _, on := range m.machines {
				if on.target || p.downOnly && on.name != "haswell" {
					continue
				}
				m.addProgram(on.name, &program{
					Program: testprog.Program{Root: root, Command: "env PYTHONHASHSEED=0 chroot $ROOT " + p.command, Probe: p.probe},
					kind:    suite + "-" + p.kind, processes: max(p.processes, 1), threads: max(p.threads, 1), ticks: p.ticks, buffer: p.buffer, downOnly: p.downOnly, accept: p.accept,
				})
			}
		}
	}
}

// addSuite puts packages of a suite into the guests, and returns their root there.
func (m *matrix) addSuite(suite string, packages ...string) (root string) {
	m.t.Helper()
	// It has the same path in the guests as below this directory.
	dir := guest.RequireSuite(m.t, suite, packages...)
	root = "/" + filepath.Base(dir)
	m.files[root] = dir
	m.roots = append(m.roots, filepath.Dir(dir))
	return root
}

// addLazyCall puts lazycall into the guests at a path, linked with the libc of a suite.
func (m *matrix) addLazyCall(suite, path string, link ...string) {
	m.t.Helper()
	own := filepath.Join(m.dir, "programs")
	if !slices.Contains(m.roots, own) {
		m.roots = append(m.roots, own)
	}
	m.files[path] = filepath.Join(own, path)
	err := os.MkdirAll(filepath.Dir(m.files[path]), 0o755)
	if err == nil {
		err = testprog.LinkLazyCall(m.t.Context(), m.files[path], guest.RequireSuite(m.t, suite, "libc6-dev"), link...)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// addProgram has a program dumped on a machine, of which check is to foretell all.
func (m *matrix) addProgram(on string, p *program) {
	p.on, p.memory = m.machine(on), true
	p.Name, p.PID = on+"-"+p.kind, 100000+100*len(m.programs)
	m.programs = append(m.programs, p)
}

// planMemory restores everything everywhere; where there is no XSAVE also so that CRIU does
// not refuse it. What does not fit is restored levelled, too: all of it in the end, in the
// cross-section from one machine. What is only to go down is restored nowhere else.
func (m *matrix) planMemory() {
	m.t.Helper()
	for _, p := range m.programs {
		img := m.image(p.on.name + "/" + p.kind)
		for _, on := range m.machines {
			down := !slices.Contains(on.flags, "xsave") && slices.Contains(p.on.flags, "xsave")
			if p.downOnly && !down || on.target && p.on.name != "haswell" && !everything() {
				continue
			}
			if down {
				m.add(img, on.name, "none")
			}
			if !down || !p.downOnly && (!on.target || everything()) {
				m.add(img, on.name, "default")
			}
			if p.Root == "" || p.on == on || p.on.name != "haswell" && !everything() {
				continue
			}
			to := m.level(img, on)
			if to == nil {
				continue
			}
			m.add(to, on.name, "default")
			for _, a := range ablations {
				if strings.HasSuffix(p.kind, "-"+a.kind) && img.name == "haswell/"+p.kind && on.name == "nehalem" {
					m.add(m.putBack(img, to, a.what), on.name, "default")
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
	if from.accept != "" {
		args = append(args, "--accept="+from.accept)
	}
	for _, root := range m.roots {
		args = append(args, "--root="+root)
	}
	out, talk := m.fpuimg.run(m.t, []int{exitOK, exitRefused}, append(args, from.dir)...)
	var doc levelDoc
	decode(m.t, out, &doc)
	if len(doc.Images) != 1 || len(doc.Images[0].Refusals) > 0 {
		m.t.Errorf("%s:\n%s", to.name, talk)
		return nil
	}
	if doc.Images[0].Output == nil {
		return nil
	}
	to.tasks = doc.Images[0].Tasks
	m.images[to.name] = &to
	return &to
}

// putBack copies a levelled image, with the words of one kind as they were dumped.
func (m *matrix) putBack(from, levelled *image, what string) *image {
	m.t.Helper()
	to := *levelled
	to.name = levelled.name + ".without-" + what
	to.dir = filepath.Join(m.dir, "levelled", strings.ReplaceAll(to.name, "/", "-"))
	to.putBack = true
	putBack(m.t, from.dir, levelled.dir, to.dir, levelled.tasks, what, "")
	m.images[to.name] = &to
	return &to
}

// putBack copies what was levelled, with the words of one kind as they were dumped: of all
// objects, or of that of a name.
func putBack(t *testing.T, from, levelled, to string, tasks []levelTask, what, object string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(levelled)); err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		mem, err := memory.NewImages(codec.Dir(from)).Open(task.PID)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, w := range task.Words {
			if w.What != what || object != "" && filepath.Base(w.Object) != object {
				continue
			}
			n++
			b := make([]byte, w.Size)
			addr, err := strconv.ParseUint(w.Address, 0, 64)
			if err == nil {
				_, err = mem.ReadAt(b, addr)
			}
			at, ok := mem.Locate(addr)
			if err != nil || !ok || level.Bytes(b) != w.From {
				t.Fatalf("%s: the word at %s was % x, %v, not %s", from, w.Address, b, err, w.From)
			}
			f, err := os.OpenFile(filepath.Join(to, at.File), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(b, at.Offset)
			}
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if n == 0 {
			t.Errorf("%s: no word of process %d is of the kind %s", levelled, task.PID, what)
		}
	}
}

// predictByMemory is what fpuimg check says of a program whose memory it has looked at;
// with words put back, of it as it was dumped: check does not look for copies. A
// buffer that is too small is a risk: it comes true if the program calls a function that
// is not bound yet.
func (c *cell) predictByMemory(loses []string) outcome {
	var o outcome
	loses = slices.Concat(loses, c.stripped)
	from := c.image
	if c.putBack {
		from = c.dump
	}
	for _, f := range c.check(from).all() {
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
		if pid, err := strconv.Atoi(line[1]); err == nil && pid >= c.PID && pid < c.PID+100 {
			ip, _ = strconv.ParseUint(line[2], 16, 64)
		}
	}
	mem, err := memory.NewImages(codec.Dir(c.dump.dir)).Open(uint32(c.PID))
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
