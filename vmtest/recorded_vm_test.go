package vmtest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
	"github.com/fpuimg/fpuimg/vmtest/guest"
)

// recordedOn are the machines that recordings are levelled for.
var recordedOn = []string{"haswell", "max", "epyc-milan", "nehalem", "qemu64", "epyc", "sandybridge", hostMachine}

// hostMachine has this machine's CPU, where that has AVX-512.
const hostMachine = "host"

// recorded is an entry of the corpus as the guests have it.
type recorded struct {
	name   string
	images string // directory on the host
	root   string // with its files, for fpuimg
	cap    string // that it is restored with once it is levelled
	pids   []int
	mine   map[int]bool // processes and threads
	tick   string       // the file that it writes a line to; "": it answers the probe
	probe  string
	opens  bool   // lp of it loads a library late, if it is one
	lacks  string // a file that neither the corpus nor a machine has
}

// recordings are all entries, with the files that they have open, in directories that
// become /job/files and /job/fresh of the guests.
type recordings struct {
	t            *testing.T
	guest        *guest.Image
	criu         *guest.CRIU
	fpuimg       command
	dir          string
	files, fresh string
	entries      []*recorded
}

// recordedRow is one entry on one machine.
type recordedRow struct {
	entry, on                string
	level, levelled, control string // what fpuimg says; what became of the result, and of the entry
}

// restore is one restore in a guest, and what became of it.
type restore struct {
	*recorded
	variant string // "level", "control", or what was left out
	images  string
	cap     string
	dump    bool // once it has run

	fate, detail string
	dumped       string // the dump, on the host
}

const (
	lives       = "lives"
	nothingToDo = "nothing to do"
	watchFor    = 20 // seconds, at least
	longest     = 200
)

// TestRecordingsVM is described in the package's comment.
func TestRecordingsVM(t *testing.T) {
	im := guest.RequireKernel(t, "sid")
	r := &recordings{t: t, guest: im, criu: guest.RequireCRIU(t, "sid"), dir: t.TempDir()}
	r.fpuimg = buildCommand(t, r.dir, "fpuimg")
	r.files, r.fresh = filepath.Join(r.dir, "files"), filepath.Join(r.dir, "fresh")
	for _, name := range corpus.Names(t) {
		r.entries = append(r.entries, r.place(name))
	}
	var mu sync.Mutex
	var table []recordedRow
	t.Cleanup(func() { r.report(table) }) // when all are done
	for _, name := range recordedOn {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == hostMachine && !hasAVX512(t) {
				t.Skip("nothing is restored where there is AVX-512: this CPU has none")
			}
			sub := *r
			sub.t = t
			rows := sub.machine(machineNamed(name))
			mu.Lock()
			defer mu.Unlock()
			table = append(table, rows...)
		})
	}
}

// hasAVX512 reports whether this machine's CPU has AVX-512.
func hasAVX512(t *testing.T) bool {
	t.Helper()
	this, err := cpuid.Host()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(this.Flags, "avx512f")
}

func machineNamed(name string) *machine {
	if name == hostMachine {
		return &machine{name: name, cpu: guest.HostCPU}
	}
	all := machines()
	return all[slices.IndexFunc(all, func(m *machine) bool { return m.name == name })]
}

// place puts the files of an entry where the guests get them from: with the modes that
// CRIU has recorded, for it restores no process whose files have others.
func (r *recordings) place(name string) *recorded {
	t := r.t
	t.Helper()
	e := &recorded{name: name, images: corpus.Images(t, name), root: corpus.Root(t, name), mine: map[int]bool{}}
	var doc struct {
		PIDs        []int
		Tick, Probe string
	}
	decode(t, string(corpus.Read(t, name, "entry.json")), &doc)
	e.pids, e.tick, e.probe = doc.PIDs, doc.Tick, doc.Probe
	cores, err := filepath.Glob(filepath.Join(e.images, "core-*.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, core := range cores {
		tid, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(core), "core-"), ".img"))
		if err != nil {
			t.Fatal(err)
		}
		e.mine[tid] = true
	}
	if _, err := os.Stat(filepath.Join(e.images, "cpuinfo.img")); err == nil {
		e.cap = "--cpu-cap=fpu"
	}

	modes := fileModes(t, filepath.Join(e.images, "files.img"))
	for path := range modes {
		if strings.HasPrefix(path, "/sys/") { // of the kernel that it ran on
			e.lacks = path
		}
	}
	put := func(tree, path, from string) {
		to := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err == nil {
			err = os.Chmod(to, cmp.Or(modes[path], 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	written := map[string]bool{} // by the program
	for _, row := range tsvRows(t, name, "files.tsv") {
		path, kind, size := row[0], row[1], row[4]
		at := filepath.Join(e.root, path)
		fi, err := os.Stat(at)
		switch here, hereErr := os.Stat(path); {
		case kind == "dir":
			if err := os.MkdirAll(filepath.Join(r.files, path), 0o755); err != nil {
				t.Fatal(err)
			}
		case err == nil && kind == "file" && fi.Mode().IsRegular():
			written[path] = true
			put(filepath.Join(r.fresh, name), path, at)
		case err == nil || strings.HasPrefix(path, "/dev/"):
		case hereErr == nil && fmt.Sprint(here.Size()) == size: // a file of a package
			put(r.files, path, path)
		default:
			e.lacks = path
		}
		if dir, base := filepath.Split(path); base == "libc.so.6" || base == "libc-2.31.so" {
			e.opens = true
			for _, row := range tsvRows(t, "objects.tsv") {
				if strings.HasPrefix(row[3], dir+"libz.so.") && row[5] == "yes" {
					put(r.files, dir+"libz.so.1", corpus.Object(t, row[0]))
				}
			}
		}
	}
	err = filepath.WalkDir(e.root, func(at string, d fs.DirEntry, err error) error {
		if path := strings.TrimPrefix(at, e.root); err == nil && d.Type().IsRegular() && !written[path] {
			put(r.files, path, at)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// tsvRows reads a table of the corpus without its head.
func tsvRows(t *testing.T, elem ...string) [][]string {
	t.Helper()
	r := csv.NewReader(bytes.NewReader(corpus.Read(t, elem...)))
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// fileModes returns the permissions that files.img has of files, by path. Fields are of
// images/fdinfo.proto and images/regfile.proto.
func fileModes(t *testing.T, path string) map[string]fs.FileMode {
	t.Helper()
	const magic, word = 8, 4 // bytes
	const reg, name, mode = 3, 6, 10
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]fs.FileMode{}
	for b = b[magic:]; len(b) > 0; {
		n := word + int(binary.LittleEndian.Uint32(b))
		eachField(b[word:n], func(num protowire.Number, _ uint64, sub []byte) {
			if num != reg {
				return
			}
			var at string
			var perm uint64
			eachField(sub, func(num protowire.Number, v uint64, text []byte) {
				switch num {
				case name:
					at = string(text)
				case mode:
					perm = v
				}
			})
			modes[at] = fs.FileMode(perm).Perm()
		})
		b = b[n:]
	}
	return modes
}

// eachField calls f for the fields of a message: with the value of a varint, or the bytes.
func eachField(b []byte, f func(num protowire.Number, v uint64, text []byte)) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		size := protowire.ConsumeFieldValue(num, typ, b[max(n, 0):])
		if n < 0 || size < 0 {
			return
		}
		switch field := b[n : n+size]; typ {
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(field)
			f(num, v, nil)
		case protowire.BytesType:
			text, _ := protowire.ConsumeBytes(field)
			f(num, 0, text)
		}
		b = b[n+size:]
	}
}

// level has fpuimg level images of an entry for a machine. It returns its
// document, what refuses it, and whether all of that is a judgement.
func (r *recordings) level(e *recorded, from, to, profile string, options ...string) (doc levelDoc, refusals []string, judgement bool) {
	t := r.t
	t.Helper()
	args := append([]string{"level", "--json", "--host=" + profile, "--root=" + e.root, "--root=" + r.files, "-o", to}, options...)
	out, talk := r.fpuimg.run(t, []int{exitOK, exitRefused}, append(args, from)...)
	decode(t, out, &doc)
	if len(doc.Images) != 1 {
		t.Fatalf("fpuimg %q: %s %s", args, out, talk)
	}
	judgement = true
	for _, refusal := range doc.Images[0].Refusals {
		refusals = append(refusals, refusal.Name)
		judgement = judgement && refusal.Acceptable
	}
	slices.Sort(refusals)
	return doc, slices.Compact(refusals), judgement && len(refusals) > 0
}

// leftOut are kinds of words that are put back after a levelling. What is left of the
// source then kills the program, or nothing was proved.
var leftOut = []omission{
	{entry: "lp-1", on: "haswell", what: "copy"},
	{entry: "lp-1", on: "haswell", what: "cpu-features"},
	{entry: "lp-1", on: "haswell", what: "trampoline"},
	// What the loader loads later it binds by its own record.
	{entry: "lpnow-1", on: "haswell", what: "trampoline", fate: lives},
	{entry: "lp-trixie-1", on: "haswell", what: "trampoline", object: "ld-linux-x86-64.so.2"},
	{entry: "lp-bullseye-1", on: "haswell", what: "cpu-features"},
	{entry: "pyhash-1", on: "haswell", what: "openssl"},
	{entry: "sigh-ymm", on: "haswell", what: "frame", fate: "16 errors, 16 lost"},
	{entry: "lp-1", on: "nehalem", what: "save-size"},
}

type omission struct {
	entry, on, what, object string // object: only there
	fate                    string // "": SIGILL
}

func (a omission) variant() string {
	return strings.TrimSuffix("without-"+a.what+"-"+a.object, "-")
}

// chosen is whether FPU_VM_ENTRIES, a list with commas, has the entry; it may be all.
func chosen(e *recorded) bool {
	list := os.Getenv("FPU_VM_ENTRIES")
	return list == "" || slices.Contains(strings.Split(list, ","), e.name)
}

// machine levels every entry for a machine and restores all on it in one boot: the result,
// the entry as it is, and what is left out of it.
func (r *recordings) machine(on *machine) (table []recordedRow) {
	t := r.t
	profile := r.profile(on)
	noXSave := on.cpu == "Nehalem" || on.cpu == "qemu64,-xsave"
	dir := filepath.Join(r.dir, on.name)
	if err := os.MkdirAll(filepath.Join(dir, "levelled"), 0o755); err != nil {
		t.Fatal(err)
	}

	rows := map[string]*recordedRow{}
	var all []*restore
	for _, e := range r.entries {
		if !chosen(e) {
			continue
		}
		row := &recordedRow{entry: e.name, on: on.name}
		rows[e.name] = row
		to := filepath.Join(dir, "levelled", e.name)
		doc, refusals, judgement := r.level(e, e.images, to, profile)
		if row.level = strings.Join(refusals, " "); judgement {
			again, still, _ := r.level(e, e.images, to, profile, "--accept="+strings.Join(refusals, ","))
			if len(still) > 0 {
				t.Errorf("%s: refused %v, all accepted, and then %v", e.name, refusals, still)
			}
			doc = again
		}
		changed := doc.Images[0].Output != nil
		if !changed && len(refusals) == 0 {
			row.level = nothingToDo
		}
		if e.lacks != "" {
			continue
		}
		add := func(variant, images, cap string) {
			dump := on.name == redump.on && variant == "level" && slices.Contains(redump.entries, e.name)
			all = append(all, &restore{recorded: e, variant: variant, images: images, cap: cap, dump: dump})
		}
		control := ""
		if noXSave {
			control = "--cpu-cap=none"
		}
		switch {
		case changed:
			add("level", to, e.cap)
			add("control", e.images, control)
		case row.level == nothingToDo:
			add("level", e.images, control)
		}
		for _, a := range leftOut {
			if a.entry == e.name && a.on == on.name {
				variant := a.variant()
				putBack(t, e.images, to, to+"."+variant, doc.Images[0].Tasks, a.what, a.object)
				add(variant, to+"."+variant, e.cap)
			}
		}
	}
	r.restoreAll(on, dir, all)
	for _, x := range all {
		r.judge(on, x, rows[x.name])
	}
	if dumped := r.redumped(all); len(dumped) > 0 {
		for _, name := range redump.to {
			if name == hostMachine && !hasAVX512(t) {
				t.Log("what was dumped anew is not restored where there is AVX-512: this CPU has none")
				continue
			}
			to := machineNamed(name)
			var again []*restore
			for _, x := range dumped {
				again = append(again, &restore{recorded: x.recorded, variant: "dumped-on-" + redump.on, images: x.dumped})
			}
			r.restoreAll(to, filepath.Join(dir, to.name), again)
			for _, x := range again {
				r.judge(to, x, nil)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		row := rows[name]
		switch before := studied(name, on.name); {
		case before == lives && row.levelled != lives, before == "dies" && !row.refused():
			t.Errorf("%s on %s: level says %q, and it %s; levelled by the prototype it %s", name, on.name, row.level, row.levelled, before)
		}
		table = append(table, *row)
	}
	return table
}

// profile is the file with what glibc finds in the CPU of a machine.
func (r *recordings) profile(on *machine) string {
	if on.cpu != guest.HostCPU {
		return filepath.Join(corpus.Dir(r.t), "profiles", strings.ReplaceAll(on.cpu, ",", "_"), "2.36.diag.txt")
	}
	path := filepath.Join(r.dir, "host.diag.txt")
	out, err := exec.CommandContext(r.t.Context(), "/lib64/ld-linux-x86-64.so.2", "--list-diagnostics").Output()
	if err == nil {
		err = os.WriteFile(path, out, 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

// redump is of entries that are levelled for one machine, and dumped anew there; on the
// others that dump lives on.
var redump = struct {
	on          string
	to, entries []string
}{"haswell", []string{"max", hostMachine}, []string{"lp-1", "py-1"}}

// redumped are those of which there is a dump of what was levelled, which check has
// looked at.
func (r *recordings) redumped(all []*restore) (dumped []*restore) {
	for _, x := range all {
		if x.dump && x.fate == lives {
			r.checkRedump(x)
			dumped = append(dumped, x)
		}
	}
	return dumped
}

// restoreAll restores in one boot. What has the same process numbers is in steps of its own.
func (r *recordings) restoreAll(on *machine, dir string, all []*restore) {
	t := r.t
	if len(all) == 0 {
		return
	}
	// A kernel that isolates its page tables has TCG forget its TLB at each system call.
	job := guest.Job{CPU: on.cpu, Files: r.criu.Files(), Memory: 3072, KernelArgs: "mitigations=off", Timeout: time.Hour}
	job.Files["/job/files"], job.Files["/job/fresh"] = r.files, r.fresh
	job.Steps = []guest.Step{{Name: "files", Script: "cp -a files/. /\nchmod 1777 /tmp\n"}}
	if on.cpu != guest.HostCPU {
		job.Steps[0].Script += "echo 0 >/proc/sys/kernel/printk_ratelimit\n"
	}
	var groups [][]*restore
	for _, x := range all {
		job.Files["/job/img/"+x.name+"."+x.variant] = x.images
		if parent, err := os.Readlink(filepath.Join(x.images, "parent")); err == nil {
			job.Files[filepath.Join("/job/img/x", parent)] = filepath.Join(x.images, parent)
		}
		i := slices.IndexFunc(groups, func(g []*restore) bool {
			return !slices.ContainsFunc(g, func(y *restore) bool { return y.recorded == x.recorded })
		})
		if i < 0 {
			i, groups = len(groups), append(groups, nil)
		}
		groups[i] = append(groups[i], x)
	}
	steps := map[*restore]string{}
	for i, group := range groups {
		step := guest.Step{Name: fmt.Sprint("group-", i), Timeout: time.Hour}
		var s strings.Builder
		s.WriteString(r.criu.Shell() + watch)
		for _, x := range group {
			steps[x] = step.Name
			tick, dump := cmp.Or(x.tick, "/dev/null"), ":"
			if x.dump {
				dump = "dump"
			}
			fmt.Fprintf(&s, "begin %s.%s %s %s '%s' '%s' '%s' '%s' %s\n",
				x.name, x.variant, x.name, tick, x.early(), strings.Trim(fmt.Sprint(x.pids), "[]"), x.cap, x.probe, dump)
		}
		s.WriteString("while [ -n \"$(ls watched)\" ]; do sleep 1; look; done\n")
		step.Script = s.String()
		job.Steps = append(job.Steps, step)
	}
	result, err := r.guest.Run(t.Context(), filepath.Join(dir, "boot"), job)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: booted after %s, %d restores in %d steps after %s; Linux %s, CRIU %s", on.name, result.Boot.Round(time.Second), len(all), len(groups), result.Elapsed.Round(time.Second), result.Linux, r.criu.Version)
	if s := result.Step("files"); !s.OK() {
		t.Fatal(explain(s))
	}
	for _, x := range all {
		s := result.Step(steps[x])
		if s.Error != "" || s.TimedOut {
			t.Errorf("%s.%s: %s", x.name, x.variant, explain(s))
		}
		x.read(s)
	}
}

// watch are the functions of a step's script. One restores; what was restored before runs
// meanwhile, for as long as it is watched and until its late calls are made, or it is gone.
// Few run at a time, or the last of many would be restored slowly.
var watch = fmt.Sprintf(`mkdir -p watched
now() { read -r up _ </proc/uptime; echo ${up%%.*}; }
begin() { # ID ENTRY TICK EARLY PIDS OPTIONS PROBE DUMP
	look
	cp -a fresh/$2/. /
	criu restore -d -D /job/img/$1 -v2 -o $OUT/$1.log --manage-cgroups=ignore $6 </dev/null >$OUT/$1.out 2>&1
	echo $? >$OUT/$1.rc
	cp $3 $OUT/$1.begin
	echo "start=$(now) id=$1 tick=$3 early='$4' pids='$5' probe='$7' dump=$8" >watched/$1
}
look() {
	for f in watched/*; do
		[ -f $f ] || continue
		. ./$f
		age=$(($(now) - start)) here=1
		for p in $pids; do [ -d /proc/$p ] || here=; done
		[ -n "$here" ] && [ $age -lt %d ] && continue
		[ -n "$here" ] && [ $age -lt %d ] && grep -qE "$early" $tick && continue
		[ -z "$probe" ] || (eval "$probe") >$OUT/$id.answer 2>/dev/null
		cp $tick $OUT/$id.end
		for p in $pids; do grep State: /proc/$p/status >>$OUT/$id.state; done
		$dump
		kill -9 $pids 2>/dev/null
		rm $f
	done
}
dump() {
	mkdir $OUT/$id.dump
	criu dump -t $pids -D $OUT/$id.dump -v2 -o $OUT/$id.dump.log --manage-cgroups=ignore </dev/null
	echo $? >$OUT/$id.dump.rc
}
`, watchFor, longest)

// early is what it writes as long as it has late calls to make.
func (e *recorded) early() string {
	if e.opens {
		return " late 0 | dl 0 "
	}
	return " late 0 "
}

// count finds a number in the line that a program writes.
func count(line, what string) int {
	m := regexp.MustCompile(`\b` + what + ` (-?\d+)`).FindStringSubmatch(line)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// read finds out what became of it.
func (x *restore) read(s *guest.StepResult) {
	id := filepath.Join(s.Dir, x.name+"."+x.variant)
	text := func(suffix string) string {
		b, _ := os.ReadFile(id + suffix) // of one that never came so far it is not there
		return strings.TrimSpace(string(b))
	}
	begin, end, state := text(".begin"), text(".end"), text(".state")
	gone := strings.Count(state, "State:") < len(x.pids) || strings.Contains(state, "zombie") || strings.Contains(state, "dead")
	signal := fatalSignal(s.Kernel, func(pid int) bool { return x.mine[pid] })
	switch {
	case signal != "gone":
		x.fate = signal
	case text(".rc") != "0":
		x.fate = strings.TrimSuffix("CRIU refuses: "+refusal(text(".log")), ": unknown")
	case gone: // of a signal that it handles
		x.fate = "dies"
	case x.tick == "" && text(".answer") == "", x.tick != "" && count(end, "tick") <= count(begin, "tick"):
		x.fate = "stands still"
	case count(end, "errors") > 0 || count(end, "lost") > 0:
		x.fate = fmt.Sprintf("%d errors, %d lost", count(end, "errors"), count(end, "lost"))
	case regexp.MustCompile(x.early()).MatchString(end):
		x.fate = "did not get to its late calls"
	case x.opens && count(end, "dl") < 0:
		x.fate = "cannot load a library"
	default:
		x.fate = lives
	}
	x.detail = fmt.Sprintf("before: %s\nafter: %s\n%s %s\n", begin, end, text(".out"), text(".log"))
	for line := range strings.Lines(s.Kernel) {
		if m := trap.FindStringSubmatch(line); m != nil {
			if pid, err := strconv.Atoi(m[1]); err == nil && x.mine[pid] {
				x.detail += line
			}
		}
	}
	if x.dump {
		x.detail += text(".dump.rc") + " " + text(".dump.log")
		x.dumped = id + ".dump"
	}
}

// prototype is what became of entries that a throw-away program had levelled: the machines
// where they lived, with "!" where they died.
var prototype = map[string]string{
	"lp-1":          "haswell max epyc-milan nehalem qemu64 epyc sandybridge",
	"lp-1-cap":      "haswell",
	"lp-6":          "haswell epyc-milan nehalem qemu64 sandybridge",
	"lp-bullseye-1": "haswell nehalem qemu64 sandybridge",
	"lp-bullseye-6": "haswell nehalem",
	"lp-trixie-1":   "haswell max nehalem qemu64 epyc sandybridge",
	"lpnow-1":       "haswell nehalem qemu64",
	"lpst-1":        "haswell nehalem qemu64",
	"lpstpie-1":     "haswell nehalem qemu64",
	"gh-lp1":        "nehalem",
	"py-1":          "haswell epyc-milan nehalem qemu64",
	"py-bullseye-1": "haswell nehalem",
	"py-trixie-1":   "haswell nehalem",
	"pyhash-1":      "haswell max epyc-milan nehalem qemu64 epyc sandybridge",
	"perl-1":        "haswell nehalem qemu64 sandybridge",
	"nginx-1":       "haswell nehalem qemu64 sandybridge",
	"oss-1":         "haswell !nehalem !qemu64 !sandybridge",
	"blk-9":         "haswell",
	"esc-1":         "haswell nehalem",
	"sigh-ymm":      "haswell",
	"sigh-xmm":      "nehalem",
	"sb-3":          "!haswell",
	"node-1":        "!haswell",
	"java-1":        "!haswell",
}

// studied is what became of an entry that the prototype had levelled, "" if that was not
// tried.
func studied(entry, on string) string {
	for _, name := range strings.Fields(prototype[entry]) {
		switch on {
		case name:
			return lives
		case strings.TrimPrefix(name, "!"):
			return "dies"
		}
	}
	return ""
}

// recordedFate is what became of an entry as it is, "" if that was not tried.
func recordedFate(t *testing.T, entry string, on *machine, cap string) string {
	for _, row := range tsvRows(t, "outcomes.tsv") {
		switch {
		case row[0] != entry || row[1] != on.cpu || row[4] != cmp.Or(strings.TrimPrefix(cap, "--cpu-cap="), "default") || row[5] == "refused":
		case row[5] == "alive" && strings.Trim(row[6], "0") == "":
			return lives
		default:
			return row[5]
		}
	}
	return ""
}

// judge fails the test where what happened is not what level promises, or is not what
// happened before.
func (r *recordings) judge(on *machine, x *restore, row *recordedRow) {
	t := r.t
	t.Helper()
	wrong := func(format string, a ...any) {
		t.Helper()
		t.Errorf("%s.%s on %s: %s: %s\n%s", x.name, x.variant, on.name, x.fate, fmt.Sprintf(format, a...), x.detail)
	}
	switch x.variant {
	case "level":
		if row.levelled = x.fate; x.fate != lives && !row.refused() {
			wrong("levelled")
		}
	case "control":
		row.control = x.fate
		if before := recordedFate(t, x.name, on, x.cap); before != "" && (before == lives) != (x.fate == lives) {
			wrong("not levelled it is known for: %s", before)
		}
	default:
		want := "SIGILL"
		for _, a := range leftOut {
			if a.entry == x.name && a.on == on.name && x.variant == a.variant() {
				want = cmp.Or(a.fate, want)
			}
		}
		if strings.HasPrefix(x.variant, "dumped-on-") {
			want = lives
		}
		t.Logf("%s.%s on %s: %s", x.name, x.variant, on.name, x.fate)
		if x.fate != want {
			wrong("want: %s", want)
		}
	}
}

// checkRedump has fpuimg check what was levelled and dumped anew for machines with AVX-512:
// on one like that of the recordings it fits as it is; Intel's write more into the buffer
// of lazy binding, and it fits when it is levelled for them.
func (r *recordings) checkRedump(x *restore) {
	t := r.t
	t.Helper()
	fits := func(images, host string) bool {
		t.Helper()
		out, _ := r.fpuimg.run(t, []int{exitOK}, "check", "--json", "--host="+host, "--root="+x.root, "--root="+r.files, images)
		var doc checkDoc
		decode(t, out, &doc)
		return !doc.Images[0].Results[0].risks("lazy-save")
	}
	to := x.dumped + ".level"
	if _, refusals, _ := r.level(x.recorded, x.dumped, to, "sapphirerapids"); len(refusals) > 0 {
		t.Errorf("%s, dumped anew: level refuses %v", x.name, refusals)
		return
	}
	if !fits(x.dumped, "znver4") || fits(x.dumped, "sapphirerapids") || !fits(to, "sapphirerapids") {
		t.Errorf("%s, dumped anew: on znver4 it fits: %v, on sapphirerapids: %v, levelled: %v", x.name, fits(x.dumped, "znver4"), fits(x.dumped, "sapphirerapids"), fits(to, "sapphirerapids"))
	}
}

// report writes the table, and puts what is in it into that of the documentation, which
// keeps the rest.
func (r *recordings) report(table []recordedRow) {
	t := r.t
	t.Helper()
	path := filepath.Join(filepath.Dir(cmp.Or(os.Getenv("FPU_VM_TABLE"), filepath.Join("..", "out", "x"))), "vm-matrix-level.tsv")
	var b bytes.Buffer
	fmt.Fprintln(&b, "recording\ton\tlevel\tlevelled\tas it is")
	for _, row := range table {
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\n", row.entry, row.on, row.level, row.levelled, row.control)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the table:\n%s", b.String())

	doc := filepath.Join("..", "docs", "LEVEL.md")
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- make vmtest-level writes this table -->\n", "<!-- end of the table -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, also := strings.Cut(rest, end)
	if !ok || !also {
		t.Fatalf("%s has no place for the table", doc)
	}
	cells := map[string][]string{}
	for line := range strings.Lines(old) {
		if f := strings.Split(strings.Trim(line, "| \n"), " | "); len(f) == 1+len(recordedOn) {
			cells[f[0]] = f[1:]
		}
	}
	for _, row := range table {
		if cells[row.entry] == nil {
			cells[row.entry] = slices.Repeat([]string{"-"}, len(recordedOn))
		}
		cells[row.entry][slices.Index(recordedOn, row.on)] = row.cell()
	}
	var out strings.Builder
	fmt.Fprintf(&out, "| recording | %s |\n|---|%s\n", strings.Join(recordedOn, " | "), strings.Repeat("---|", len(recordedOn)))
	for _, e := range r.entries {
		if cells[e.name] != nil {
			fmt.Fprintf(&out, "| %s | %s |\n", e.name, strings.Join(cells[e.name], " | "))
		}
	}
	if err := os.WriteFile(doc, []byte(head+begin+out.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (row *recordedRow) refused() bool { return row.level != "" && row.level != nothingToDo }

// cell is the row for the documentation.
func (row recordedRow) cell() string {
	text := row.levelled
	switch {
	case row.level == nothingToDo && text == lives:
		text = "as it is"
	case row.level == nothingToDo && text == "":
		text = nothingToDo
	case row.level == nothingToDo:
		text = "as it is: " + text
	case row.refused() && text != "":
		text = row.level + "; accepted: " + text
	case row.refused():
		text = row.level
	case row.control == lives:
		text += ", and as it is"
	}
	if before := studied(row.entry, row.on); before != "" {
		text += " (" + before + ")"
	}
	return text
}
