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

// archive makes a new archive of one, all of its checkpoints or none.
func (d *destination) archive(s *cli.IO, path string, found []checkpoint.Found, m maker) (cli.Exit, works, error) {
	var all works
	failed := func(err error) (cli.Exit, works, error) { return cli.Damaged, all, err }
	file, err := d.archiveInput(path, found)
	if err != nil {
		return failed(err)
	}
	filter := d.output == "-"
	out := d.output
	if out == "" {
		out = d.archiveName(file)
	} else if err := fileOutput(out, d.archiveName(file)); err != nil {
		return failed(err)
	}
	opts := convert.ArchiveOptions{Compression: d.compress, Progress: s.Progress(path + ": copied"), Spool: int64(d.code.keep)}
	var plans []*convert.Plan
	var errs []error
	changed, refused := false, false
	for _, f := range found {
		w, err := m.begin(s, path, f.Checkpoint)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all.list = append(all.list, w)
		plans = append(plans, w.plan())
		changed = changed || w.changed()
		refused = refused || w.refused()
	}
	if len(errs) == 0 && !refused && (changed || filter) {
		errs = append(errs, convert.CanWriteArchive(file, opts))
	}
	if err := errors.Join(errs...); err != nil {
		return failed(err)
	}
	filter = filter && !d.dryRun
	code := cli.OK
	for _, w := range all.list {
		if !d.json && !filter {
			w.report(s)
		}
		if w.refused() {
			code = cli.Worst(code, w.refuse(s))
		} else {
			w.warn(s)
		}
	}
	if refused {
		for _, w := range all.list { // one archive: nothing of it was written
			w.written("")
		}
		return code, all, nil
	}
	switch {
	case filter:
		all.failed = all.list[len(all.list)-1]
		return cli.OK, all, convert.CopyArchive(plans, s.Out, opts)
	case !changed:
		s.Sayf("%s: nothing to do", path)
		return cli.OK, all, nil
	case d.dryRun:
		s.Sayf("%s: dry run, nothing was written", path)
		return cli.OK, all, nil
	}
	if err := convert.WriteArchive(plans, out, opts); err != nil {
		all.failed = all.list[len(all.list)-1]
		return cli.Damaged, all, err
	}
	for _, w := range all.list {
		w.written(out)
	}
	s.Sayf("%s: written to %s", path, out)
	return cli.OK, all, nil
}

// archiveInput returns the archive that holds the checkpoints, and refuses one that
// cannot become a new archive.
func (d *destination) archiveInput(path string, all []checkpoint.Found) (file string, err error) {
	for _, f := range all {
		if f.Err == nil {
			file = f.Checkpoint.Archive().Path
			break
		}
	}
	switch {
	case path == "-":
		return "", &cli.UsageError{Err: errors.New("an archive is read twice, so it cannot come from standard input"), Hint: "save it to a file first; -o - writes the result to standard output"}
	case d.inPlace:
		return "", &cli.UsageError{Err: fmt.Errorf("%s: an archive cannot be changed in place", path), Hint: "without --in-place a new archive is written beside it"}
	case path != file && !strings.HasPrefix(path, file+":"): // the archive is not named itself
		return "", &cli.UsageError{Err: fmt.Errorf("%s: an OCI image layout is only read", path), Hint: d.verb + " -o OUT.tar " + view.Path(file) + " takes the blob that holds the checkpoint"}
	}
	return file, nil
}

// archiveName is the place beside the archive: x.tar.zst -> x.fxsave.tar.zst. A
// compression that is asked for shows in the name; one that is kept keeps it, right
// or wrong: Podman writes zstd under .tar.gz.
func (d *destination) archiveName(path string) string {
	dir, base := filepath.Split(filepath.Clean(path))
	end := archiveSuffix(base)
	base = strings.TrimSuffix(base, end)
	switch d.compress {
	case "none":
		end = ".tar"
	case "gzip":
		end = ".tar.gz"
	case "zstd":
		end = ".tar.zst"
	}
	return filepath.Join(dir, base+"."+d.suffix+end)
}
