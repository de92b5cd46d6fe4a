package main

import (
	"cmp"
	"errors"
	"fmt"
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

type convertOptions struct {
	destination
	to, host    string
	features    []string
	force       bool
	keepCPUInfo bool

	target compat.Target
	named  *host
}

func setupConvert(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	o := convertOptions{destination: destination{verb: "fpuimg convert", done: "converted"}}
	fs.StringVar(&o.to, "to", "", "the `format` to convert to: none, fxsave or xsave")
	fs.StringSliceVar(&o.features, "features", nil, "with --to=xsave, the state `components` to keep and add: x87,SSE,AVX")
	fs.StringVar(&o.host, "host", "", "what fits this machine or `PROFILE`: a file, a directory with a cpuinfo.img, or a name such as x86-64-v3 or znver3")
	fs.BoolVar(&o.force, "force", false, "go ahead where registers are lost")
	fs.BoolVar(&o.keepCPUInfo, "keep-cpuinfo", false, "leave cpuinfo.img as it is")
	o.code.flags(fs, "prove by the programs' files below `DIR` which registers the threads have done with; may be repeated")
	o.destination.flags(fs)
	return o.run(&o, "fpuimg.convert/1")
}

// complete checks the options and works out the target.
func (o *convertOptions) complete(s *cli.IO, args []string) error {
	if o.to == "" && len(o.features) > 0 {
		o.to = "xsave"
	}
	if o.to == "" && o.host == "" {
		return &cli.UsageError{Err: errors.New("convert to what?"), Hint: "--to=none|fxsave|xsave, or --host[=PROFILE]"}
	}
	if err := checkHosts([]string{o.host}, args); err != nil {
		return err
	}
	if err := o.check(args); err != nil {
		return err
	}
	if o.to != "" {
		f, ok := xstate.ParseFormat(o.to)
		if !ok {
			return cli.Unknown(fmt.Errorf("--to=%s: unknown format", o.to), "--to=", o.to, "the formats", xstate.FormatNames())
		}
		o.target.Format = &f
	}
	if len(o.features) > 0 {
		if o.to != "xsave" {
			return &cli.UsageError{Err: fmt.Errorf("--features goes with --to=xsave, not --to=%s", o.to), Hint: "--to=xsave --features=" + strings.Join(o.features, ",")}
		}
		set, err := parseComponents(o.features)
		if err != nil {
			return err
		}
		o.target.Features = &set
	}
	if o.host != "" {
		h, err := loadHost(s, o.host)
		if err != nil {
			return err
		}
		o.named, o.target.Host = h, h.CPU
		o.suffix = h.short
	}
	if o.to != "" {
		o.suffix = o.to
	}
	return nil
}

// command is what a user types to force this conversion of path.
func (o *convertOptions) command(path string) string {
	words := []string{"fpuimg convert"}
	if o.to != "" {
		words = append(words, "--to="+o.to)
	}
	if len(o.features) > 0 {
		words = append(words, "--features="+strings.Join(o.features, ","))
	}
	if o.named != nil {
		words = append(words, view.Quote(o.named.option))
	}
	words = append(words, "--force")
	if o.keepCPUInfo {
		words = append(words, "--keep-cpuinfo")
	}
	words = append(words, o.options()...)
	return strings.Join(append(words, view.Path(path)), " ")
}

// conversion is the work on one checkpoint.
type conversion struct {
	*convert.Plan
	o     *convertOptions
	image convertImage
}

func (o *convertOptions) none(path string, err *errorDoc) any {
	return convertImage{Path: path, Error: err, Findings: []view.FindingDoc{}, CPUInfo: []fieldDoc{}, Threads: []convertThread{}}
}

func (o *convertOptions) begin(_ *cli.IO, _ string, ckpt *checkpoint.Checkpoint) (work, error) {
	options := convert.Options{Target: o.target, Policy: compat.Policy{Force: o.force, KeepCPUInfo: o.keepCPUInfo}}
	if o.code.roots != nil {
		var threads []codec.Thread
		for th, err := range ckpt.Threads() {
			if err == nil { // else the plan tells
				threads = append(threads, th)
			}
		}
		options.Code = o.code.look(ckpt, threads)
	}
	plan, err := convert.NewPlan(ckpt, options)
	if err != nil {
		return nil, err
	}
	return &conversion{plan, o, newConvertImage(plan, o.advice(plan))}, nil
}

func (c *conversion) plan() *convert.Plan { return c.Plan }
func (c *conversion) changed() bool       { return c.Changed() }
func (c *conversion) refused() bool       { return c.Refused() }
func (c *conversion) doc() any            { return c.image }
func (c *conversion) fail(err *errorDoc)  { c.image.Error = err }
func (c *conversion) warn(s *cli.IO)      { view.Losses(s, c.Checkpoint.Path, c.o.dryRun, c.Threads) }

func (c *conversion) written(out string) {
	if out == "" {
		c.image.Changed = false
	} else {
		c.image.Output = &out
	}
}

// refuse says why nothing was written, and what would force it.
func (c *conversion) refuse(s *cli.IO) cli.Exit {
	o, plan, path := c.o, c.Plan, c.Checkpoint.Path
	if plan.Verdict == compat.Damaged {
		s.Errorf("%s: damaged, nothing was written", path)
		if !o.force && plan.OnlyLost() {
			s.Hint("if the process can do without what the image lacks: " + o.command(path))
		}
		return cli.Damaged
	}
	s.Errorf("%s: refused, nothing was written: %s", path, view.Price(plan.Threads))
	s.Hint("to do it all the same: " + o.command(path))
	return cli.Refused
}

// advice is what a report of the conversion offers.
func (o *convertOptions) advice(plan *convert.Plan) view.Advice {
	if o.force {
		return view.Advice{}
	}
	return view.Advice{Force: o.command(plan.Checkpoint.Path)}
}

// report prints what happens to each thread, then the findings.
func (c *conversion) report(s *cli.IO) {
	plan := c.Plan
	fmt.Fprintf(s.Out, "%s: %s, %s\n", s.OutStyle(color.Bold).Sprint(cli.Printable(plan.Checkpoint.Path)),
		view.Count(len(plan.Threads), "thread"), view.VerdictStyle(s, plan.Verdict).Sprint(plan.Verdict))
	view.Actions(s, plan.Threads)
	view.Findings(s, nil, plan.Threads, plan.Findings, c.o.advice(plan))
	for _, c := range plan.CPUInfo {
		printField(s, c)
	}
}

// printField prints what becomes of a field of cpuinfo.img.
func printField(s *cli.IO, c convert.FieldChange) {
	fmt.Fprintf(s.Out, "cpuinfo.img %s: %s -> %s\n", c.Field, cmp.Or(c.From, "absent"), cmp.Or(c.To, "absent"))
}

// convertImage is an image in the JSON document of schema fpuimg.convert/1.
type convertImage struct {
	Path     string            `json:"path"`
	Output   *string           `json:"output"`
	Verdict  *compat.Verdict   `json:"verdict"`
	Changed  bool              `json:"changed"`
	Error    *errorDoc         `json:"error"`
	Findings []view.FindingDoc `json:"findings"`
	CPUInfo  []fieldDoc        `json:"cpuinfo"`
	Threads  []convertThread   `json:"threads"`
}

type fieldDoc struct {
	Field string  `json:"field"`
	From  *string `json:"from"`
	To    *string `json:"to"`
}

type convertThread struct {
	TID     int              `json:"tid"`
	From    string           `json:"from"`
	To      string           `json:"to"`
	Actions []view.ActionDoc `json:"actions"`
	Lost    []view.LossDoc   `json:"lost"`
}

func newConvertImage(plan *convert.Plan, a view.Advice) convertImage {
	return convertImage{
		Path:     plan.Checkpoint.Path,
		Verdict:  &plan.Verdict,
		Changed:  plan.Changed() && !plan.Refused(),
		Findings: a.FindingDocs(view.AllFindings(plan.Threads, plan.Findings)),
		CPUInfo:  fieldDocs(plan.CPUInfo),
		Threads:  convertThreads(plan.Threads),
	}
}

// fieldDocs are the changed fields of cpuinfo.img in JSON.
func fieldDocs(changes []convert.FieldChange) []fieldDoc {
	list := []fieldDoc{}
	for _, c := range changes {
		list = append(list, fieldDoc{c.Field, orNull(c.From), orNull(c.To)})
	}
	return list
}

// convertThreads are what becomes of threads in JSON.
func convertThreads(threads []compat.Judged) []convertThread {
	list := []convertThread{}
	docs := map[*compat.Report]convertThread{}
	for _, t := range threads {
		doc, ok := docs[t.Report]
		if !ok {
			doc = convertThread{From: t.From.String(), To: t.To.String(), Actions: view.ActionDocs(t.Report), Lost: view.LossDocs(t.Report)}
			docs[t.Report] = doc
		}
		doc.TID = t.TID
		list = append(list, doc)
	}
	return list
}

func orNull(v string) *string {
	if v == "" {
		return nil
	}
	return &v
}
