package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
)

const (
	newSuffix  = ".fpuimg-new"
	origSuffix = ".orig"
	probe      = "probe" // for movable
)

func newName(name string) string { return "." + name + newSuffix }

// redo is the commit record: the files whose new content is durable and which
// have yet to take their places.
type redo struct {
	Files []string `json:"files"`
}

// ErrFixed is a file that cannot be changed in place: it is immutable or append-only,
// another user's in a sticky directory, or mounted.
var ErrFixed = errors.New("it cannot be renamed, so nothing was changed")

// ErrForeign is a commit record or a new file in a sticky directory, by a user who
// could not change the checkpoint there.
var ErrForeign = errors.New("made by a user who may not change the checkpoint")

// A Lock keeps other conversions away from a checkpoint directory. It is advisory
// (flock(2)), and ends with the process at the latest.
type Lock struct {
	dir  *os.Root
	file *lockFile
}

// NewLock locks a checkpoint directory, or that of a core image. The error is a
// [*BusyError] or from the file system.
func NewLock(path string) (*Lock, error) { return newLock(path, lock) }

func newLock(path string, lock func(*os.File) error) (*Lock, error) {
	dir := imagesDir(path)
	for range tries {
		r, err := openDir(dir)
		if err != nil {
			return nil, err
		}
		f, err := lockDir(r, lock)
		if err == nil {
			if now, err := os.Stat(dir); err == nil && f.is(now) {
				return &Lock{r, f}, nil
			}
			f.Close()
		}
		r.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, &BusyError{dir}
}

// imagesDir is the directory of a checkpoint or of one of its images.
func imagesDir(path string) string {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return filepath.Dir(path)
	}
	return path
}

// Close lets go of the lock.
func (l *Lock) Close() error { return errors.Join(l.file.Close(), l.dir.Close()) }

// InPlace carries the plan out in the checkpoint itself. The originals stay beside
// the new files as NAME.orig; one that is there already, from an earlier conversion,
// is kept instead. On a failure before the commit nothing has changed; after it,
// [Recover] completes the conversion.
//
// The errors are from the file system, a [*BusyError], a [*ChangedError], [ErrFixed]
// or a [*codec.InterruptedError].
func (p *Plan) InPlace() error {
	l, err := NewLock(p.Checkpoint.Path)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.inPlace(p)
}

// InPlace is [Plan.InPlace] under this lock, if it is on the plan's directory.
func (l *Lock) InPlace(p *Plan) error {
	if dir, err := os.Stat(imagesDir(p.Checkpoint.Path)); err != nil || !l.file.is(dir) {
		return p.InPlace()
	}
	return l.inPlace(p)
}

func (l *Lock) inPlace(p *Plan) error {
	// Another conversion may have been here since the plan was made.
	err := committed(l.dir)
	if err == nil {
		err = p.stale(l.dir)
	}
	if err == nil {
		err = l.sweep()
	}
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(p.files))
	err = l.movable(names)
	if err == nil {
		err = l.stage(p, names)
	}
	if err != nil {
		for _, name := range append(names, codec.RedoName, probe) {
			if rerr := l.dir.Remove(newName(name)); !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, named(l.dir, rerr))
			}
		}
		return err
	}
	return l.apply(names)
}

// movable returns [ErrFixed] if one of the files cannot be renamed, since that must
// not come out after the commit.
func (l *Lock) movable(names []string) error {
	if appendOnly(l.file.File) {
		return fmt.Errorf("%s: %w: append-only", filepath.Clean(l.dir.Name()), ErrFixed)
	}
	if err := l.dir.Mkdir(newName(probe), 0o700); err != nil {
		return named(l.dir, err)
	}
	var err error
	for _, name := range names {
		if err == nil {
			if err = movable(l.file.File, name, newName(probe)); err != nil {
				err = fmt.Errorf("%s: %w: %w", filepath.Join(l.dir.Name(), name), ErrFixed, err)
			}
		}
	}
	return errors.Join(err, rmdir(l.file.File, newName(probe)))
}

// stage writes and commits the new files.
func (l *Lock) stage(p *Plan, names []string) error {
	var made unsynced
	defer made.close()
	for _, name := range names {
		if err := l.rewrite(p, name, &made); err != nil {
			return err
		}
	}
	err := p.verify(staged{l.dir, func(name string) string {
		if _, changed := p.files[name]; changed {
			return newName(name)
		}
		return name
	}})
	if err != nil {
		return err
	}
	record, err := json.Marshal(redo{names})
	if err != nil {
		return err
	}
	draft := newName(codec.RedoName)
	f, err := create(l.dir, draft)
	if err != nil {
		return err
	}
	_, err = f.Write(record)
	if err = errors.Join(err, made.add(f)); err != nil {
		return err
	}
	if err := made.sync(l.file.File); err != nil {
		return err
	}
	return named(l.dir, l.dir.Rename(draft, codec.RedoName))
}

// rewrite makes the new file beside the old one.
func (l *Lock) rewrite(p *Plan, name string, made *unsynced) error {
	src, err := lookAndOpen(l.dir, name)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := create(l.dir, newName(name))
	if err != nil {
		return err
	}
	if err = dropACL(dst); err == nil {
		err = p.rewrite(dst, src, name)
	}
	return errors.Join(err, made.add(dst))
}

// apply moves committed files to their places and drops the record. It may be
// run again after a failure at any point, which it reports as a
// [*codec.InterruptedError] and the cause.
func (l *Lock) apply(names []string) error {
	err := l.move(names)
	if err == nil {
		return nil
	}
	if cut := committed(l.dir); cut != nil {
		return fmt.Errorf("%w: %w", cut, err)
	}
	return err
}

// committed returns an [*codec.InterruptedError] if the directory has a commit
// record: a conversion in place was cut off.
func committed(dir *os.Root) error {
	if _, err := dir.Lstat(codec.RedoName); err == nil {
		return &codec.InterruptedError{Dir: filepath.Clean(dir.Name())}
	}
	return nil
}

func (l *Lock) move(names []string) error {
	if err := l.file.Sync(); err != nil {
		return err
	}
	for _, name := range names {
		switch err := l.trust(newName(name), name, name+origSuffix); {
		case errors.Is(err, fs.ErrNotExist):
			continue // this one is done
		case err != nil:
			return err
		}
		if _, err := l.dir.Lstat(name + origSuffix); errors.Is(err, fs.ErrNotExist) {
			if err := l.dir.Rename(name, name+origSuffix); err != nil {
				return named(l.dir, err)
			}
		}
		if err := l.dir.Rename(newName(name), name); err != nil {
			return named(l.dir, err)
		}
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	if err := l.dir.Remove(codec.RedoName); err != nil {
		return named(l.dir, err)
	}
	return l.file.Sync()
}

// Recover is [Lock.Recover] under a lock of its own, which is not taken where nothing
// was left. path is a checkpoint directory or a core image in one.
func Recover(path string) (completed bool, err error) {
	r, err := openDir(imagesDir(path))
	if err != nil {
		return false, nil // what cannot be read will be said later
	}
	left, err := leftovers(r)
	r.Close()
	if err != nil || len(left) == 0 {
		return false, nil
	}
	l, err := NewLock(path)
	if err != nil {
		return false, err
	}
	defer l.Close()
	return l.Recover()
}

// Recover completes a conversion in place that was cut off after its commit, and
// removes what one left behind that was cut off before. It reports whether it
// completed one.
//
// The errors are from the file system, a [*BusyError] or [ErrForeign]; or, for a record
// that no conversion wrote, a [*codec.FormatError].
func (l *Lock) Recover() (completed bool, err error) {
	names, err := l.readRedo()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, l.sweep()
	case err != nil:
		return false, err
	}
	if err := l.apply(names); err != nil {
		return false, err
	}
	return true, l.sweep()
}

// readRedo reads a commit record, which may have come with a hostile checkpoint.
func (l *Lock) readRedo() ([]string, error) {
	if err := l.trust(codec.RedoName); err != nil {
		return nil, err
	}
	f, err := lookAndOpen(l.dir, codec.RedoName)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, codec.MaxImage))
	if err != nil {
		return nil, err
	}
	path := filepath.Clean(f.Name())
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

// trust returns [ErrForeign] for what a conversion may not have made. Who may write to
// a directory can do all of what a conversion does there; but in a sticky one not to
// the files of others. New files belong to the owner of the old one, which has one of
// the names like.
func (l *Lock) trust(name string, like ...string) error {
	info, err := l.dir.Lstat(name)
	if err != nil {
		return named(l.dir, err)
	}
	dir, err := l.file.Stat()
	if err != nil {
		return err
	}
	if dir.Mode()&fs.ModeSticky == 0 || slices.Contains([]uint32{self(), 0, owner(dir)}, owner(info)) {
		return nil
	}
	for _, old := range like {
		if was, err := l.dir.Lstat(old); err == nil && owner(was) == owner(info) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", filepath.Join(l.dir.Name(), name), ErrForeign)
}

// leftovers lists what conversions in place leave in a directory while at work.
func leftovers(dir *os.Root) ([]string, error) {
	d, err := dir.Open(".")
	if err != nil {
		return nil, named(dir, err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	var left []string
	for _, name := range names {
		if isLeftover(name) {
			left = append(left, name)
		}
	}
	return left, err
}

func isLeftover(name string) bool {
	return name == codec.RedoName || strings.HasPrefix(name, ".") && strings.HasSuffix(name, newSuffix)
}

// sweep removes the new files of a conversion that was not committed.
func (l *Lock) sweep() error {
	left, err := leftovers(l.dir)
	for _, name := range left {
		old := strings.TrimPrefix(strings.TrimSuffix(name, newSuffix), ".")
		if name == codec.RedoName || errors.Is(l.trust(name, old), ErrForeign) {
			continue
		}
		err = errors.Join(err, named(l.dir, l.dir.Remove(name)))
	}
	return err
}
