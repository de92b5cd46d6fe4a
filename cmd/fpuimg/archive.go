package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/convert"
)

// archive converts the checkpoints of one archive into a new archive, all or none.
func (o *convertOptions) archive(s *cli.IO, path string, all []checkpoint.Found) (cli.Exit, []convertImage, error) {
	var images []convertImage
	failed := func(err error) (cli.Exit, []convertImage, error) {
		return cli.Damaged, append(images, newConvertImage(path)), err
	}
	file, err := o.archiveInput(path, all)
	if err != nil {
		return failed(err)
	}
	filter := o.output == "-"
	out := o.output
	if out == "" {
		out = o.archiveName(file)
	} else if err := fileOutput(out, o.archiveName(file)); err != nil {
		return failed(err)
	}
	opts := convert.ArchiveOptions{Compression: o.compress, Progress: s.Progress(path + ": copied")}
	var plans []*convert.Plan
	var errs []error
	changed, refused := false, false
	for _, f := range all {
		plan, err := o.plan(f.Checkpoint)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		img := newConvertImage(f.Path)
		img.fill(plan, o.advice(plan))
		images = append(images, img)
		plans = append(plans, plan)
		changed = changed || plan.Changed()
		refused = refused || plan.Refused()
	}
	if len(errs) == 0 && !refused && (changed || filter) {
		errs = append(errs, convert.CanWriteArchive(file, opts))
	}
	if err := errors.Join(errs...); err != nil {
		return failed(err)
	}
	filter = filter && !o.dryRun
	code := cli.OK
	for _, plan := range plans {
		if !o.json && !filter {
			o.report(s, plan)
		}
		if plan.Refused() {
			code = cli.Worst(code, o.refuse(s, plan.Checkpoint.Path, plan))
		} else {
			view.Losses(s, plan.Checkpoint.Path, o.dryRun, plan.Threads)
		}
	}
	if refused {
		for i := range images { // one archive: nothing of it was written
			images[i].Changed = false
		}
		return code, images, nil
	}
	switch {
	case filter:
		return cli.OK, images, convert.CopyArchive(plans, s.Out, opts)
	case !changed:
		s.Sayf("%s: nothing to do", path)
		return cli.OK, images, nil
	case o.dryRun:
		s.Sayf("%s: dry run, nothing was written", path)
		return cli.OK, images, nil
	}
	if err := convert.WriteArchive(plans, out, opts); err != nil {
		return cli.Damaged, images, err
	}
	for i := range images {
		images[i].Output = &out
	}
	s.Sayf("%s: written to %s", path, out)
	return cli.OK, images, nil
}

// archiveInput returns the archive that holds the checkpoints, and refuses one that
// cannot become a new archive.
func (o *convertOptions) archiveInput(path string, all []checkpoint.Found) (file string, err error) {
	for _, f := range all {
		if f.Err == nil {
			file = f.Checkpoint.Archive().Path
			break
		}
	}
	switch {
	case path == "-":
		return "", &cli.UsageError{Err: errors.New("an archive is read twice, so it cannot come from standard input"), Hint: "save it to a file first; -o - writes the result to standard output"}
	case o.inPlace:
		return "", &cli.UsageError{Err: fmt.Errorf("%s: an archive cannot be changed in place", path), Hint: "without --in-place a new archive is written beside it"}
	case path != file && !strings.HasPrefix(path, file+":"): // the archive is not named itself
		return "", &cli.UsageError{Err: fmt.Errorf("%s: an OCI image layout is only read", path), Hint: "fpuimg convert -o OUT.tar " + view.Path(file) + " converts the blob that holds the checkpoint"}
	}
	return file, nil
}

// archiveName is the place beside the archive: x.tar.zst -> x.fxsave.tar.zst. A
// compression that is asked for shows in the name; one that is kept keeps it, right
// or wrong: Podman writes zstd under .tar.gz.
func (o *convertOptions) archiveName(path string) string {
	dir, base := filepath.Split(filepath.Clean(path))
	end := archiveSuffix(base)
	base = strings.TrimSuffix(base, end)
	switch o.compress {
	case "none":
		end = ".tar"
	case "gzip":
		end = ".tar.gz"
	case "zstd":
		end = ".tar.zst"
	}
	return filepath.Join(dir, base+"."+o.suffix()+end)
}
