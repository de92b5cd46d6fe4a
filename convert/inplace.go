package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
)

const (
	newSuffix  = ".fpuimg-new"
	origSuffix = ".orig"
)

func newName(name string) string { return "." + name + newSuffix }

// redo is the commit record: the files whose new content is durable and which
// have yet to take their places.
type redo struct {
	Files []string `json:"files"`
}

// InPlace carries the plan out in the checkpoint itself. The originals stay beside
// the new files as NAME.orig; one that is there already, from an earlier
// conversion, is kept instead. On a failure before the commit nothing has changed;
// after it, [Recover] completes the conversion.
//
// The errors are from the file system, a [*BusyError] or a [*codec.InterruptedError].
func (p *Plan) InPlace() error {
	dir := p.Checkpoint.Path
	if p.Checkpoint.Single() != nil {
		dir = filepath.Dir(dir)
	}
	d, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Another conversion may have been here since the plan was made.
	err = committed(dir)
	if err == nil {
		err = p.stale()
	}
	if err == nil {
		err = sweep(dir)
	}
	if err != nil {
		return err
	}
	names := p.sortedNames()
	err = p.stageInPlace(d, dir, names)
	if err != nil {
		sweep(dir)
		return err
	}
	return apply(dir, names)
}

// stageInPlace writes and commits the new files.
func (p *Plan) stageInPlace(d *os.File, dir string, names []string) error {
	for _, name := range names {
		path := filepath.Join(dir, newName(name))
		if err := writeLike(path, p.files[name], filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	record, err := json.Marshal(redo{names})
	if err != nil {
		return err
	}
	draft := filepath.Join(dir, newName(codec.RedoName))
	if err := create(draft, record); err != nil {
		return err
	}
	if err := syncTree(d); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(dir, codec.RedoName))
}

// writeLike writes a file with the metadata of another.
func writeLike(path string, content []byte, like string) error {
	if err := create(path, content); err != nil {
		return err
	}
	return copyMeta(path, like)
}

// create writes a new file.
func create(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// apply moves committed files to their places and drops the record. It may be
// run again after a failure at any point, which it reports as a
// [*codec.InterruptedError] and the cause.
func apply(dir string, names []string) error {
	err := move(dir, names)
	if err == nil {
		return nil
	}
	if cut := committed(dir); cut != nil {
		return fmt.Errorf("%w: %w", cut, err)
	}
	return err
}

// committed returns an [*codec.InterruptedError] if the directory has a commit
// record: a conversion in place was cut off.
func committed(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, codec.RedoName)); err == nil {
		return &codec.InterruptedError{Dir: dir}
	}
	return nil
}

func move(dir string, names []string) error {
	if err := syncDir(dir); err != nil {
		return err
	}
	for _, name := range names {
		fresh, place := filepath.Join(dir, newName(name)), filepath.Join(dir, name)
		if _, err := os.Lstat(fresh); errors.Is(err, fs.ErrNotExist) {
			continue // this one is done
		}
		if _, err := os.Lstat(place + origSuffix); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(place, place+origSuffix); err != nil {
				return err
			}
		}
		if err := os.Rename(fresh, place); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, codec.RedoName)); err != nil {
		return err
	}
	return syncDir(dir)
}

// Recover completes a conversion in place that was cut off after its commit, and
// removes what one left behind that was cut off before. path is a checkpoint
// directory or a core image in one. It reports whether it completed one.
//
// The errors are from the file system, a [*BusyError] or, for a record that no
// conversion wrote, a [*codec.FormatError].
func Recover(path string) (completed bool, err error) {
	dir := path
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		dir = filepath.Dir(path)
	}
	left, err := leftovers(dir)
	if err != nil || len(left) == 0 {
		return false, nil // nothing to do; what cannot be read will be said later
	}
	d, err := lockDir(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := readRedo(filepath.Join(dir, codec.RedoName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, sweep(dir)
	case err != nil:
		return false, err
	}
	if err := apply(dir, names); err != nil {
		return false, err
	}
	return true, sweep(dir)
}

// readRedo reads a commit record, which may have come with a hostile checkpoint.
func readRedo(path string) ([]string, error) {
	b, err := codec.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r redo
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, &codec.FormatError{Path: path, Field: "record", Err: err}
	}
	for _, name := range r.Files {
		if filepath.Base(name) != name || !strings.HasSuffix(name, ".img") || strings.ContainsRune(name, 0) {
			return nil, &codec.FormatError{Path: path, Field: "files", Err: fmt.Errorf("%q is no image of this directory", name)}
		}
	}
	return r.Files, nil
}

// leftovers lists what conversions in place leave in a directory while at work.
func leftovers(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, e := range entries {
		if isLeftover(e.Name()) {
			left = append(left, e.Name())
		}
	}
	return left, nil
}

func isLeftover(name string) bool {
	return name == codec.RedoName || strings.HasPrefix(name, ".") && strings.HasSuffix(name, newSuffix)
}

// sweep removes the new files of a conversion that was not committed.
func sweep(dir string) error {
	left, err := leftovers(dir)
	for _, name := range left {
		if name != codec.RedoName {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	return err
}

// lockDir opens a directory and locks it against other conversions.
func lockDir(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := lock(d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
