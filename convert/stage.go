package convert

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrStage is something under the name of a staging directory that no conversion by
// this user left there.
var ErrStage = errors.New("an output is built under this name, and this is not the work of this program and user")

const (
	// stageSuffix ends the hidden name of the directory in which an output is built.
	stageSuffix = ".fpuimg-stage"
	// result is the output's name in it. It marks a directory as a stage: where only
	// this user may write, nobody else can have given that name.
	result = "fpuimg-result"
)

// stageName is the same each time, so that the next run finds what a killed one has
// left. Where an output's name fits, its stage's does.
func stageName(base string) string {
	const long = 64
	if len(base) > long {
		sum := fnv.New64a()
		sum.Write([]byte(base))
		base = fmt.Sprintf("%s-%016x", strings.ToValidUTF8(base[:long-17], ""), sum.Sum64())
	}
	return "." + base + stageSuffix
}

// A stage is a directory beside an output, in which the output is built. Only this
// user can enter it, whatever owners and modes the output has by then.
type stage struct {
	out    string
	parent *os.Root // of the stage and of the output
	place  *os.File // the same
	dir    *os.Root // the stage
	lock   *lockFile
	done   bool
}

// build makes an output, which appears by one rename once fill has made result in the
// stage; on any failure nothing is left.
func build(out string, fill func(*stage) error) error {
	s := &stage{out: filepath.Clean(out)}
	var err error
	if s.parent, err = openDir(filepath.Dir(s.out)); err != nil {
		return err
	}
	defer s.parent.Close()
	taken := s.free()
	if taken != nil {
		// A conversion that was killed after its rename may have left its stage.
		if _, err := s.parent.Lstat(s.name()); err != nil {
			return taken
		}
	}
	if s.place, err = s.parent.Open("."); err != nil {
		return named(s.parent, err)
	}
	defer s.place.Close()
	if appendOnly(s.place) {
		return &fs.PathError{Op: "create", Path: s.out, Err: fs.ErrPermission}
	}
	if err := s.claim(); err != nil {
		return cmp.Or(taken, err)
	}
	defer s.dir.Close()
	defer s.lock.Close()
	err = taken
	if err == nil {
		err = fill(s)
	}
	if err == nil {
		err = s.publish()
	}
	if !s.done {
		err = errors.Join(err, s.remove())
	}
	return err
}

// NewDir makes a directory for this user alone, which fill fills. It appears by one
// rename, where nothing is; on any failure nothing is left. The errors are those of
// fill, [ErrStage], a [*BusyError], or from the file system.
func NewDir(path string, fill func(dir *os.Root) error) error {
	return build(path, func(s *stage) error {
		dir, err := s.mkdir()
		if err != nil {
			return err
		}
		defer dir.Close()
		return fill(dir)
	})
}

// mkdir makes the result a directory.
func (s *stage) mkdir() (*os.Root, error) {
	err := s.dir.Mkdir(result, 0o700)
	if err != nil {
		return nil, named(s.dir, err)
	}
	dir, err := s.dir.OpenRoot(result)
	return dir, named(s.dir, err)
}

func (s *stage) base() string { return filepath.Base(s.out) }
func (s *stage) name() string { return stageName(s.base()) }

// path is that of a file in the stage, which nobody else can enter.
func (s *stage) path(name string) string {
	return filepath.Join(filepath.Dir(s.out), s.name(), name)
}

// free returns an error if an output is there already, or cannot be.
func (s *stage) free() error {
	_, err := s.parent.Lstat(s.base())
	switch {
	case err == nil:
		return existsError(s.out)
	case !errors.Is(err, fs.ErrNotExist):
		return named(s.parent, err)
	}
	return nil
}

// existsError refuses an output that is there already.
func existsError(out string) error {
	return &fs.PathError{Op: "create", Path: out, Err: fs.ErrExist}
}

// claim makes the stage, or takes over what a killed conversion left.
func (s *stage) claim() error {
	for range tries {
		err := s.parent.Mkdir(s.name(), 0o700)
		made := err == nil
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return named(s.parent, err)
		}
		err = s.enter(lock)
		if err == nil {
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // another conversion removed it before it was locked
		}
		if _, busy := errors.AsType[*BusyError](err); made && !busy {
			err = errors.Join(err, rmdir(s.place, s.name()))
		}
		return err
	}
	return &BusyError{s.out}
}

// enter opens the stage, locks it and empties it. The error is [fs.ErrNotExist] if
// its name is not that of the locked one any more.
func (s *stage) enter(lock func(*os.File) error) error {
	path := filepath.Join(filepath.Dir(s.out), s.name())
	was, err := s.parent.Lstat(s.name())
	if err != nil {
		return named(s.parent, err)
	}
	if !was.IsDir() || owner(was) != self() || was.Mode()&0o022 != 0 {
		return &fs.PathError{Op: "create", Path: path, Err: ErrStage}
	}
	dir, err := openSub(s.parent, s.name(), was)
	if _, moved := errors.AsType[*ChangedError](err); moved {
		return fs.ErrNotExist
	}
	if err != nil {
		return err
	}
	held, err := lockDir(dir, lock)
	if err != nil {
		dir.Close()
		return err
	}
	if err := s.empty(path, dir, held); err != nil {
		held.Close()
		dir.Close()
		return err
	}
	s.dir, s.lock = dir, held
	return nil
}

// empty removes what a killed conversion left in the locked stage.
func (s *stage) empty(path string, dir *os.Root, lock *lockFile) error {
	now, err := s.parent.Lstat(s.name())
	if err != nil || !lock.is(now) {
		return fs.ErrNotExist
	}
	names, err := lock.Readdirnames(-1)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return dropACL(lock.File)
	}
	if len(names) > 1 || names[0] != result {
		return &fs.PathError{Op: "create", Path: path, Err: ErrStage}
	}
	return removeTree(dir, result)
}

// publish moves the result to its place.
func (s *stage) publish() error {
	err := s.rename()
	if errors.Is(err, fs.ErrPermission) {
		err = s.renameReadOnly(err)
	}
	if err != nil {
		return err
	}
	if err := s.remove(); err != nil {
		return err
	}
	s.done = true
	return s.place.Sync()
}

func (s *stage) rename() error {
	return renameNoReplace(s.lock.File, result, s.place, s.base(), s.out)
}

// renameReadOnly moves a directory that this user may not write to: its ".." is
// written when it gets another parent.
func (s *stage) renameReadOnly(refused error) error {
	tree, err := s.dir.Open(result)
	if err != nil {
		return refused
	}
	defer tree.Close()
	info, err := tree.Stat()
	if err != nil || !info.IsDir() {
		return refused
	}
	if err := tree.Chmod(info.Mode() | 0o700); err != nil {
		return refused
	}
	if err := s.rename(); err != nil {
		return err
	}
	return tree.Chmod(info.Mode())
}

// remove removes the stage, unless somebody gave its name to something else.
func (s *stage) remove() error {
	if err := removeTree(s.dir, result); err != nil {
		return err
	}
	if now, err := s.parent.Lstat(s.name()); err != nil || !s.lock.is(now) {
		return nil
	}
	return rmdir(s.place, s.name())
}

// removeTree removes what a conversion made, where a directory may have the mode of a
// read-only original.
func removeTree(r *os.Root, name string) error {
	if _, err := r.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := r.RemoveAll(name)
	if errors.Is(err, fs.ErrPermission) {
		fs.WalkDir(r.FS(), name, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				err = r.Chmod(path, 0o700)
			}
			return err
		})
		err = r.RemoveAll(name)
	}
	return named(r, err)
}
