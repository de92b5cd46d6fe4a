package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/convert"
)

// destination says where what a verb makes of a checkpoint goes.
type destination struct {
	verb     string // "fpuimg convert"
	done     string // what became of the checkpoint: "converted"
	suffix   string // what the name of a result says of it
	output   string
	inPlace  bool
	dryRun   bool
	json     bool
	compress string
	code     codeOptions
}

// compressions are the values of --compress.
var compressions = []string{"none", "gzip", "zstd"}

func (d *destination) flags(fs *pflag.FlagSet) {
	fs.BoolVar(&d.dryRun, "dry-run", false, "print the report and write nothing")
	fs.StringVarP(&d.output, "output", "o", "", "write to this `path` instead of beside the input; - is standard output")
	fs.BoolVar(&d.inPlace, "in-place", false, "change the checkpoint itself and keep the originals as NAME.orig")
	fs.StringVar(&d.compress, "compress", "", "compress a new archive by `METHOD`: none, gzip or zstd; as it was if not given")
	fs.BoolVar(&d.json, "json", false, "print one JSON document")
}

// check refuses options that contradict each other.
func (d *destination) check(args []string) error {
	switch {
	case len(args) > 1 && d.output != "":
		return &cli.UsageError{Err: errors.New("-o takes one input"), Hint: "without -o each result stands beside its input"}
	case d.inPlace && d.output != "":
		return &cli.UsageError{Err: errors.New("--in-place and -o exclude each other"), Hint: "-o writes a new checkpoint; --in-place changes this one, and keeps the originals"}
	case d.inPlace && slices.Contains(args, "-"):
		return &cli.UsageError{Err: errors.New("--in-place cannot change standard input"), Hint: "-o FILE writes the result to a file"}
	case len(args) > 1 && slices.Contains(args, "-") && !d.dryRun:
		return &cli.UsageError{Err: errors.New("standard input goes to standard output, and takes no other input beside it"), Hint: "convert it in a run of its own"}
	case d.output == "-" && isDir(args[0]):
		return &cli.UsageError{Err: fmt.Errorf("%s is a directory, and standard output takes one core image", args[0]), Hint: "-o DIR"}
	case d.json && !d.dryRun && (d.output == "-" || d.output == "" && slices.Contains(args, "-")):
		return &cli.UsageError{Err: errors.New("--json and the image would both go to standard output"), Hint: "-o FILE"}
	case d.compress != "" && !slices.Contains(compressions, d.compress):
		return cli.Unknown(fmt.Errorf("--compress=%s: unknown compression", d.compress), "--compress=", d.compress, "the methods", compressions)
	}
	return nil
}

// options are the words of a command line for the same destination.
func (d *destination) options() (words []string) {
	if d.inPlace {
		words = append(words, "--in-place")
	}
	if d.output != "" {
		words = append(words, "-o "+view.Quote(d.output))
	}
	if d.compress != "" {
		words = append(words, "--compress="+d.compress)
	}
	return words
}

// maker is a verb that makes something of checkpoints: its options.
type maker interface {
	// complete checks the options.
	complete(s *cli.IO, args []string) error
	// begin works out what is to be made of a checkpoint that path holds.
	begin(s *cli.IO, path string, ckpt *checkpoint.Checkpoint) (work, error)
	// none is what JSON says of a path in which no checkpoint was begun.
	none(path string, err *errorDoc) any
	// hint says what to do about an error.
	hint(path string, err error) string
}

// work is what a verb makes of one checkpoint.
type work interface {
	plan() *convert.Plan
	changed() bool
	report(s *cli.IO)
	refused() bool
	refuse(s *cli.IO) cli.Exit // says why nothing is written
	// warn says what is lost, or would be, where it is not refused.
	warn(s *cli.IO)
	// written notes where the result is; "" that there is none, since another checkpoint
	// of the archive is refused.
	written(out string)
	fail(err *errorDoc)
	doc() any // what JSON says of it
}

// works are what is made of all that a path holds.
type works struct {
	list []work
	// failed is the one that an error is about; nil if it is about none of them.
	failed work
}

// run returns what runs the verb, whose JSON documents are of the schema.
func (d *destination) run(m maker, schema string) func(*cli.IO, []string) (cli.Exit, error) {
	return func(s *cli.IO, args []string) (cli.Exit, error) {
		args = paths(args)
		if err := m.complete(s, args); err != nil {
			return 0, err
		}
		if err := d.code.open(); err != nil {
			return 0, err
		}
		defer d.code.close()
		return d.each(s, m, schema, args)
	}
}

// each makes something of what the paths hold.
func (d *destination) each(s *cli.IO, m maker, schema string, paths []string) (cli.Exit, error) {
	code := cli.OK
	images := []any{}
	for _, path := range paths {
		c, all, err := d.path(s, path, m)
		if usage, ok := errors.AsType[*cli.UsageError](err); ok {
			return 0, usage
		}
		if err != nil {
			s.Error(err)
			s.Hint(m.hint(path, err))
			c = cli.Damaged
			if all.failed != nil {
				all.failed.fail(newErrorDoc(path, err))
			}
		}
		for _, w := range all.list {
			images = append(images, w.doc())
		}
		if err != nil && all.failed == nil {
			images = append(images, m.none(path, newErrorDoc(path, err)))
		}
		code = cli.Worst(code, c)
	}
	if d.json {
		return code, s.WriteJSON(struct {
			Schema string `json:"schema"`
			Images []any  `json:"images"`
		}{schema, images})
	}
	return code, nil
}

// path makes something of all that a path holds.
func (d *destination) path(s *cli.IO, path string, m maker) (cli.Exit, works, error) {
	none := func(err error) (cli.Exit, works, error) { return cli.Damaged, works{}, err }
	var lock *convert.Lock // in place it is held from here on
	if path != "-" && !d.dryRun {
		completed, err := false, error(nil)
		if !d.inPlace {
			completed, err = convert.Recover(path)
		} else if lock, err = convert.NewLock(path); err == nil {
			defer lock.Close()
			completed, err = lock.Recover()
		}
		if err != nil {
			return none(err)
		}
		if completed {
			s.Warnf("%s: a conversion of it was interrupted; it is complete now", path)
		}
	}
	spool := d.code.spool()
	defer spool.Close()
	all, err := openAll(s, path, checkpoint.Options{Spool: spool})
	if err != nil {
		return none(err)
	}
	if all[0].Err != nil || all[0].Checkpoint.Archive() != nil {
		return d.archive(s, path, all, m)
	}
	if d.compress != "" {
		return none(&cli.UsageError{Err: fmt.Errorf("%s: --compress goes with an archive", path), Hint: "leave out --compress"})
	}
	ckpt, err := checkpoint.Only(path, all)
	if err != nil {
		return none(err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 && ckpt.Image != "" {
		return none(fmt.Errorf("%s: a link, and %s takes the image itself, %s", path, strings.TrimPrefix(d.verb, "fpuimg "), ckpt.Files.Label(ckpt.Image)))
	}
	w, err := m.begin(s, path, ckpt)
	if err != nil {
		return none(err)
	}
	code, err := d.one(s, w, lock)
	return code, works{[]work{w}, w}, err
}

// one carries out what is to be made of a checkpoint that is not in an archive.
func (d *destination) one(s *cli.IO, w work, lock *convert.Lock) (cli.Exit, error) {
	plan := w.plan()
	path := plan.Checkpoint.Path
	if plan.Checkpoint.Image != "" {
		if err := fileOutput(d.output, d.imageName(path)); err != nil {
			return cli.Usage, err
		}
	}
	filter := !d.dryRun && (d.output == "-" || path == "-" && d.output == "")
	if !d.json && !filter {
		w.report(s)
	}
	if w.refused() {
		return w.refuse(s), nil
	}
	w.warn(s)
	switch {
	case filter:
		b, err := plan.Bytes()
		if err == nil {
			_, err = s.Out.Write(b)
		}
		return cli.OK, err
	case !w.changed():
		s.Sayf("%s: nothing to do", path)
	case d.dryRun:
		s.Sayf("%s: dry run, nothing was written", path)
	default:
		out, err := d.write(s, path, plan, lock)
		if err != nil {
			return cli.Damaged, err
		}
		w.written(out)
		if out == path {
			s.Sayf("%s: %s in place; the originals are NAME.orig", path, d.done)
		} else {
			s.Sayf("%s: written to %s", path, out)
		}
	}
	return cli.OK, nil
}

// write carries the plan out and returns where the result is.
func (d *destination) write(s *cli.IO, path string, plan *convert.Plan, lock *convert.Lock) (string, error) {
	if d.inPlace {
		return path, lock.InPlace(plan)
	}
	out := d.output
	if out == "" {
		var err error
		if out, err = d.outputName(path, plan); err != nil {
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

// outputName is the place beside the input: ckpt -> ckpt.fxsave, core-7.img ->
// core-7.fxsave.img.
func (d *destination) outputName(path string, plan *convert.Plan) (string, error) {
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
		return d.imageName(path), nil
	}
	return path + "." + d.suffix, nil
}

// imageName is the place beside a core image.
func (d *destination) imageName(path string) string {
	if path == "-" {
		path = "core"
	}
	return strings.TrimSuffix(path, ".img") + "." + d.suffix + ".img"
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

// hint says what to do about an error of a conversion.
func (d *destination) hint(path string, err error) string {
	var interrupted *codec.InterruptedError
	var kind *convert.KindError
	switch {
	case errors.As(err, &interrupted) && d.dryRun:
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
	case !d.inPlace && noPlace(path, err):
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
