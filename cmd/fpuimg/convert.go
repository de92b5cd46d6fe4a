package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

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
	to, host    string
	features    []string
	force       bool
	dryRun      bool
	output      string
	inPlace     bool
	keepCPUInfo bool
	json        bool
	compress    string
	code        codeOptions

	target compat.Target
	named  *host
}

// compressions are the values of --compress.
var compressions = []string{"none", "gzip", "zstd"}

func setupConvert(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	var o convertOptions
	fs.StringVar(&o.to, "to", "", "the `format` to convert to: none, fxsave or xsave")
	fs.StringSliceVar(&o.features, "features", nil, "with --to=xsave, the state `components` to keep and add: x87,SSE,AVX")
	fs.StringVar(&o.host, "host", "", "what fits this machine or `PROFILE`: a file, a directory with a cpuinfo.img, or a level such as x86-64-v3")
	fs.Lookup("host").NoOptDefVal = liveHost
	fs.BoolVar(&o.force, "force", false, "go ahead where registers are lost")
	fs.BoolVar(&o.dryRun, "dry-run", false, "print the report and write nothing")
	fs.StringVarP(&o.output, "output", "o", "", "write to this `path` instead of beside the input; - is standard output")
	fs.BoolVar(&o.inPlace, "in-place", false, "change the checkpoint itself and keep the originals as NAME.orig")
	fs.BoolVar(&o.keepCPUInfo, "keep-cpuinfo", false, "leave cpuinfo.img as it is")
	fs.StringVar(&o.compress, "compress", "", "compress a converted archive by `METHOD`: none, gzip or zstd; as it was if not given")
	o.code.flags(fs, "prove by the programs' files below `DIR` which registers the threads have done with; may be repeated")
	fs.BoolVar(&o.json, "json", false, "print one JSON document")
	return func(s *cli.IO, args []string) (cli.Exit, error) {
		args = paths(args)
		if err := o.complete(s, args); err != nil {
			return 0, err
		}
		if err := o.code.open(); err != nil {
			return 0, err
		}
		defer o.code.close()
		return o.run(s, args)
	}
}

// complete checks the options and works out the target.
func (o *convertOptions) complete(s *cli.IO, args []string) error {
	if o.to == "" && len(o.features) > 0 {
		o.to = "xsave"
	}
	switch {
	case o.to == "" && o.host == "":
		return &cli.UsageError{Err: errors.New("convert to what?"), Hint: "--to=none|fxsave|xsave, or --host[=PROFILE]"}
	case len(args) > 1 && o.output != "":
		return &cli.UsageError{Err: errors.New("-o takes one input"), Hint: "without -o each result stands beside its input"}
	case o.inPlace && o.output != "":
		return &cli.UsageError{Err: errors.New("--in-place and -o exclude each other"), Hint: "-o writes a new checkpoint; --in-place changes this one, and keeps the originals"}
	case o.inPlace && slices.Contains(args, "-"):
		return &cli.UsageError{Err: errors.New("--in-place cannot change standard input"), Hint: "-o FILE writes the result to a file"}
	case len(args) > 1 && slices.Contains(args, "-") && !o.dryRun:
		return &cli.UsageError{Err: errors.New("standard input goes to standard output, and takes no other input beside it"), Hint: "convert it in a run of its own"}
	case o.output == "-" && isDir(args[0]):
		return &cli.UsageError{Err: fmt.Errorf("%s is a directory, and standard output takes one core image", args[0]), Hint: "-o DIR"}
	case o.host == liveHost && forgottenEquals(args) != "":
		return &cli.UsageError{Err: errors.New("--host stands alone, for this machine"), Hint: forgottenEquals(args)}
	case o.json && !o.dryRun && (o.output == "-" || o.output == "" && slices.Contains(args, "-")):
		return &cli.UsageError{Err: errors.New("--json and the image would both go to standard output"), Hint: "-o FILE"}
	}
	if err := readOnce([]string{o.host}, args); err != nil {
		return err
	}
	if o.compress != "" && !slices.Contains(compressions, o.compress) {
		return cli.Unknown(fmt.Errorf("--compress=%s: unknown compression", o.compress), "--compress=", o.compress, "the methods", compressions)
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
	if o.inPlace {
		words = append(words, "--in-place")
	}
	if o.output != "" {
		words = append(words, "-o "+view.Quote(o.output))
	}
	if o.compress != "" {
		words = append(words, "--compress="+o.compress)
	}
	return strings.Join(append(words, view.Path(path)), " ")
}

func (o *convertOptions) run(s *cli.IO, paths []string) (cli.Exit, error) {
	code := cli.OK
	doc := convertDoc{Schema: "fpuimg.convert/1", Images: []convertImage{}}
	for _, path := range paths {
		c, images, err := o.path(s, path)
		if usage, ok := errors.AsType[*cli.UsageError](err); ok {
			return 0, usage
		}
		if err != nil {
			s.Error(err)
			s.Hint(o.hint(path, err))
			c = cli.Damaged
			images[len(images)-1].Error = newErrorDoc(path, err)
		}
		code = cli.Worst(code, c)
		doc.Images = append(doc.Images, images...)
	}
	if o.json {
		return code, s.WriteJSON(doc)
	}
	return code, nil
}

// path converts what a path holds.
func (o *convertOptions) path(s *cli.IO, path string) (cli.Exit, []convertImage, error) {
	failed := func(err error) (cli.Exit, []convertImage, error) {
		return cli.Damaged, []convertImage{newConvertImage(path)}, err
	}
	var lock *convert.Lock // in place it is held from here on
	if path != "-" && !o.dryRun {
		completed, err := false, error(nil)
		if !o.inPlace {
			completed, err = convert.Recover(path)
		} else if lock, err = convert.NewLock(path); err == nil {
			defer lock.Close()
			completed, err = lock.Recover()
		}
		if err != nil {
			return failed(err)
		}
		if completed {
			s.Warnf("%s: a conversion of it was interrupted; it is complete now", path)
		}
	}
	all, err := openAll(s, path, checkpoint.Options{})
	if err != nil {
		return failed(err)
	}
	if all[0].Err != nil || all[0].Checkpoint.Archive() != nil {
		return o.archive(s, path, all)
	}
	if o.compress != "" {
		return failed(&cli.UsageError{Err: fmt.Errorf("%s: --compress goes with an archive", path), Hint: "leave out --compress"})
	}
	ckpt, err := checkpoint.Only(path, all)
	if err != nil {
		return failed(err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 && ckpt.Image != "" {
		return failed(fmt.Errorf("%s: a link, and convert takes the image itself, %s", path, ckpt.Files.Label(ckpt.Image)))
	}
	c, img, err := o.one(s, ckpt, lock)
	return c, []convertImage{img}, err
}

func newConvertImage(path string) convertImage {
	return convertImage{Path: path, Findings: []view.FindingDoc{}, CPUInfo: []fieldDoc{}, Threads: []convertThread{}}
}

// plan works out the conversion of one checkpoint.
func (o *convertOptions) plan(ckpt *checkpoint.Checkpoint) (*convert.Plan, error) {
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
	return convert.NewPlan(ckpt, options)
}

// one converts one checkpoint that is not in an archive.
func (o *convertOptions) one(s *cli.IO, ckpt *checkpoint.Checkpoint, lock *convert.Lock) (cli.Exit, convertImage, error) {
	path := ckpt.Path
	img := newConvertImage(path)
	plan, err := o.plan(ckpt)
	if err != nil {
		return cli.Damaged, img, err
	}
	img.fill(plan, o.advice(plan))
	if ckpt.Image != "" {
		if err := fileOutput(o.output, o.imageName(path)); err != nil {
			return cli.Usage, img, err
		}
	}
	filter := !o.dryRun && (o.output == "-" || path == "-" && o.output == "")
	if !o.json && !filter {
		o.report(s, plan)
	}
	if plan.Refused() {
		return o.refuse(s, path, plan), img, nil
	}
	view.Losses(s, path, o.dryRun, plan.Threads)
	switch {
	case filter:
		b, err := plan.Bytes()
		if err == nil {
			_, err = s.Out.Write(b)
		}
		return cli.OK, img, err
	case !plan.Changed():
		s.Sayf("%s: nothing to do", path)
	case o.dryRun:
		s.Sayf("%s: dry run, nothing was written", path)
	default:
		out, err := o.write(s, path, plan, lock)
		if err != nil {
			return cli.Damaged, img, err
		}
		img.Output = &out
		if out == path {
			s.Sayf("%s: converted in place; the originals are NAME.orig", path)
		} else {
			s.Sayf("%s: written to %s", path, out)
		}
	}
	return cli.OK, img, nil
}

// refuse says why nothing was written, and what would force it.
func (o *convertOptions) refuse(s *cli.IO, path string, plan *convert.Plan) cli.Exit {
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

// write carries the plan out and returns where the result is.
func (o *convertOptions) write(s *cli.IO, path string, plan *convert.Plan, lock *convert.Lock) (string, error) {
	if o.inPlace {
		return path, lock.InPlace(plan)
	}
	out := o.output
	if out == "" {
		var err error
		if out, err = o.outputName(path, plan); err != nil {
			return "", err
		}
	}
	if plan.Checkpoint.Image != "" {
		return out, plan.WriteFile(out)
	}
	return out, plan.WriteDir(out, convert.DirOptions{
		Progress: s.Progress(path + ": copied"),
		Note:     func(text string) { s.Warnf("%s: %s", path, text) },
	})
}

// suffix is what the name of a result says of it.
func (o *convertOptions) suffix() string {
	if o.to != "" {
		return o.to
	}
	return o.named.short
}

// outputName is the place beside the input: ckpt -> ckpt.fxsave, core-7.img ->
// core-7.fxsave.img.
func (o *convertOptions) outputName(path string, plan *convert.Plan) (string, error) {
	path = filepath.Clean(path)
	if base := filepath.Base(path); base == "." || base == ".." {
		abs, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		path = abs
	}
	if filepath.Dir(path) == path {
		return "", &cli.UsageError{Err: fmt.Errorf("%s has no place beside it", path), Hint: "name the output with -o"}
	}
	if plan.Checkpoint.Image != "" {
		return o.imageName(path), nil
	}
	return path + "." + o.suffix(), nil
}

// imageName is the place beside a core image.
func (o *convertOptions) imageName(path string) string {
	if path == "-" {
		path = "core"
	}
	return strings.TrimSuffix(path, ".img") + "." + o.suffix() + ".img"
}

// fileOutput refuses an output that is spelled as a directory where the result is one
// file, which would be named like beside.
func fileOutput(out, beside string) error {
	if _, last := filepath.Split(out); out == "" || last != "" && last != "." && last != ".." {
		return nil
	}
	hint := "-o " + view.Quote(filepath.Join(out, filepath.Base(beside)))
	if !isDir(out) {
		hint += ", after mkdir " + view.Path(filepath.Clean(out))
	}
	return &cli.UsageError{Err: fmt.Errorf("-o %s names a directory, and the result is one file", out), Hint: hint}
}

// advice is what a report of the conversion offers.
func (o *convertOptions) advice(plan *convert.Plan) view.Advice {
	if o.force {
		return view.Advice{}
	}
	return view.Advice{Force: o.command(plan.Checkpoint.Path)}
}

// report prints what happens to each thread, then the findings.
func (o *convertOptions) report(s *cli.IO, plan *convert.Plan) {
	fmt.Fprintf(s.Out, "%s: %s, %s\n", s.OutStyle(color.Bold).Sprint(cli.Printable(plan.Checkpoint.Path)),
		view.Count(len(plan.Threads), "thread"), view.VerdictStyle(s, plan.Verdict).Sprint(plan.Verdict))
	view.Actions(s, plan.Threads)
	view.Findings(s, nil, plan.Threads, plan.Findings, o.advice(plan))
	for _, c := range plan.CPUInfo {
		fmt.Fprintf(s.Out, "cpuinfo.img %s: %s -> %s\n", c.Field, cmp.Or(c.From, "absent"), cmp.Or(c.To, "absent"))
	}
}

// The JSON document of schema fpuimg.convert/1.
type convertDoc struct {
	Schema string         `json:"schema"`
	Images []convertImage `json:"images"`
}

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

func (img *convertImage) fill(plan *convert.Plan, a view.Advice) {
	img.Verdict = &plan.Verdict
	img.Changed = plan.Changed() && !plan.Refused()
	img.Findings = a.FindingDocs(view.AllFindings(plan.Threads, plan.Findings))
	for _, c := range plan.CPUInfo {
		img.CPUInfo = append(img.CPUInfo, fieldDoc{c.Field, orNull(c.From), orNull(c.To)})
	}
	for _, t := range plan.Threads {
		d := convertThread{TID: t.TID, From: t.From.String(), To: t.To.String(), Actions: view.ActionDocs(t.Report), Lost: view.LossDocs(t.Report)}
		img.Threads = append(img.Threads, d)
	}
}

func orNull(v string) *string {
	if v == "" {
		return nil
	}
	return &v
}

// hint says what to do about an error of a conversion.
func (o *convertOptions) hint(path string, err error) string {
	var interrupted *codec.InterruptedError
	var kind *convert.KindError
	switch {
	case errors.As(err, &interrupted) && o.dryRun:
		return "run the conversion again without --dry-run: it completes the interrupted one first"
	case errors.As(err, &interrupted):
		return "once the cause is mended, run the conversion again: it completes this one first"
	case errors.Is(err, convert.ErrFixed):
		return "lsattr shows an immutable or append-only file; -o PATH writes a new checkpoint instead"
	case errors.Is(err, convert.ErrStage), errors.Is(err, convert.ErrForeign):
		return "look at it, and remove it"
	case errors.As(err, &kind):
		return "fpuimg show and fpuimg check read it"
	case errors.Is(err, os.ErrExist):
		return takenHint(err, "-o")
	case errors.Is(err, convert.ErrInside):
		return "name a place outside of it with -o"
	case errors.Is(err, convert.ErrSpecial):
		return "remove it from the checkpoint, or convert with --in-place, which copies nothing"
	case errors.Is(err, convert.ErrNoWriter):
		return "choose another with --compress=" + strings.Join(compressions, ", ")
	case !o.inPlace && noPlace(path, err):
		return "-o PATH writes it elsewhere"
	}
	if hint := misplacedProfile(path); hint != "" {
		return hint
	}
	return inputHint(path, err)
}

// noPlace reports whether an error is that nothing can be written where the output
// should be, outside of path.
func noPlace(path string, err error) bool {
	file, ok := errors.AsType[*fs.PathError](err)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // as it is copied from
	}
	return ok && file.Path != path && !strings.HasPrefix(file.Path, path+string(filepath.Separator)) &&
		(errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENAMETOOLONG))
}
