package vmtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// caps are the values of --cpu-cap that fpuimg predicts.
var caps = []string{"default", "none", "fpu", "ins", "cpu"}

// atOnce is how many guests run at a time; each keeps one CPU of the host busy.
const atOnce = 2

// image is a checkpoint of a program: as CRIU dumped it, or converted.
type image struct {
	name string // "haswell/auto", "haswell/auto.fxsave"
	dir  string // on the host
	*program
	dump *image // what it was converted from; itself if it was not

	ext      string                  // of an archive, which dir is then
	stripped []string                // components that conversions took from it
	tasks    []levelTask             // what a levelling changed
	putBack  bool                    // some of that again
	checks   map[string]*checkResult // by machine; for a CRIU besides the guest's see checkedFor
}

// cell is one restore of the matrix.
type cell struct {
	*image
	on   *machine
	criu *guest.CRIU // nil: the guest's own
	cap  string

	predicted, happened outcome
	detail              string // what the guest says, for whoever looks into a disagreement
}

// checkedFor names a machine with a CRIU, which is nil for the guest's own.
func checkedFor(on *machine, criu *guest.CRIU) string {
	if criu == nil {
		return on.name
	}
	return on.name + " by " + criu.Version
}

// check is what fpuimg says of the image, or the one that it was made from.
func (c *cell) check(img *image) *checkResult { return img.checks[checkedFor(c.on, c.criu)] }

func (c *cell) agrees() bool { return c.predicted.agrees(c.happened) }

func (c *cell) String() string {
	return fmt.Sprintf("%s on %s, --cpu-cap %s: predicted %q, happened %q", c.name, checkedFor(c.on, c.criu), c.cap, c.predicted, c.happened)
}

// matrix is one run of the test.
type matrix struct {
	t        *testing.T
	dir      string
	guest    *guest.Image
	bin      testprog.Binaries
	machines []*machine
	programs []*program
	images   map[string]*image
	cells    []*cell

	files   map[string]string // what the programs are in every guest, as in guest.Job
	options string            // for CRIU's dump
	roots   []string          // where fpuimg check finds the programs' files, on the host

	fpuimg, fpurestore command
	criu               *guest.CRIU   // of the cells that are added; nil: the guest's own
	criux              []*guest.CRIU // that the guests have beside their own

	mu            sync.Mutex
	boots         int
	first, second map[string]*guest.Result // of each machine's two boots
}

func newMatrix(t *testing.T, im *guest.Image, machines []*machine) *matrix {
	t.Helper()
	m := &matrix{
		t: t, dir: t.TempDir(), guest: im, machines: machines,
		images: map[string]*image{}, first: map[string]*guest.Result{}, second: map[string]*guest.Result{},
	}
	var err error
	if m.bin, err = testprog.Build(t.Context(), m.dir); err != nil {
		t.Fatal(err)
	}
	m.files = map[string]string{"/job/fpuhold": m.bin.FPUHold, "/job/lazycall": m.bin.LazyCall}
	m.fpuimg = buildCommand(t, m.dir, "fpuimg")
	return m
}

// TestMatrixVM is described in the package's comment.
func TestMatrixVM(t *testing.T) {
	im := guest.Require(t)
	m := newMatrix(t, im, machines())
	m.fpurestore = buildCommand(t, m.dir, "fpurestore")
	m.programs, m.options = programs(m.machines), "--cpu-cap=all"

	begin := time.Now()
	m.dumpAll()
	t.Logf("all dumped after %s", time.Since(begin).Round(time.Second))
	m.plan()
	m.checkAll()
	t.Logf("all checked after %s", time.Since(begin).Round(time.Second))
	m.restoreAll()
	t.Logf("%d restores in %d boots after %s; Linux %s, CRIU %s, %s", len(m.cells), m.boots, time.Since(begin).Round(time.Second), im.Linux, im.CRIU, im.QEMU)
	m.report("")

	t.Run("1-downgrade-to-fxsave", m.downgradeToFXSave)
	t.Run("2-upgrade-to-xsave", m.upgradeToXSave)
	t.Run("3-no-fpu-record", m.noFPURecord)
	t.Run("4-downgrade-to-host", m.downgradeToHost)
	t.Run("5-every-pair", m.everyPair)
	t.Run("6-live", m.liveRestore)
	t.Run("7-profile", m.profiles)
	t.Run("archives", m.archives)
}

// boot runs a job for each of the machines, two at a time, and hands the result to
// done, one at a time. A guest that does not come to its end fails the test.
func (m *matrix) boot(phase string, machines []*machine, job func(*machine) guest.Job, done func(*machine, *guest.Result)) {
	m.t.Helper()
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, on := range machines {
		slots <- struct{}{}
		j := job(on)
		j.CPU = on.cpu
		wg.Go(func() {
			defer func() { <-slots }()
			r, err := m.guest.Run(m.t.Context(), filepath.Join(m.dir, phase, on.name), j)
			m.mu.Lock()
			defer m.mu.Unlock()
			if err != nil {
				m.t.Error(err)
				return
			}
			m.boots++
			m.t.Logf("%s on %s: first step after %s, %d steps done after %s", phase, on.name,
				r.Boot.Round(time.Millisecond), len(r.Steps), r.Elapsed.Round(time.Millisecond))
			done(on, r)
		})
	}
	wg.Wait()
	if m.t.Failed() {
		m.t.FailNow()
	}
}

// dumpAll is phase one: on each machine, its description and its checkpoints.
func (m *matrix) dumpAll() {
	m.t.Helper()
	job := func(on *machine) guest.Job {
		j := guest.Job{Files: maps.Clone(m.files)}
		j.Files["/job/fpuimg"] = string(m.fpuimg)
		if m.fpurestore != "" {
			j.Files["/job/fpurestore"] = string(m.fpurestore)
		}
		j.Steps = append(j.Steps,
			guest.Step{Name: "profile", Script: "set -e\n./fpuimg profile -o $OUT/profile.json\n" +
				"mkdir $OUT/ours $OUT/criu\n./fpuimg profile --format=criu -o $OUT/ours/cpuinfo.img\n"},
			guest.Step{Name: "cpuinfo-dump", Script: "criu cpuinfo dump -D /job/step/profile/out/criu && cp -a /job/step/profile/out/criu/cpuinfo.img $OUT"},
			guest.Step{Name: "cpuinfo-check", Script: "criu cpuinfo check -D /job/step/profile/out/ours --cpu-cap=all"})
		for _, p := range m.programs {
			if p.on == on {
				j.Steps = append(j.Steps, guest.Step{Name: "start-" + p.kind, Script: p.Start()})
			}
		}
		for _, p := range m.programs {
			if p.on == on && p.kind == "live" {
				j.Steps = append(j.Steps, saveStep(p))
			}
			if p.on == on {
				j.Steps = append(j.Steps, guest.Step{Name: "dump-" + p.kind, Script: shell(p.criu) + p.Dump(m.options)})
			}
		}
		return j
	}
	m.boot("dump", m.machines, job, func(on *machine, r *guest.Result) {
		m.first[on.name] = r
		on.profile = filepath.Join(m.dir, on.name+".json")
		for _, s := range r.Steps {
			// Item 7 looks at what CRIU says of cpuinfo.img.
			if !s.OK() && !strings.HasPrefix(s.Name, "cpuinfo-") {
				m.t.Errorf("%s: step %s failed: %s", on.name, s.Name, explain(&s))
			}
		}
		if m.t.Failed() {
			return
		}
		data, err := os.ReadFile(filepath.Join(r.Step("profile").Dir, "profile.json"))
		if err != nil {
			m.t.Error(err)
			return
		}
		if err := os.WriteFile(on.profile, data, 0o644); err != nil {
			m.t.Error(err)
			return
		}
		var p profileDoc
		if err := json.Unmarshal(data, &p); err != nil {
			m.t.Error(err)
			return
		}
		on.vendor, on.flags = p.Vendor, p.Flags
		for _, p := range m.programs {
			if p.on != on {
				continue
			}
			img := &image{name: on.name + "/" + p.kind, dir: r.Step("dump-" + p.kind).Dir, program: p}
			img.dump = img
			m.images[img.name] = img
			if p.kind == "live" {
				m.addSaved(on, p, r)
			}
		}
	})
}

// shell is what a script begins with that has a CRIU, nil for the guest's own.
func shell(criu *guest.CRIU) string {
	if criu == nil {
		return ""
	}
	return criu.Shell()
}

func explain(s *guest.StepResult) string {
	return fmt.Sprintf("exit %d, timed out %v %s\nstdout: %s\nstderr: %s\nkernel: %s", s.Exit, s.TimedOut, s.Error, s.Stdout, s.Stderr, s.Kernel)
}

// machine returns the machine of a name, image that of a name.
func (m *matrix) machine(name string) *machine {
	i := slices.IndexFunc(m.machines, func(on *machine) bool { return on.name == name })
	return m.machines[i]
}

func (m *matrix) image(name string) *image {
	img, ok := m.images[name]
	if !ok {
		m.t.Fatalf("no image %s", name)
	}
	return img
}

// convert has fpuimg convert an image. The result is named after the suffix.
func (m *matrix) convert(from *image, suffix string, options ...string) *image {
	m.t.Helper()
	to := &image{name: from.name + "." + suffix, dir: filepath.Join(m.dir, "converted", strings.ReplaceAll(from.name, "/", "-")+"."+suffix), program: from.program, dump: from.dump}
	to.ext = from.ext
	to.dir += to.ext
	if err := os.MkdirAll(filepath.Dir(to.dir), 0o755); err != nil {
		m.t.Fatal(err)
	}
	args := append([]string{"convert", "--json", "-o", to.dir}, options...)
	out, _ := m.fpuimg.run(m.t, []int{exitOK}, append(args, from.dir)...)
	var doc convertDoc
	decode(m.t, out, &doc)
	if len(doc.Images) != 1 || doc.Images[0].Output == nil {
		m.t.Fatalf("fpuimg convert %q of %s wrote nothing: %s", options, from.name, out)
	}
	gone := slices.Clone(from.stripped)
	for _, th := range doc.Images[0].Threads {
		for _, a := range th.Actions {
			if a.Action == "strip" {
				gone = append(gone, a.Component)
			}
		}
	}
	var err error
	if to.stripped, err = sorted(gone); err != nil {
		m.t.Fatal(err)
	}
	m.images[to.name] = to
	return to
}

// add puts restores of an image into the matrix, each once.
func (m *matrix) add(img *image, on string, caps ...string) {
	for _, c := range caps {
		if !slices.ContainsFunc(m.cells, func(have *cell) bool {
			return have.image == img && have.on.name == on && have.cap == c && have.criu == m.criu
		}) {
			m.cells = append(m.cells, &cell{image: img, on: m.machine(on), criu: m.criu, cap: c})
		}
	}
}

func (m *matrix) cell(img, on, cap string) *cell {
	for _, c := range m.cells {
		if c.name == img && c.on.name == on && c.criu == m.criu && c.cap == cap {
			return c
		}
	}
	return nil
}

// Sources and hosts of the seven items.
var (
	xsaveSources = []string{"haswell", "max", "epyc"}
	xsaveHosts   = []string{"haswell", "max", "epyc", "epyc-milan"}
)

const fxsaveHost = "qemu64"

// downgraded is the programs whose checkpoints are converted for a machine without
// XSAVE.
func downgraded(source string) []string {
	kinds := []string{"sse", "auto", "threads", "tree", "plain", "tuned"}
	if source != "haswell" {
		kinds = append(kinds, "tuned-amd")
	}
	return kinds
}

// plan converts images and says what is restored where.
func (m *matrix) plan() {
	m.t.Helper()
	for _, source := range xsaveSources {
		for _, kind := range downgraded(source) {
			img := m.image(source + "/" + kind)
			m.add(img, fxsaveHost, "default")
			m.add(m.convert(img, "fxsave", "--to=fxsave", "--force"), fxsaveHost, "default")
			toHost := m.convert(img, fxsaveHost, "--host="+m.machine(fxsaveHost).profile, "--force")
			m.add(toHost, fxsaveHost, "default", "fpu")
			if kind == "auto" {
				m.add(toHost, fxsaveHost, caps...)
			}
		}
	}
	// Neither XSAVE nor a buffer for it.
	m.add(m.image("haswell/tuned"), "max", "default")
	for _, kind := range []string{"sse", "auto", "threads", "tree", "plain"} {
		img := m.image(fxsaveHost + "/" + kind)
		up := m.convert(img, "xsave", "--to=xsave")
		for _, host := range xsaveHosts {
			m.add(img, host, "default")
			m.add(up, host, "default")
			if kind == "auto" {
				m.add(up, host, caps...)
			}
		}
	}
	for _, source := range []string{"haswell", fxsaveHost} {
		none := m.convert(m.image(source+"/erased"), "none", "--to=none", "--force")
		none.stripped = nil // what the program has lost by that is what it waits for
		for _, img := range []*image{none, m.convert(none, "fxsave", "--to=fxsave"), m.convert(none, "xsave", "--to=xsave")} {
			m.add(img, source, "default")
			m.add(img, "max", "default")
		}
	}
	for _, kind := range []string{"sse", "threads"} {
		img := m.archive(m.image("haswell/" + kind))
		m.add(img, fxsaveHost, "default")
		m.add(m.convert(img, "fxsave", "--to=fxsave", "--force"), fxsaveHost, "default")
	}
	for _, kind := range []string{"auto", "pkru", "mpx"} {
		img := m.image("max/" + kind)
		for _, host := range []string{"haswell", "epyc-milan"} {
			m.add(img, host, caps...)
			m.add(m.convert(img, host, "--host="+m.machine(host).profile, "--force"), host, caps...)
		}
		m.add(img, "max", "default", "cpu")
	}
	for _, source := range m.machines {
		for _, on := range m.machines {
			m.add(m.image(source.name+"/auto"), on.name, caps...)
			m.add(m.image(source.name+"/plain"), on.name, "default")
			// Where by default CRIU refuses, and so that nothing else can be told.
			if !slices.Contains(on.flags, "xsave") && slices.Contains(source.flags, "xsave") {
				m.add(m.image(source.name+"/plain"), on.name, "none")
				m.add(m.image(source.name+"/blind"), on.name, "none")
			}
		}
	}
}

// checkAll has fpuimg check hold every image against every machine, in one run for each
// CRIU, and predicts every cell from that.
func (m *matrix) checkAll() {
	m.t.Helper()
	for _, img := range m.images {
		img.checks = map[string]*checkResult{}
	}
	done := map[*guest.CRIU]bool{}
	for _, c := range m.cells {
		if !done[c.criu] {
			done[c.criu] = true
			m.checkFor(c.criu)
		}
		c.predicted = c.predict()
	}
}

// checkFor is checkAll for one CRIU.
func (m *matrix) checkFor(criu *guest.CRIU) {
	m.t.Helper()
	version := m.guest.CRIU
	if criu != nil {
		version = criu.Version
	}
	args := []string{"check", "--json", "--criu=" + version}
	for _, on := range m.machines {
		args = append(args, "--host="+on.profile)
	}
	for _, root := range m.roots {
		args = append(args, "--root="+root)
	}
	byDir := map[string]*image{}
	for _, img := range m.images {
		byDir[img.dir] = img
		args = append(args, img.dir)
	}
	out, _ := m.fpuimg.run(m.t, []int{exitOK, exitRefused, exitDamaged}, args...)
	var doc checkDoc
	decode(m.t, out, &doc)
	if doc.Schema != "fpuimg.check/1" || len(doc.Images) != len(m.images) {
		m.t.Fatalf("a document of schema %s with %d images of %d", doc.Schema, len(doc.Images), len(m.images))
	}
	for _, di := range doc.Images {
		img := byDir[di.Path]
		if img == nil || len(di.Results) != len(m.machines) {
			m.t.Fatalf("%s: %d results for %d machines", di.Path, len(di.Results), len(m.machines))
		}
		for _, r := range di.Results {
			if r.Release != version {
				m.t.Fatalf("%s: a prediction of CRIU %s, want %s", di.Path, r.Release, version)
			}
			img.checks[checkedFor(m.machines[r.Host], criu)] = &r
		}
	}
}

// predict is what fpuimg check says of a restore. What a program misses is taken
// from the check of the checkpoint as it was dumped: a conversion erases from it
// what the source had, and says so.
func (c *cell) predict() outcome {
	p := c.check(c.image).CRIU[c.cap]
	switch p.Outcome {
	case "refuses":
		return outcome{refused: *p.Class}
	case "restores", "restores-losing":
	default:
		return outcome{refused: "no prediction: " + p.Outcome}
	}
	if c.memory {
		return c.predictByMemory(p.Loses)
	}
	var o outcome
	dumped := c.check(c.dump)
	if c.needs != nil {
		o.dies = slices.DeleteFunc(c.needs(c.program.on), func(name string) bool { return !dumped.warned(name) })
	}
	// The first function that is called would use XSAVE, the others what is missing.
	if c.buffer && dumped.risks("lazy-save") && !slices.Contains(o.dies, "xsave") {
		o.dies, o.overrun = nil, true
	}
	var err error
	if o.lost, err = sorted(slices.Concat(p.Loses, c.stripped)); err != nil {
		return outcome{refused: "no prediction: " + err.Error()}
	}
	return o
}

// maxBatch bounds how many programs live in a guest at a time.
const maxBatch = 12

// batches arranges a machine's restores in groups that go on at a time: the
// waiting is then done once for all of them. Restores of one program exclude each
// other, as they are of the same processes; those of a group are by the same CRIU.
func (m *matrix) batches(on *machine) [][]*cell {
	var out [][]*cell
next:
	for _, c := range m.cells {
		if c.on != on {
			continue
		}
		for i, b := range out {
			if len(b) < maxBatch && b[0].criu == c.criu && !slices.ContainsFunc(b, func(d *cell) bool { return d.program == c.program }) {
				out[i] = append(b, c)
				continue next
			}
		}
		out = append(out, []*cell{c})
	}
	for _, b := range out {
		// Those that do much last: they slow the restores behind them down.
		slices.SortStableFunc(b, func(c, d *cell) int { return c.ticks - d.ticks })
	}
	return out
}

// restoreAll is phase two: every cell.
func (m *matrix) restoreAll() {
	m.t.Helper()
	job := func(on *machine) guest.Job {
		j := guest.Job{Timeout: 20 * time.Minute, Files: maps.Clone(m.files)}
		// lazycall finds its sign to go on at once. The kernel is to log every
		// process that it ends.
		j.Steps = []guest.Step{{Name: "setup", Script: "for root in / /suite-*; do [ ! -d $root/tmp ] || touch $root/tmp/go; done; echo 0 >/proc/sys/kernel/printk_ratelimit"}}
		for n, batch := range m.batches(on) {
			var restore, await, stop strings.Builder
			restore.WriteString(shell(batch[0].criu))
			for i, c := range batch {
				images := c.inGuest(&j)
				// Of the log, errors and warnings: more takes longer to write than to
				// restore.
				option := "-v2"
				if c.cap != "default" {
					option += " --cpu-cap=" + c.cap
				}
				fmt.Fprintf(&restore, "restore %s $OUT/%d.log %s 2>$OUT/%[2]d.err\necho $? >$OUT/%[2]d.restored\n", images, i, option)
				fmt.Fprintf(&await, "%s[ $(cat $OUT/%d.restored) != 0 ] || await %d $FILE %d >$OUT/%[2]d.status 2>>$OUT/%[2]d.err\necho $? >$OUT/%[2]d.awaited\n", c.Variables(), i, c.ticks, c.PID)
				fmt.Fprintf(&stop, "stop %d\n", c.PID)
			}
			j.Steps = append(j.Steps, guest.Step{Name: batchName(n), Script: testprog.Lib + restore.String() + await.String() + stop.String(), Timeout: 5 * time.Minute})
		}
		m.live(on, &j)
		return j
	}
	m.boot("restore", m.machines, job, func(on *machine, r *guest.Result) {
		m.second[on.name] = r
		for n, batch := range m.batches(on) {
			s := r.Step(batchName(n))
			if !s.OK() {
				m.t.Errorf("%s: %s failed: %s", on.name, s.Name, explain(s))
				continue
			}
			for i, c := range batch {
				if err := c.read(s, filepath.Join(s.Dir, strconv.Itoa(i))); err != nil {
					m.t.Errorf("%s on %s, --cpu-cap %s: %v", c.name, on.name, c.cap, err)
				}
			}
		}
	})
}

func batchName(n int) string { return fmt.Sprintf("batch-%d", n) }

// read takes from a step's results what happened to one of its restores; its files
// begin with prefix.
func (c *cell) read(s *guest.StepResult, prefix string) error {
	text := map[string]string{}
	for _, name := range []string{"restored", "awaited", "err", "status"} {
		data, err := os.ReadFile(prefix + "." + name)
		if err != nil && !(os.IsNotExist(err) && name == "status") {
			return err
		}
		text[name] = strings.TrimSpace(string(data))
	}
	c.detail = fmt.Sprintf("stderr: %s\nstatus: %s\nkernel: %s", text["err"], text["status"], s.Kernel)
	if text["restored"] != "0" {
		c.happened = outcome{refused: refusal(text["err"])}
		// CRIU lets go of one thread after the other, and an early one can end them all.
		if strings.Contains(text["err"], "Unable to detach") {
			c.happened = outcome{dies: []string{fatalSignal(s.Kernel, hundred(c.PID))}}
		}
		return nil
	}
	ticks, err := testprog.ParseStatus(text["status"])
	if err != nil {
		return err
	}
	c.happened.overrun = overran(ticks)
	if c.happened.lost, err = lostComponents(ticks); err != nil {
		return err
	}
	if text["awaited"] != "0" {
		c.happened.dies = []string{fatalSignal(s.Kernel, hundred(c.PID))}
		return nil
	}
	if len(ticks) != c.processes {
		return fmt.Errorf("%d processes report, want %d: %v", len(ticks), c.processes, ticks)
	}
	for _, tick := range ticks {
		if tick.Total != c.threads {
			return fmt.Errorf("%q, want %d threads", tick, c.threads)
		}
	}
	return nil
}

// compare fails the test for each disagreement, and returns the table.
func (m *matrix) compare() []row {
	m.t.Helper()
	var rows []row
	for _, c := range m.cells {
		if !c.agrees() {
			m.t.Errorf("disagreement: %v\n%s", c, c.detail)
		}
		if err := c.contradiction(); err != nil {
			m.t.Errorf("disagreement: %v: %v\n%s", c, err, c.detail)
		}
		rows = append(rows, row{c.name, checkedFor(c.on, c.criu), c.cap, c.predicted.String(), c.happened.String(), c.agrees() && c.contradiction() == nil})
	}
	m.t.Logf("the verdict table:\n%s", folded(rows))
	return rows
}

// report compares, and writes the table. The suffix is that of its name.
func (m *matrix) report(suffix string) {
	m.t.Helper()
	rows := m.compare()
	path := os.Getenv("FPU_VM_TABLE")
	if path == "" {
		path = filepath.Join("..", "out", "vm-matrix.tsv")
	}
	path = strings.TrimSuffix(path, ".tsv") + suffix + ".tsv"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, tsv(rows), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(strings.TrimSuffix(path, ".tsv")+".txt", folded(rows), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// contradiction says how the verdict, on which the exit status of check depends,
// does not fit what happened by default.
func (c *cell) contradiction() error {
	r := c.check(c.image)
	restored := c.happened.refused == ""
	survived := restored && len(c.happened.dies) == 0 && !c.happened.overrun
	intact := survived && slices.Equal(c.happened.lost, c.stripped)
	switch {
	case c.cap != "default":
	case c.happened.refused == "unparseable": // for its memory, of which the verdict does not speak
	case r.Verdict == "compatible" && !restored && !r.has("no-fpu-record"):
		return fmt.Errorf("the verdict is %s", r.Verdict)
	case r.Verdict == "compatible" && survived && !intact:
		return fmt.Errorf("the verdict is %s", r.Verdict)
	case r.Verdict != "compatible" && intact:
		return fmt.Errorf("the verdict is %s", r.Verdict)
	}
	return nil
}
