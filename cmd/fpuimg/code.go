package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// codeOptions say where the code of a checkpoint's processes is looked for.
type codeOptions struct {
	dirs  []string
	keep  size                     // of the memory in a compressed archive
	roots *program.Roots           // nil: only in the images
	spool func() *checkpoint.Spool // makes what keeps the memory in an archive, nil if none is wanted
}

// errNoMemoryRoot is a command line that contradicts itself.
var errNoMemoryRoot = &cli.UsageError{Err: errors.New("--root is for the dumped memory, and --no-memory leaves it out")}

func (o *codeOptions) flags(fs *pflag.FlagSet, usage string) {
	fs.StringArrayVar(&o.dirs, "root", nil, usage)
	o.keep = 16 << 30
	fs.Var(&o.keep, "spool", "with --root, keep at most `SIZE` of the memory in a compressed archive in a temporary file, such as 500M")
}

// size is a number of bytes as an option has it, with a unit of 1024 or its powers.
type size int64

const units = "KMGT"

func (n *size) String() string {
	v, unit := int64(*n), ""
	for i := 0; i < len(units) && v > 0 && v%1024 == 0; i++ {
		v, unit = v/1024, units[i:i+1]
	}
	return strconv.FormatInt(v, 10) + unit
}

func (n *size) Set(text string) error {
	number, shift := text, 0
	if i := len(text) - 1; i >= 0 {
		if at := strings.IndexByte(units, text[i]); at >= 0 {
			number, shift = text[:i], 10*(at+1)
		}
	}
	v, err := strconv.ParseUint(number, 10, 63-shift)
	if err != nil {
		return errors.New("want a number of bytes, which K, M, G or T may follow")
	}
	*n = size(v << shift)
	return nil
}

func (n *size) Type() string { return "size" }

// open opens the roots.
func (o *codeOptions) open() error {
	o.spool = func() *checkpoint.Spool { return nil }
	if len(o.dirs) == 0 {
		return nil
	}
	if o.keep != 0 {
		o.spool = checkpoint.Spools(int64(o.keep))
	}
	roots, err := program.OpenRoots(o.dirs...)
	if err != nil {
		return &cli.UsageError{Err: err, Hint: "--root=DIR is where the programs' files are: / where they ran on this machine, or a container's root file system"}
	}
	o.roots = roots
	return nil
}

// words are those of a command line that name the roots.
func (o *codeOptions) words() string {
	var words []string
	for _, dir := range o.dirs {
		words = append(words, view.Quote("--root="+dir))
	}
	return strings.Join(words, " ")
}

func (o *codeOptions) close() {
	if o.roots != nil {
		o.roots.Close()
	}
}

// look finds out about the code of a checkpoint's tasks. It is nil for what has no memory:
// an ELF core, a lone core image, or, without a root, a checkpoint of which only the core
// images were kept.
func (o *codeOptions) look(ckpt *checkpoint.Checkpoint, threads []codec.Thread) []*facts.Process {
	if ckpt.Files == nil || ckpt.Image != "" {
		return nil
	}
	looker := program.NewLooker(ckpt.Files, o.roots)
	defer looker.Close()
	var code []*facts.Process
	none := true
	for len(threads) > 0 {
		pid := threads[0].PID
		n := slices.IndexFunc(threads, func(th codec.Thread) bool { return th.PID != pid })
		if n < 0 {
			n = len(threads)
		}
		p, err := looker.Look(pid, threads[:n])
		if err != nil {
			p = &facts.Process{PID: pid, Rooted: o.roots != nil, Unknowns: []facts.Unknown{{Topic: facts.Libc, Reason: o.unread(err)}}}
		}
		none = none && errors.Is(err, fs.ErrNotExist)
		code, threads = append(code, p), threads[n:]
	}
	if none && o.roots == nil {
		return nil
	}
	return code
}

// unread says why the memory of a task was not looked at, and what to do.
func (o *codeOptions) unread(err error) string {
	spool, failed := errors.AsType[*checkpoint.SpoolError](err)
	switch {
	case failed && spool.Err != nil:
		return err.Error() + "; make room, name another directory in TMPDIR, or unpack the archive"
	case failed:
		return err.Error() + "; allow more by --spool, or unpack the archive"
	case errors.Is(err, checkpoint.ErrNotKept) && o.roots == nil:
		return "its memory is in an archive that is compressed or comes by once, and is looked at only with --root"
	case errors.Is(err, checkpoint.ErrNotKept):
		return "its memory is in an archive that is compressed or comes by once, and --spool keeps nothing; unpack the archive"
	}
	return err.Error()
}

// fewTasks is how many images are looked for by their names: it takes less time than to
// list a directory.
const fewTasks = 8

// hasMemory reports whether a checkpoint has an image of the memory of a task.
func hasMemory(ckpt *checkpoint.Checkpoint) bool {
	dir, ok := ckpt.Files.(codec.Dir)
	pids := ckpt.Tasks()
	if !ok || ckpt.Image != "" || len(pids) == 0 || len(pids) > fewTasks {
		return len(memoryOf(ckpt)) > 0
	}
	return slices.ContainsFunc(pids, func(pid int) bool {
		_, err := os.Lstat(dir.Label(fmt.Sprintf("mm-%d.img", pid)))
		return err == nil
	})
}

// memoryOf lists the tasks that a checkpoint has images of the memory of.
func memoryOf(ckpt *checkpoint.Checkpoint) (pids []int) {
	if ckpt.Files == nil || ckpt.Image != "" {
		return nil
	}
	names, _ := ckpt.Files.Names()
	for _, name := range names {
		rest, mm := strings.CutPrefix(name, "mm-")
		rest, img := strings.CutSuffix(rest, ".img")
		if pid, err := strconv.ParseInt(rest, 10, 32); mm && img && err == nil {
			pids = append(pids, int(pid))
		}
	}
	slices.Sort(pids)
	return pids
}

// maxAsked is how many tasks are asked for the CPU that they started on.
const maxAsked = 8

// glibcCPU returns the CPU that a checkpoint was taken on, as glibc recorded it in the
// memory of a task; nil if none of the first ones has such a record.
func glibcCPU(ckpt *checkpoint.Checkpoint) *xstate.CPU {
	pids := memoryOf(ckpt)
	if len(pids) == 0 {
		return nil
	}
	looker := program.NewLooker(ckpt.Files, nil)
	defer looker.Close()
	for _, pid := range pids[:min(len(pids), maxAsked)] {
		if src, err := looker.Source(pid); err == nil && src != nil {
			return src.CPU
		}
	}
	return nil
}

// sourceOf returns the CPU that glibc recorded in the first task that has such a record.
func sourceOf(code []*facts.Process) *facts.Source {
	for _, p := range code {
		if p.Source != nil {
			return p.Source
		}
	}
	return nil
}

// taskRows are the table of tasks; those of which the same is said share a row.
func taskRows(code []*facts.Process, tasks []compat.Task) [][]string {
	type line struct {
		pid  int
		text [4]string
	}
	var lines []line
	for i, p := range code {
		slots, save := "-", "-"
		if p.Targets != nil {
			total := 0
			for _, t := range p.Targets {
				total += t.Slots
			}
			slots = fmt.Sprintf("%d of %d cannot run", tasks[i].Unfit, total)
		}
		if p.Save != nil {
			save = fmt.Sprintf("%s, %d to bind", p.Save.Kind, p.Save.Lazy)
		}
		lines = append(lines, line{p.PID, [4]string{cmp.Or(cli.Printable(p.Libc), "-"), tasks[i].Verdict.String(), slots, save}})
	}
	var rows [][]string
	for _, group := range view.Fold(lines, func(l line) [4]string { return l.text }) {
		var pids []int
		for _, l := range group {
			pids = append(pids, l.pid)
		}
		rows = append(rows, append([]string{view.Range(pids)}, group[0].text[:]...))
	}
	return rows
}

// objectRows are the table of the ELF files that the tasks map, with the functions of
// theirs that slots hold.
func objectRows(code []*facts.Process, host *xstate.CPU) [][]string {
	var objects []*facts.Object
	slots, unfit := map[*facts.Object]int{}, map[*facts.Object]int{}
	for _, p := range code {
		for _, o := range p.Objects {
			if !slices.Contains(objects, o) {
				objects = append(objects, o)
			}
		}
		for _, t := range p.Targets {
			slots[t.Object] += t.Slots
			if compat.Unfit(host, t.Needs) {
				unfit[t.Object] += t.Slots
			}
		}
	}
	var rows [][]string
	for _, o := range objects {
		functions := "-"
		if slots[o] > 0 {
			functions = fmt.Sprintf("%d of %d cannot run", unfit[o], slots[o])
		}
		rows = append(rows, []string{functions, string(o.Status), cli.Printable(o.Path)})
	}
	return rows
}

// codeDoc is the code of an image in JSON.
type codeDoc struct {
	Source  *cpuid.Profile `json:"source"`
	Objects []objectDoc    `json:"objects"`
	Tasks   []taskDoc      `json:"tasks"`
	Unknown []string       `json:"unknown"`
}

type objectDoc struct {
	Path    string       `json:"path"`
	BuildID string       `json:"build_id"`
	Status  facts.Status `json:"status"`
}

type taskDoc struct {
	PID   int       `json:"pid"`
	Libc  *string   `json:"libc"`
	IFUNC *ifuncDoc `json:"ifunc"`
	Save  *saveDoc  `json:"save"`
}

type ifuncDoc struct {
	Slots int      `json:"slots"`
	Needs []string `json:"needs"`
}

type saveDoc struct {
	Kind facts.SaveKind `json:"kind"`
	Size int            `json:"size"`
	Lazy int            `json:"lazy"`
}

func newCodeDoc(code []*facts.Process) *codeDoc {
	if code == nil {
		return nil
	}
	d := &codeDoc{Objects: []objectDoc{}, Tasks: []taskDoc{}, Unknown: []string{}}
	if s := sourceOf(code); s != nil && s.CPU != nil {
		d.Source = cpuid.NewProfile(s.CPU)
	}
	seen := map[objectDoc]bool{}
	for _, p := range code {
		for _, o := range p.Objects {
			if doc := (objectDoc{o.Path, o.BuildID, o.Status}); !seen[doc] {
				seen[doc] = true
				d.Objects = append(d.Objects, doc)
			}
		}
		t := taskDoc{PID: p.PID}
		if p.Libc != "" {
			t.Libc = &p.Libc
		}
		if p.Targets != nil {
			t.IFUNC = &ifuncDoc{Needs: []string{}}
			for _, target := range p.Targets {
				t.IFUNC.Slots += target.Slots
				t.IFUNC.Needs = append(t.IFUNC.Needs, target.Needs...)
			}
			slices.Sort(t.IFUNC.Needs)
			t.IFUNC.Needs = slices.Compact(t.IFUNC.Needs)
		}
		if p.Save != nil {
			t.Save = &saveDoc{p.Save.Kind, p.Save.Size, p.Save.Lazy}
		}
		d.Tasks = append(d.Tasks, t)
		for _, u := range p.Unknowns {
			text := u.Reason
			if u.Object != nil {
				text = path.Base(u.Object.Path) + ": " + text
			}
			if !slices.Contains(d.Unknown, text) {
				d.Unknown = append(d.Unknown, text)
			}
		}
	}
	return d
}

// taskResult is what is said of a task's code on one host, in JSON.
type taskResult struct {
	PID      int               `json:"pid"`
	Verdict  compat.Verdict    `json:"verdict"`
	Unfit    int               `json:"unfit"`
	Findings []view.FindingDoc `json:"findings"`
}
