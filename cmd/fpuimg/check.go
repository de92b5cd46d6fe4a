package main

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/compat"
	"github.com/fpuimg/fpuimg/internal/ahead"
)

type checkOptions struct {
	hostArgs []string
	hostDirs []string
	json     bool
	area     bool
	code     codeOptions
	noMemory bool
	criuArg  string
	html     string

	criu  xstate.Release
	hosts []*host
}

func setupCheck(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	var o checkOptions
	fs.StringArrayVar(&o.hostArgs, "host", nil, "check against this machine or `PROFILE`: a file, a directory with a cpuinfo.img, or a name such as x86-64-v3 or znver3; may be repeated")
	fs.StringArrayVar(&o.hostDirs, "hosts", nil, "check against each machine that a file in `DIR` describes; may be repeated")
	o.code.flags(fs, "judge the code too, by the programs' files below `DIR`: /, or a container's root file system; may be repeated")
	fs.BoolVar(&o.noMemory, "no-memory", false, "look at registers alone, not at the dumped memory")
	fs.StringVar(&o.criuArg, "criu", "", fmt.Sprintf("predict this `VERSION` of CRIU, %v to %v (default %[2]v)", compat.OldestCRIU, xstate.NewestCRIU))
	fs.BoolVar(&o.json, "json", false, "print one JSON document")
	fs.StringVar(&o.html, "html", "", "write a page with all images and machines to this new `file`")
	fs.BoolVar(&o.area, "xsave-area", false, "read each input as a bare XSAVE area, of standard or compacted format")
	return func(s *cli.IO, args []string) (cli.Exit, error) {
		if err := checkHosts(o.hostArgs, args); err != nil {
			return 0, err
		}
		if len(o.hostArgs)+len(o.hostDirs) == 0 {
			o.hostArgs = []string{liveHost}
		}
		o.criu = xstate.NewestCRIU
		if fs.Changed("criu") {
			var err error
			if o.criu, err = compat.ParseRelease(o.criuArg); err != nil {
				return 0, &cli.UsageError{Err: fmt.Errorf("--criu: %w", err), Hint: "criu --version prints it"}
			}
		}
		if o.noMemory && len(o.code.dirs) > 0 {
			return 0, errNoMemoryRoot
		}
		if err := o.code.open(); err != nil {
			return 0, err
		}
		defer o.code.close()
		for _, arg := range o.hostArgs {
			h, err := loadHost(s, arg)
			if err != nil {
				return 0, err
			}
			o.hosts = append(o.hosts, h)
		}
		for _, dir := range o.hostDirs {
			hosts, err := hostsIn(dir)
			if err != nil {
				return 0, err
			}
			o.hosts = append(o.hosts, hosts...)
		}
		return o.run(s, inputs(args))
	}
}

// checked is one image against every host.
type checked struct {
	path    string
	kind    checkpoint.Kind
	errs    []error
	code    []*facts.Process // nil if it was not looked at
	tasks   []string         // the names of the first, each once
	exit    cli.Exit
	results []*result
	cells   []cell // of results, where these are many
}

// maxTaskNames is how many names of tasks the page tells.
const maxTaskNames = 8

// result is one image against one host.
type result struct {
	host *host
	*compat.Judgement
	advice view.Advice
}

func (o *checkOptions) run(s *cli.IO, paths []string) (cli.Exit, error) {
	code := cli.OK
	doc := jsonStream{s: s}
	if o.json {
		head := checkDoc{Schema: "fpuimg.check/1", Hosts: []*cpuid.Profile{}, Images: []checkImage{}}
		for _, h := range o.hosts {
			head.Hosts = append(head.Hosts, cpuid.NewProfile(h.CPU))
		}
		if err := doc.open(head); err != nil {
			return 0, err
		}
	}
	table := newMatrix(s, o.hosts)
	var page *pageMaker
	if o.html != "" {
		page = newPageMaker(o.hosts)
	}
	printed := false
	for img := range o.images(s, paths) {
		for _, err := range img.errs {
			s.Error(err)
			s.Hint(inputHint(img.path, err))
		}
		if len(img.errs) > 0 {
			s.Hint(misplacedProfile(img.path))
		}
		code = cli.Worst(code, img.exit)
		if page != nil {
			if err := page.add(img); err != nil {
				return 0, err
			}
		}
		switch {
		case o.json:
			if err := img.document(&doc); err != nil {
				return 0, err
			}
		case len(o.hosts) > 1:
			table.add(img)
		case len(img.results) > 0:
			if printed {
				fmt.Fprintln(s.Out)
			}
			printed = true
			o.text(s, img)
		}
	}
	switch {
	case o.json:
		if err := doc.close(nil); err != nil {
			return 0, err
		}
	case len(o.hosts) > 1:
		table.print()
	}
	if page != nil {
		b, err := page.page()
		if err == nil {
			err = writeNew(o.html, "--html", b)
		}
		if err != nil {
			return 0, err
		}
	}
	return code, nil
}

func exitOf(v compat.Verdict) cli.Exit {
	switch v {
	case compat.Compatible:
		return cli.OK
	case compat.Damaged:
		return cli.Damaged
	}
	return cli.Refused
}

// images checks what the paths hold, several at once, and yields it in their order.
func (o *checkOptions) images(s *cli.IO, paths []string) iter.Seq[*checked] {
	return func(yield func(*checked) bool) {
		worker := func() func(string) []*checked {
			judges := o.judges()
			return func(path string) []*checked { return o.load(s, path, judges) }
		}
		n := ahead.Workers(min(len(paths), runtime.GOMAXPROCS(0)), checkpoint.MaxOpen)
		if i := slices.Index(paths, "-"); i >= 0 && slices.Contains(paths[i+1:], "-") {
			n = 1 // the first of them is to have what there is
		}
		for images := range ahead.Map(n, slices.Values(paths), worker) {
			for _, img := range images {
				if !yield(img) {
					return
				}
			}
		}
	}
}

// judges returns what judges for each of the hosts.
func (o *checkOptions) judges() []*compat.Cache {
	var judges []*compat.Cache
	for _, h := range o.hosts {
		judges = append(judges, compat.NewCache(compat.Target{Host: h.CPU, CRIU: o.criu}, compat.Policy{}))
	}
	return judges
}

// load checks what a path holds.
func (o *checkOptions) load(s *cli.IO, path string, judges []*compat.Cache) []*checked {
	spool := o.code.spool()
	defer spool.Close()
	all, err := openAll(s, path, checkpoint.Options{XSaveArea: o.area, Spool: spool})
	if err != nil {
		return []*checked{{path: path, kind: checkpoint.KindCRIU, errs: []error{err}, exit: cli.Damaged}}
	}
	var out []*checked
	for _, f := range all {
		if f.Err != nil { // there is nothing to judge
			out = append(out, &checked{path: f.Path, kind: checkpoint.KindArchive, errs: []error{f.Err}, exit: cli.Damaged})
			continue
		}
		img := o.check(f.Checkpoint, judges)
		if len(img.errs) > 0 {
			img.exit = cli.Damaged
		}
		for _, r := range img.results {
			img.exit = cli.Worst(img.exit, exitOf(r.Verdict))
		}
		if !o.json && len(img.results) > 1 {
			for _, r := range img.results {
				img.cells = append(img.cells, r.cell())
			}
			if o.html == "" {
				img.results = nil
			}
		}
		out = append(out, img)
	}
	return out
}

// foreign reports whether CRIU reads no such input, and convert changes none.
func foreign(kind checkpoint.Kind) bool {
	return kind != checkpoint.KindCRIU && kind != checkpoint.KindArchive
}

// partOf tells which part of a checkpoint an error is about.
func partOf(err error) compat.Part {
	if _, ok := errors.AsType[*checkpoint.CPUInfoError](err); ok {
		return compat.CPUInfo
	}
	return compat.Images
}

// check reads an image once and holds it against every host.
func (o *checkOptions) check(ckpt *checkpoint.Checkpoint, judges []*compat.Cache) *checked {
	img := &checked{path: ckpt.Path, kind: ckpt.Kind}
	var source *xstate.CPU
	if ckpt.CPUInfo != nil {
		source = ckpt.CPUInfo.CPU()
	}
	path := view.Path(ckpt.Path)
	for i, h := range o.hosts {
		r := &result{host: h, Judgement: judges[i].Judge()}
		if r.Foreign = foreign(img.kind); !r.Foreign { // convert takes it
			r.advice.Convert = path
			r.advice.Force = "fpuimg convert " + view.Quote(h.option) + " --force " + path
		}
		img.results = append(img.results, r)
	}
	if o.criu.Before(xstate.NewestCRIU) && !foreign(img.kind) { // which reads every form
		pages := pagesOf(ckpt)
		for _, r := range img.results {
			r.Pages(pages)
		}
	}
	damage := func(err error) {
		img.errs = codec.AppendFault(img.errs, err)
		for _, r := range img.results {
			r.Damage(partOf(err))
		}
	}
	for _, err := range ckpt.Problems {
		damage(err)
	}
	var likeness []byte
	judge := func(th codec.Thread) {
		var subject compat.Thread
		subject, likeness = convert.Subject(ckpt, th).Alike(likeness)
		for _, r := range img.results {
			r.Thread(subject)
		}
	}
	look := !o.noMemory && (o.code.roots != nil || hasMemory(ckpt))
	if !look {
		img.taken(source)
	}
	var threads []codec.Thread // the code is judged before them
	walk := ckpt.Scan()
	if look { // which keeps them
		walk = ckpt.Threads()
	}
	for th, err := range walk {
		if err == nil && th.TID == th.PID && th.Comm != "" && len(img.tasks) < maxTaskNames && !slices.Contains(img.tasks, th.Comm) {
			img.tasks = append(img.tasks, th.Comm)
		}
		switch {
		case err != nil:
			damage(err)
		case look:
			threads = append(threads, th)
		default:
			judge(th)
		}
	}
	if look {
		img.code = o.code.look(ckpt, threads)
		img.taken(source)
	}
	for _, th := range threads {
		judge(th)
	}
	for _, r := range img.results {
		if o.code.roots != nil && !r.Foreign && !r.unlevelled() {
			r.advice.Level = "fpuimg level " + view.Quote(r.host.option) + " " + o.code.words() + " " + r.advice.Convert
		}
	}
	return img
}

// pagesOf returns how the memory of a checkpoint is dumped.
func pagesOf(ckpt *checkpoint.Checkpoint) compat.Pages {
	switch m, err := ckpt.Pagemap(); {
	case err != nil:
		return compat.Pages{Unread: err.Error()}
	case m != nil:
		return compat.Pages{Wide: m.Wide, Packed: m.Compressed}
	}
	return compat.Pages{}
}

// unlevelled reports whether a checkpoint is known to be refused by level.
func (r *result) unlevelled() bool {
	refused := func(f compat.Finding) bool {
		return f.Rule == compat.ThreadInCode || f.Rule == compat.CompiledISA || f.Rule == compat.JITCode || f.Integrity() && f.Severity == compat.Fatal
	}
	return slices.ContainsFunc(r.Tasks, func(t compat.Task) bool { return slices.ContainsFunc(t.Findings, refused) }) ||
		slices.ContainsFunc(slices.Collect(r.Reports()), func(r *compat.Report) bool { return slices.ContainsFunc(r.Findings, refused) || len(r.Lost) > 0 })
}

// taken tells the judgements what is known of the code, and the machine.
func (img *checked) taken(source *xstate.CPU) {
	for _, r := range img.results {
		if img.code != nil {
			r.Code(img.code)
		}
		r.Taken(source)
	}
}

// unchecked is what the headline adds where nobody knows whether the code runs.
func unchecked(r *result) string {
	if r.Unchecked {
		return ", code not checked"
	}
	return ""
}

// text prints the verdict on one host: the tasks, the threads, why, and what CRIU will
// do.
func (o *checkOptions) text(s *cli.IO, img *checked) {
	r := img.results[0]
	fmt.Fprintf(s.Out, "%s on %s: %s\n", s.OutStyle(color.Bold).Sprint(cli.Printable(img.path)), cli.Printable(r.host.Name),
		view.VerdictStyle(s, r.Verdict).Sprint(r.Verdict)+unchecked(r))
	if o.code.roots != nil && img.code != nil {
		view.Table(s, []string{"TASKS", "LIBC", "VERDICT", "FUNCTIONS", "LAZY BINDING"}, taskRows(img.code, r.Tasks))
		if rows := objectRows(img.code, r.host.CPU); len(rows) > 0 {
			view.Table(s, []string{"FUNCTIONS", "FILE", "OBJECT"}, rows)
		}
	}
	var rows [][]string
	for _, group := range view.Threads(r.Threads, func(r *compat.Report) string { return fmt.Sprint(r.From, r.Verdict, checkLines(r)) }) {
		tids := view.Range(group.TIDs)
		first := []string{tids, group.From.String(), group.Verdict.String()}
		for _, l := range checkLines(group.Report) {
			for _, part := range cli.Wrap(strings.Fields(l[1]), max(s.Width()-len(tids)-40, 20)) {
				rows = append(rows, append(first, l[0], part))
				first, l[0] = []string{"", "", ""}, ""
			}
		}
		if first[0] != "" {
			rows = append(rows, append(first, "fits", "-"))
		}
	}
	if len(rows) > 0 {
		view.Table(s, []string{"THREADS", "FORMAT", "VERDICT", "", "COMPONENTS"}, rows)
	}
	view.Findings(s, r.Tasks, r.Threads, r.Findings, r.advice)
	if !r.Foreign {
		r.predictions(s)
	}
}

// predictions prints what CRIU will do; values of --cpu-cap with the same outcome
// share a row.
func (r *result) predictions(s *cli.IO) {
	var order []string
	caps := map[string][]string{}
	width := len("--cpu-cap")
	for _, c := range compat.Caps() {
		p := r.Predict(c)
		what := string(p.Outcome)
		if p.Class != nil {
			what += " (" + string(*p.Class) + ")"
		}
		if p.Reason != "" {
			what += ": " + p.Reason
		}
		if caps[what] == nil {
			order = append(order, what)
		}
		caps[what] = append(caps[what], string(c))
		width = max(width, len(strings.Join(caps[what], ", ")))
	}
	var rows [][]string
	for _, what := range order {
		first := strings.Join(caps[what], ", ")
		for _, line := range cli.Wrap(strings.Fields(what), max(s.Width()-width-2, 20)) {
			rows = append(rows, []string{first, line})
			first = ""
		}
	}
	view.Table(s, []string{"--cpu-cap", fmt.Sprintf("WHAT CRIU %v DOES", r.CRIU())}, rows)
}

// checkLines groups the components by what becomes of them on the host, in words
// that promise no conversion.
func checkLines(r *compat.Report) [][2]string {
	lines := view.ActionLines(r)
	for i, l := range lines {
		lines[i][0] = map[string]string{"refuse": "lost", "strip": "lost", "drop": "unused", "keep": "fits", "init": "INIT", "extend": "INIT"}[l[0]]
	}
	if r.Unknown != 0 {
		lines = append(lines, [2]string{"unknown", strings.Join(r.Unknown.Names(), " ")})
	}
	return lines
}

// The JSON document of schema fpuimg.check/1.
type checkDoc struct {
	Schema string           `json:"schema"`
	Hosts  []*cpuid.Profile `json:"hosts"`
	Images []checkImage     `json:"images"`
}

type checkImage struct {
	Path    string        `json:"path"`
	Kind    string        `json:"kind"`
	Error   *errorDoc     `json:"error"`
	Code    *codeDoc      `json:"code"`
	Results []checkResult `json:"results"`
}

type checkResult struct {
	Host     int               `json:"host"`
	Verdict  compat.Verdict    `json:"verdict"`
	Findings []view.FindingDoc `json:"findings"`
	CRIU     criuDoc           `json:"criu"`
	Release  string            `json:"criu_version"`
	Tasks    []taskResult      `json:"tasks"`
	Threads  []checkThread     `json:"threads"`
}

type criuDoc struct {
	Default compat.Prediction `json:"default"`
	None    compat.Prediction `json:"none"`
	FPU     compat.Prediction `json:"fpu"`
	INS     compat.Prediction `json:"ins"`
	CPU     compat.Prediction `json:"cpu"`
}

type checkThread struct {
	TID      int               `json:"tid"`
	Verdict  compat.Verdict    `json:"verdict"`
	Findings []view.FindingDoc `json:"findings"`
	Lost     []view.LossDoc    `json:"lost"`
}

// document writes the image as an element of the list of images, one thread after the
// other.
func (img *checked) document(w *jsonStream) error {
	d := checkImage{Path: img.path, Kind: string(img.kind), Code: newCodeDoc(img.code), Results: []checkResult{}}
	if len(img.errs) > 0 {
		d.Error = newErrorDoc(img.path, img.errs[0])
	}
	if err := w.open(d); err != nil {
		return err
	}
	for i, r := range img.results {
		rd := checkResult{Host: i, Verdict: r.Verdict, Findings: r.advice.FindingDocs(r.Findings), Threads: []checkThread{}, Tasks: []taskResult{},
			Release: r.CRIU().String(),
			CRIU:    criuDoc{r.Predict(compat.CapDefault), r.Predict(compat.CapNone), r.Predict(compat.CapFPU), r.Predict(compat.CapINS), r.Predict(compat.CapCPU)}}
		for _, t := range r.Tasks {
			rd.Tasks = append(rd.Tasks, taskResult{t.PID, t.Verdict, t.Unfit, r.advice.FindingDocs(t.Findings)})
		}
		if err := w.open(rd); err != nil {
			return err
		}
		docs := map[*compat.Report]checkThread{}
		for _, t := range r.Threads {
			doc, ok := docs[t.Report]
			if !ok {
				doc = checkThread{0, t.Verdict, r.advice.FindingDocs(t.Findings), view.LossDocs(t.Report)}
				docs[t.Report] = doc
			}
			doc.TID = t.TID
			if err := w.element(doc); err != nil {
				return err
			}
		}
		if err := w.close(nil); err != nil {
			return err
		}
	}
	return w.close(nil)
}
