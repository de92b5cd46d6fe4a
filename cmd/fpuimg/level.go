package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/level"
)

type levelOptions struct {
	destination
	host        string
	accept      []string
	keepCPUInfo bool

	named *host
	level level.Options
}

func setupLevel(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	o := levelOptions{destination: destination{verb: "fpuimg level", done: "levelled"}}
	fs.StringVar(&o.host, "host", "", "the machine to run on: this one, or `PROFILE`: a file, a directory with a cpuinfo.img, or a name such as x86-64-v3 or znver3")
	o.code.flags(fs, "where the programs' files are, below `DIR`: / where they ran on this machine, or a container's root file system; may be repeated")
	fs.StringSliceVar(&o.accept, "accept", nil, "go ahead in spite of the refusals `NAME` or NAME:OBJECT: "+acceptable())
	fs.BoolVar(&o.keepCPUInfo, "keep-cpuinfo", false, "leave cpuinfo.img as it is")
	o.destination.flags(fs)
	return o.run(&o, "fpuimg.level/1")
}

// acceptable lists the refusals that --accept takes.
func acceptable() string {
	var names []string
	for _, n := range level.Acceptable {
		names = append(names, string(n))
	}
	return strings.Join(names, ", ")
}

// complete checks the options.
func (o *levelOptions) complete(s *cli.IO, args []string) error {
	if o.host == "" {
		return &cli.UsageError{Err: errors.New("level for what machine?"), Hint: "--host[=PROFILE]"}
	}
	if err := checkHosts([]string{o.host}, args); err != nil {
		return err
	}
	switch {
	case len(o.code.dirs) == 0:
		return &cli.UsageError{Err: errors.New("where are the programs' files?"), Hint: "--root=/ where they ran on this machine, or --root=DIR with their container's (podman image mount NAME)"}
	case slices.Contains(args, "-"):
		return &cli.UsageError{Err: errors.New("a checkpoint is read twice, so it cannot come from standard input"), Hint: "save it to a file first"}
	case o.output == "-":
		return &cli.UsageError{Err: errors.New("the result is read anew before it appears, so it cannot go to standard output"), Hint: "-o FILE"}
	}
	if err := o.check(args); err != nil {
		return err
	}
	for _, text := range o.accept {
		name, object, _ := strings.Cut(text, ":")
		e := level.Exception{Name: level.Name(name), Object: object}
		if !slices.Contains(level.Acceptable, e.Name) {
			return cli.Unknown(fmt.Errorf("--accept=%s: no such refusal, or none that can be accepted", text), "--accept=", name, "those that can be", strings.Split(acceptable(), ", "))
		}
		o.level.Accept = append(o.level.Accept, e)
	}
	h, err := loadHost(s, o.host)
	if err != nil {
		return err
	}
	if o.output == "" && !o.inPlace && !o.dryRun && (h.short == "stdin" || h.short == "pipe") {
		return &cli.UsageError{Err: errors.New("the profile has no name for the result"), Hint: "name it with -o"}
	}
	o.named, o.suffix = h, "level-"+h.short
	o.level.Host, o.level.KeepCPUInfo = h.CPU, o.keepCPUInfo
	return nil
}

func (o *levelOptions) hint(path string, err error) string {
	switch {
	case errors.Is(err, level.ErrNoMemory):
		return "fpuimg convert --host takes registers alone"
	case errors.Is(err, level.ErrHost):
		return "take a profile on that machine: fpuimg profile -o FILE"
	}
	return o.destination.hint(path, err)
}

// levelling is the work on one checkpoint.
type levelling struct {
	*level.Plan
	o     *levelOptions
	image levelImage
}

func (o *levelOptions) none(path string, err *errorDoc) any {
	img := newLevelImage(path)
	img.Error = err
	return img
}

func (o *levelOptions) begin(s *cli.IO, path string, ckpt *checkpoint.Checkpoint) (work, error) {
	o.level.Roots, o.level.Progress = o.code.roots, s.Progress(path+": looked through")
	plan, err := level.NewPlan(ckpt, o.level)
	if err != nil {
		return nil, err
	}
	l := &levelling{plan, o, newLevelImage(ckpt.Path)}
	l.image.fill(plan)
	return l, nil
}

func (l *levelling) plan() *convert.Plan { return l.Plan.Plan }
func (l *levelling) changed() bool       { return l.Plan.Changed() }
func (l *levelling) refused() bool       { return l.Plan.Refused() }
func (l *levelling) doc() any            { return l.image }
func (l *levelling) fail(err *errorDoc)  { l.image.Error = err }
func (l *levelling) warn(*cli.IO)        {}

func (l *levelling) written(out string) {
	if out == "" {
		l.image.Changed = false
	} else {
		l.image.Output, l.image.Verified = &out, true
	}
}

// remedies say what to do about a refusal.
var remedies = map[level.Name]string{
	level.Damaged:        "take the checkpoint again, or use an earlier one",
	level.PagesElsewhere: "dump it whole: criu dump without --prev-images-dir and --lazy-pages",
	level.ObjectMissing:  "--root=DIR is where the programs' files are; it may be given several times",
	level.ObjectDiffers:  "--root=DIR must have the files that ran, not those of an upgrade since then",
	level.ThreadInCode:   "take the checkpoint at another moment",
	level.ThreadInLoader: "take the checkpoint at another moment",
	level.StateLive:      "take the checkpoint at another moment",
	level.FrameLive:      "take the checkpoint while no signal handler runs",
	level.HWCapsPath:     "start the program on the lesser machine, or where no such libraries are installed",
}

// refuse lists the refusals.
func (l *levelling) refuse(s *cli.IO) cli.Exit {
	path := l.Checkpoint.Path
	code := cli.Refused
	told := map[string]bool{}
	for _, r := range l.Refusals {
		where := fmt.Sprintf("process %d", r.PID)
		if r.TID != 0 {
			where = fmt.Sprintf("thread %d", r.TID)
		}
		if r.Object != "" {
			where += ", " + r.Object
		}
		s.Errorf("%s: %s: %s: %s", path, r.Name, where, r.Reason)
		if r.Name == level.Damaged {
			code = cli.Damaged
		}
		hint := remedies[r.Name]
		if r.Acceptable() {
			hint = "if you know that it does no harm: --accept=" + string(r.Name)
			if r.Object != "" {
				hint += ":" + view.Quote(r.Object)
			}
		}
		if hint != "" && !told[hint] {
			told[hint] = true
			s.Hint(hint)
		}
	}
	s.Errorf("%s: refused, nothing was written: %s", path, view.Count(len(l.Refusals), "reason"))
	return code
}

// report prints what changes: by object and kind, then the threads.
func (l *levelling) report(s *cli.IO) {
	fmt.Fprintf(s.Out, "%s for %s: %s, %s\n", s.OutStyle(color.Bold).Sprint(cli.Printable(l.Checkpoint.Path)), cli.Printable(l.o.named.Name),
		view.Count(len(l.Tasks), "process"), view.Count(len(l.Threads), "thread"))
	if l.Refused() {
		return
	}
	type place struct {
		pid    int
		what   level.What
		object string
	}
	var words []place
	for _, t := range l.Tasks {
		if t.Idle != "" {
			s.Sayf("%s: process %d: nothing to level in its memory: %s", l.Checkpoint.Path, t.PID, t.Idle)
		}
		for _, w := range t.Words {
			words = append(words, place{t.PID, w.What, w.Object})
		}
	}
	var rows [][]string
	for _, group := range view.Fold(words, func(p place) place { return place{0, p.what, p.object} }) {
		var pids []int
		for _, p := range group {
			pids = append(pids, p.pid)
		}
		rows = append(rows, []string{view.Range(slices.Compact(pids)), string(group[0].what), fmt.Sprint(len(group)), cmp.Or(cli.Printable(group[0].object), "-")})
	}
	for _, t := range l.Tasks {
		if n := len(t.Registers); n > 0 {
			rows = append(rows, []string{fmt.Sprint(t.PID), string(level.Copy), fmt.Sprint(n), "general registers"})
		}
	}
	if len(rows) > 0 {
		view.Table(s, []string{"PROCESSES", "WHAT", "WORDS", "OBJECT"}, rows)
	}
	view.Actions(s, l.Threads)
	for _, c := range l.CPUInfo {
		printField(s, c)
	}
}

// levelImage is an image in the JSON document of schema fpuimg.level/1.
type levelImage struct {
	Path     string            `json:"path"`
	Output   *string           `json:"output"`
	Changed  bool              `json:"changed"`
	Verified bool              `json:"verified"` // the result was read anew
	Error    *errorDoc         `json:"error"`
	Findings []view.FindingDoc `json:"findings"`
	Refusals []refusalDoc      `json:"refusals"`
	Tasks    []levelTask       `json:"tasks"`
	CPUInfo  []fieldDoc        `json:"cpuinfo"`
	Threads  []convertThread   `json:"threads"`
}

type refusalDoc struct {
	Name       level.Name `json:"name"`
	PID        int        `json:"pid"`
	TID        *int       `json:"tid"`
	Object     *string    `json:"object"`
	Reason     string     `json:"reason"`
	Acceptable bool       `json:"acceptable"`
}

type levelTask struct {
	PID   int         `json:"pid"`
	Libc  *string     `json:"libc"`
	Idle  *string     `json:"idle"` // why nothing in its memory can need levelling
	Words []levelWord `json:"words"`
	// Registers are general registers that hold such functions.
	Registers []levelRegister `json:"registers"`
}

type levelRegister struct {
	TID        int    `json:"tid"`
	Register   string `json:"register"`
	From       string `json:"from"`
	To         string `json:"to"`
	SymbolFrom string `json:"symbol_from"`
	SymbolTo   string `json:"symbol_to"`
}

type levelWord struct {
	Address    string     `json:"address"`
	Object     *string    `json:"object"`
	What       level.What `json:"what"`
	Size       int        `json:"size"`
	From       string     `json:"from"`
	To         string     `json:"to"`
	SymbolFrom *string    `json:"symbol_from"`
	SymbolTo   *string    `json:"symbol_to"`
}

func newLevelImage(path string) levelImage {
	return levelImage{Path: path, Findings: []view.FindingDoc{}, Refusals: []refusalDoc{}, Tasks: []levelTask{}, CPUInfo: []fieldDoc{}, Threads: []convertThread{}}
}

func (img *levelImage) fill(plan *level.Plan) {
	img.Changed = plan.Changed()
	img.Findings = view.Advice{}.FindingDocs(view.AllFindings(plan.Threads, plan.Findings))
	img.CPUInfo, img.Threads = fieldDocs(plan.CPUInfo), convertThreads(plan.Threads)
	for _, r := range plan.Refusals {
		d := refusalDoc{Name: r.Name, PID: r.PID, Object: orNull(r.Object), Reason: r.Reason, Acceptable: r.Acceptable()}
		if r.TID != 0 {
			d.TID = &r.TID
		}
		img.Refusals = append(img.Refusals, d)
	}
	for _, t := range plan.Tasks {
		d := levelTask{PID: t.PID, Libc: orNull(t.Libc), Idle: orNull(t.Idle), Words: []levelWord{}, Registers: []levelRegister{}}
		for _, w := range t.Words {
			d.Words = append(d.Words, levelWord{fmt.Sprintf("%#x", w.Address), orNull(w.Object), w.What, len(w.From), level.Bytes(w.From), level.Bytes(w.To), orNull(w.SymbolFrom), orNull(w.SymbolTo)})
		}
		for _, r := range t.Registers {
			d.Registers = append(d.Registers, levelRegister{r.TID, r.Name, fmt.Sprintf("%#x", r.From), fmt.Sprintf("%#x", r.To), r.SymbolFrom, r.SymbolTo})
		}
		img.Tasks = append(img.Tasks, d)
	}
}
