package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/convert"
)

// archive makes a new archive of one, all of its checkpoints or none.
func (d *destination) archive(s *cli.IO, path string, found []checkpoint.Found, m maker) (cli.Exit, works, error) {
	file, err := d.archiveInput(path, found)
	if err != nil {
		return cli.Damaged, works{}, err
	}
	out := cmp.Or(d.output, d.archiveName(file))
	if err := fileOutput(out, d.archiveName(file)); err != nil {
		return cli.Damaged, works{}, err
	}
	all, err := beginAll(s, path, found, m)
	changed, refused := slices.ContainsFunc(all.list, work.changed), slices.ContainsFunc(all.list, work.refused)
	opts := convert.ArchiveOptions{Compression: d.compress, Progress: s.Progress(path + ": copied"), Spool: int64(d.code.keep)}
	if err == nil && !refused && (changed || out == "-") {
		err = convert.CanWriteArchive(file, opts)
	}
	if err != nil {
		return cli.Damaged, all, err
	}
	filter := out == "-" && !d.dryRun
	code := d.tell(s, all, filter)
	switch {
	case refused:
		for _, w := range all.list { // one archive: nothing of it was written
			w.written("")
		}
		return code, all, nil
	case filter:
	case !changed:
		s.Sayf("%s: nothing to do", path)
		return cli.OK, all, nil
	case d.dryRun:
		s.Sayf("%s: dry run, nothing was written", path)
		return cli.OK, all, nil
	}
	all.failed = all.list[len(all.list)-1]
	if filter {
		return cli.OK, all, convert.CopyArchive(all.plans(), s.Out, opts)
	}
	if err := convert.WriteArchive(all.plans(), out, opts); err != nil {
		return cli.Damaged, all, err
	}
	for _, w := range all.list {
		w.written(out)
	}
	s.Sayf("%s: written to %s", path, out)
	return cli.OK, all, nil
}

// beginAll works out what is to be made of each checkpoint. The errors are joined.
func beginAll(s *cli.IO, path string, found []checkpoint.Found, m maker) (all works, err error) {
	var errs []error
	for _, f := range found {
		w, err := m.begin(s, path, f.Checkpoint)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all.list = append(all.list, w)
	}
	return all, errors.Join(errs...)
}

// tell reports on what is to be made of an archive, unless that goes to standard output.
func (d *destination) tell(s *cli.IO, all works, filter bool) cli.Exit {
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
	return code
}

func (all works) plans() (plans []*convert.Plan) {
	for _, w := range all.list {
		plans = append(plans, w.plan())
	}
	return plans
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
	end := checkpoint.ArchiveSuffix(base)
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
