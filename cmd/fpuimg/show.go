package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/compat"
)

type showOptions struct {
	regs, json, redact bool
	as                 string
	component          []string
	tid                []int
	area               bool
	host               string
	elfCore            string

	input    checkpoint.Options
	features xstate.Features // of --component; all if it is not given
	lanes    laneFormat
	unseen   map[int]bool // threads of --tid that no input has had yet
}

func setupShow(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	var o showOptions
	fs.BoolVar(&o.regs, "regs", false, "print every register")
	fs.StringVar(&o.as, "as", "hex", "print every register, the vector ones as `LANES`: hex (the default), f32, f64, i8, i16, i32, i64, u8, u16, u32 or u64")
	fs.StringSliceVar(&o.component, "component", nil, "only these state components: `NAME`[,NAME]...")
	fs.IntSliceVar(&o.tid, "tid", nil, "only these threads: `TID`[,TID]...")
	fs.BoolVar(&o.json, "json", false, "print one JSON document")
	fs.BoolVar(&o.redact, "redact", false, "print states, no register values")
	fs.BoolVar(&o.area, "xsave-area", false, "read each input as a bare XSAVE area, of standard or compacted format")
	fs.StringVar(&o.host, "host", "", "with --xsave-area, or an ELF core that does not say so, the machine whose layout it has: this one or `PROFILE`")
	fs.StringVar(&o.elfCore, "elf-core", "", "write the registers of all threads as an ELF core to `FILE`, for a debugger; - is standard output")
	return func(s *cli.IO, args []string) (cli.Exit, error) {
		o.regs = o.regs || fs.Changed("as")
		var err error
		if o.input.Machine, err = storedBy(s, o.host, args); err != nil {
			return 0, err
		}
		if err := o.complete(); err != nil {
			return 0, err
		}
		args = inputs(args)
		switch {
		case o.elfCore != "" && len(args) != 1:
			return 0, &cli.UsageError{Err: errors.New("--elf-core takes one input"), Hint: "write a core of each in a run of its own"}
		case o.elfCore != "" && o.redact:
			return 0, &cli.UsageError{Err: errors.New("--elf-core writes every register"), Hint: "leave out --redact"}
		case o.elfCore == "-" && o.json:
			return 0, &cli.UsageError{Err: errors.New("--json and the ELF core would both go to standard output"), Hint: "--elf-core=FILE"}
		case o.elfCore == "-" && s.OutIsTerminal():
			return 0, &cli.UsageError{Err: errors.New("an ELF core is binary, and standard output is a terminal"), Hint: "--elf-core=FILE"}
		}
		return o.run(s, args)
	}
}

func (o *showOptions) complete() (err error) {
	o.input.XSaveArea = o.area
	if o.lanes, err = parseLanes(o.as); err != nil {
		return err
	}
	o.unseen = map[int]bool{}
	for _, tid := range o.tid {
		o.unseen[tid] = true
	}
	o.features, err = parseComponents(o.component)
	return err
}

// shown is one image. What is about its threads is there once they were read.
type shown struct {
	path    string
	kind    checkpoint.Kind
	ckpt    *checkpoint.Checkpoint // nil if it cannot be read
	cpu     *xstate.CPU
	threads int          // how many; there may be too many to keep them
	tasks   map[int]bool // that they belong to, 0 if unknown
	groups  []group      // that they fall into, for a table
	tids    map[group][]int
	export  []codec.Thread // with --elf-core
	errs    []error

	*compat.Judgement // without a target; only threads with findings, none with --json
}

func (o *showOptions) run(s *cli.IO, paths []string) (cli.Exit, error) {
	code := cli.OK
	doc := &jsonStream{s: s}
	if o.json {
		if err := doc.open(showDoc{Schema: "fpuimg.show/1", Images: []showImage{}}); err != nil {
			return code, err
		}
	}
	printed := false
	var export []codec.Thread
	for img := range o.images(s, paths) {
		if o.json {
			if err := o.document(doc, img); err != nil {
				return code, err
			}
		} else {
			o.read(img, nil)
		}
		export = append(export, img.export...)
		for _, err := range img.errs {
			s.Error(err)
			s.Hint(inputHint(img.path, err))
			code = cli.Worst(code, cli.Damaged)
		}
		if img.Judgement != nil && img.Verdict == compat.Damaged {
			code = cli.Worst(code, cli.Damaged)
		}
		switch {
		case o.json, o.elfCore == "-":
			continue
		case img.threads == 0 && (len(img.errs) > 0 || len(o.tid) > 0):
			continue
		case printed:
			fmt.Fprintln(s.Out)
		}
		if err := o.text(s, img); err != nil {
			s.Errorf("%v", err)
			code = cli.Worst(code, cli.Damaged)
		}
		printed = true
	}
	if o.json {
		if err := doc.close(nil); err != nil {
			return code, err
		}
	}
	missing := false
	for _, tid := range o.tid {
		if o.unseen[tid] {
			s.Errorf("no thread %d in %s", tid, strings.Join(paths, " "))
			missing = true
		}
	}
	if missing {
		s.Hint("without --tid, fpuimg show lists all threads")
		code = cli.Worst(code, cli.Damaged)
	}
	if o.elfCore != "" && (len(export) > 0 || code == cli.OK) {
		return code, o.export(s, export)
	}
	return code, nil
}

// images opens what the paths hold, one after the other.
func (o *showOptions) images(s *cli.IO, paths []string) iter.Seq[*shown] {
	return func(yield func(*shown) bool) {
		for _, path := range paths {
			all, err := openAll(s, path, o.input)
			if err == nil && o.elfCore != "" { // threads of two checkpoints may have the same number
				_, err = checkpoint.Only(path, all)
			}
			if err != nil {
				if !yield(&shown{path: path, kind: checkpoint.KindCRIU, errs: []error{err}}) {
					return
				}
				continue
			}
			for _, f := range all {
				img := &shown{path: f.Path, kind: checkpoint.KindArchive, errs: []error{f.Err}}
				if ckpt := f.Checkpoint; ckpt != nil {
					img.kind, img.ckpt, img.errs = ckpt.Kind, ckpt, slices.Clone(ckpt.Problems)
					if ckpt.CPUInfo != nil {
						img.cpu = ckpt.CPUInfo.CPU()
					} else {
						img.cpu = glibcCPU(ckpt)
					}
				}
				if !yield(img) {
					return
				}
			}
		}
	}
}

// read reads the threads of an image and judges each by itself, without a target.
// do, if any, gets one at a time.
func (o *showOptions) read(img *shown, do func(codec.Thread, *compat.Report) error) error {
	if img.ckpt == nil {
		return nil
	}
	img.tasks, img.tids = map[int]bool{}, map[group][]int{}
	img.Judgement = compat.Judge(compat.Target{}, compat.Policy{})
	img.Foreign = foreign(img.kind)
	for th, err := range o.threads(img.ckpt) {
		o.unseen[th.TID] = false
		if err != nil {
			img.errs = codec.AppendFault(img.errs, err)
			continue
		}
		img.threads++
		img.tasks[th.PID] = true
		if o.elfCore != "" {
			img.export = append(img.export, th)
		}
		r := img.Thread(convert.Subject(img.ckpt, th))
		last := len(img.Threads) - 1
		if o.redact {
			r = new(*r) // others share it
			r.Findings = o.findings(r.Findings)
			img.Threads[last].Report = r
		}
		if o.json || len(r.Findings) == 0 {
			img.Threads = img.Threads[:last]
		}
		if do != nil {
			if err := do(th, r); err != nil {
				return err
			}
			continue
		}
		g := o.group(th)
		if img.tids[g] == nil {
			img.groups = append(img.groups, g)
		}
		img.tids[g] = append(img.tids[g], th.TID)
	}
	return nil
}

// threads yields the threads to show.
func (o *showOptions) threads(ckpt *checkpoint.Checkpoint) iter.Seq2[codec.Thread, error] {
	return func(yield func(codec.Thread, error) bool) {
		walk := ckpt.Scan()
		if o.elfCore != "" { // which keeps them
			walk = ckpt.Threads()
		}
		for th, err := range walk {
			if len(o.tid) > 0 && !slices.Contains(o.tid, th.TID) {
				continue
			}
			if !yield(th, err) {
				return
			}
		}
	}
}

// findings returns the findings as they may be shown.
func (o *showOptions) findings(fs []compat.Finding) []compat.Finding {
	if !o.redact {
		return fs
	}
	out := slices.Clone(fs)
	for i := range out {
		out[i] = out[i].Redacted()
	}
	return out
}

// showAdvice is what there is to say without a target.
var showAdvice = view.Advice{General: true}

// components yields the components to show, all but absent ones.
func (o *showOptions) components(s *xstate.State) (out []componentDoc) {
	out = []componentDoc{}
	for f, st := range s.Present() {
		if !o.features.Has(f) {
			continue
		}
		size := 0
		if c := f.Component(); c != nil {
			size = c.Size
		}
		out = append(out, componentDoc{int(f), f.String(), st.String(), size})
	}
	return out
}

// text prints an image as a table of threads, then what there is to say. The table
// stands first, and there may be too many threads to keep them: registers below it are
// read again. The error says that they are not those of the table.
func (o *showOptions) text(s *cli.IO, img *shown) error {
	o.title(s, img)
	if img.threads > 0 {
		o.table(s, img)
	}
	if img.ckpt != nil {
		annotationTable(s, img.ckpt.Annotations)
	}
	if img.Judgement != nil {
		view.Findings(s, nil, img.Threads, o.findings(img.Findings), showAdvice)
	}
	if !o.regs || img.ckpt == nil {
		return nil
	}
	again := map[group]int{}
	for th, err := range o.threads(img.ckpt) {
		if err == nil { // else it is told
			again[o.group(th)]++
			o.registers(s, &th)
		}
	}
	for g, tids := range img.tids {
		if again[g] != len(tids) {
			return fmt.Errorf("%s: another program changed it while it was read", img.path)
		}
	}
	return nil
}

// title says what was read. The CPU has a line of its own where it must.
func (o *showOptions) title(s *cli.IO, img *shown) {
	path := cli.Printable(img.path)
	text := ": "
	var container string
	if img.ckpt != nil {
		text += kindNames[img.ckpt.Kind]
		container = containerText(img.ckpt.Container)
	}
	switch {
	case img.threads == 0:
		text += "no threads"
	case img.tasks[0]:
		text += view.Count(img.threads, "thread")
	default:
		text += view.Count(img.threads, "thread") + " in " + view.Count(len(img.tasks), "task")
	}
	fmt.Fprint(s.Out, s.OutStyle(color.Bold).Sprint(path), text)
	var more []string
	if container != "" {
		more = append(more, container)
	}
	if img.cpu != nil {
		more = append(more, "dumped on "+cpuName(img.cpu))
	}
	at := view.Width(path + text)
	for _, part := range more {
		if at += len(", ") + view.Width(part); at < s.Width() {
			fmt.Fprint(s.Out, ", "+part)
		} else {
			fmt.Fprint(s.Out, "\n"+part)
			at = view.Width(part)
		}
	}
	fmt.Fprintln(s.Out)
}

// annotationTable prints what the OCI image says of the checkpoint.
func annotationTable(s *cli.IO, annotations []checkpoint.Annotation) {
	var rows [][]string
	width := 0
	annotations = slices.DeleteFunc(slices.Clone(annotations), func(a checkpoint.Annotation) bool { return strings.TrimSpace(a.Value) == "" })
	for _, a := range annotations {
		width = max(width, view.Width(cli.Printable(a.Name)))
	}
	for _, a := range annotations {
		name := cli.Printable(a.Name)
		for _, line := range cli.Wrap(strings.Fields(cli.Printable(strings.Join(strings.Fields(a.Value), " "))), max(s.Width()-width-2, 20)) {
			rows = append(rows, []string{name, line})
			name = ""
		}
	}
	if len(rows) > 0 {
		view.Table(s, []string{"ANNOTATIONS", ""}, rows)
	}
}

func cpuName(c *xstate.CPU) string {
	name := cmp.Or(cli.Printable(c.ModelName), "an unnamed CPU")
	if c.Family != nil && c.Model != nil && c.Stepping != nil {
		name += fmt.Sprintf(" (%s %d/%d/%d)", c.Vendor, *c.Family, *c.Model, *c.Stepping)
	}
	return name
}

// group is what a row tells of a thread, and so the key by which threads share one.
type group struct {
	task, format, bv string
	area             statuses
}

func (o *showOptions) group(t codec.Thread) group {
	st := t.State
	g := group{cli.Printable(t.Comm), st.Format.String(), "-", newStatuses(st, o.features)}
	if st.Compat {
		g.format += " 32-bit"
	}
	if st.Format == xstate.FormatXSave {
		g.bv = hex(uint64(st.BV))
	}
	return g
}

// table prints the threads, those in the same state in one row.
func (o *showOptions) table(s *cli.IO, img *shown) {
	header := []string{"THREADS", "TASK", "FORMAT", "XSTATE_BV"}
	rows := make([][]string, len(img.groups))
	areas := make([]statuses, len(img.groups))
	for i, g := range img.groups {
		rows[i] = []string{view.Range(img.tids[g]), g.task, g.format, g.bv}
		areas[i] = g.area
	}
	width := mapWidth(s, append(rows, header))
	m := newAreaMap(areas, o.features, width)
	var lines [][]string
	for i, row := range rows {
		for _, line := range m.draw(s, &areas[i]) {
			lines = append(lines, append(row, line))
			row = []string{"", "", "", ""}
		}
	}
	view.Table(s, append(header, m.legend(width)), lines)
}

// mapWidth is what the other columns leave of the line to the map.
func mapWidth(s *cli.IO, rows [][]string) int {
	left := s.Width() - 1
	for i := range rows[0] {
		width := 0
		for _, row := range rows {
			width = max(width, view.Width(row[i]))
		}
		left -= width + 2
	}
	return left
}

// The JSON document of schema fpuimg.show/1.
type showDoc struct {
	Schema string      `json:"schema"`
	Images []showImage `json:"images"`
}

type showImage struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
	// Container is there for what an engine packed or left a description of.
	Container *containerDoc `json:"container,omitempty"`
	// Annotations are there for what lies in an OCI image that says something of it.
	Annotations []annotationDoc `json:"annotations,omitempty"`
	CPU         json.RawMessage `json:"cpu"`
	Threads     []showThread    `json:"threads"`
}

// showImageEnd is the rest of a showImage: what is known when its threads were read.
type showImageEnd struct {
	Findings []view.FindingDoc `json:"findings"`
	Error    *errorDoc         `json:"error"`
}

type annotationDoc struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type containerDoc struct {
	Name    string `json:"name"`
	Image   string `json:"image"`
	Engine  string `json:"engine"`
	Runtime string `json:"runtime"`
}

type showThread struct {
	PID        int               `json:"pid"`
	TID        int               `json:"tid"`
	Comm       string            `json:"comm"`
	File       string            `json:"file"`
	Mode       string            `json:"mode"`
	Format     string            `json:"format"`
	XStateBV   string            `json:"xstate_bv"`
	Components []componentDoc    `json:"components"`
	Findings   []view.FindingDoc `json:"findings"`
	Registers  *registersDoc     `json:"registers,omitempty"`
}

type componentDoc struct {
	Bit   int    `json:"bit"`
	Name  string `json:"name"`
	State string `json:"state"`
	Size  int    `json:"size"`
}

// document reads an image and writes it.
func (o *showOptions) document(doc *jsonStream, img *shown) error {
	d := showImage{Path: img.path, Kind: string(img.kind), Threads: []showThread{}}
	if img.ckpt != nil {
		d.Container = (*containerDoc)(img.ckpt.Container)
		for _, a := range img.ckpt.Annotations {
			d.Annotations = append(d.Annotations, annotationDoc(a))
		}
	}
	var err error
	if d.CPU, err = profileJSON(img.cpu); err != nil {
		return err
	}
	if err := doc.open(d); err != nil {
		return err
	}
	if err := o.read(img, func(t codec.Thread, r *compat.Report) error {
		return doc.element(o.threadDoc(t, img.ckpt.Label(t), r.Findings))
	}); err != nil {
		return err
	}
	end := showImageEnd{Findings: []view.FindingDoc{}}
	if img.Judgement != nil {
		end.Findings = showAdvice.FindingDocs(o.findings(img.Findings))
	}
	if len(img.errs) > 0 {
		end.Error = newErrorDoc(img.path, img.errs[0])
	}
	return doc.close(end)
}

func (o *showOptions) threadDoc(t codec.Thread, file string, findings []compat.Finding) showThread {
	st := t.State
	d := showThread{PID: t.PID, TID: t.TID, Comm: t.Comm, File: baseName(file), Mode: "native",
		Format: st.Format.String(), XStateBV: hex(uint64(st.BV)),
		Components: o.components(st), Findings: showAdvice.FindingDocs(findings)}
	if st.Compat {
		d.Mode = "compat"
	}
	if o.regs && !o.redact {
		d.Registers = o.registersDoc(st)
	}
	return d
}
