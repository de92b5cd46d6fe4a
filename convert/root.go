package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Files are read and written through descriptors of their directories, by one name
// at a time: root converts what other users own and change meanwhile, and no call
// must end elsewhere or wait.

// openDir opens a directory; links in its path are followed. The last element makes
// the kernel refuse anything else: opening a FIFO would wait.
func openDir(path string) (*os.Root, error) {
	r, err := os.OpenRoot(path + string(filepath.Separator) + ".")
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = &fs.PathError{Op: e.Op, Path: path, Err: e.Err}
	}
	return r, err
}

// openSub opens the directory in another one that was there a moment ago.
func openSub(r *os.Root, name string, was fs.FileInfo) (*os.Root, error) {
	sub, err := r.OpenRoot(name + "/.") // see openDir
	if err != nil {
		return nil, named(r, err)
	}
	if now, err := sub.Stat("."); err != nil || !os.SameFile(was, now) {
		sub.Close()
		return nil, &ChangedError{filepath.Join(r.Name(), name)}
	}
	return sub, nil
}

// openFile opens the regular file for reading that was there a moment ago.
func openFile(r *os.Root, name string, was fs.FileInfo) (*os.File, error) {
	path := filepath.Join(r.Name(), name)
	if !was.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrSpecial}
	}
	f, err := r.OpenFile(name, os.O_RDONLY|nonBlock, 0)
	if err != nil {
		return nil, named(r, err)
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(was, now) {
		f.Close()
		return nil, &ChangedError{path}
	}
	return f, nil
}

// lookAndOpen is openFile after a look.
func lookAndOpen(r *os.Root, name string) (*os.File, error) {
	was, err := r.Lstat(name)
	if err != nil {
		return nil, named(r, err)
	}
	return openFile(r, name, was)
}

// openPath opens a regular file that the user named.
func openPath(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlock, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrSpecial}
	}
	return f, nil
}

// staged are the image files of a result that has not appeared yet.
type staged struct {
	dir *os.Root
	// as is the name under which a file lies there.
	as func(name string) string
}

func (s staged) Open(name string) (io.ReaderAt, int64, error) {
	f, err := lookAndOpen(s.dir, s.as(name))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (s staged) Names() ([]string, error) {
	d, err := s.dir.Open(".")
	if err != nil {
		return nil, named(s.dir, err)
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (s staged) Label(name string) string { return filepath.Join(s.dir.Name(), s.as(name)) }

// create makes a file that nobody else can open yet.
func create(r *os.Root, name string) (*os.File, error) {
	f, err := r.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	return f, named(r, err)
}

// named completes the name in an error of a Root.
func named(r *os.Root, err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return &fs.PathError{Op: e.Op, Path: filepath.Join(r.Name(), e.Path), Err: e.Err}
	case *os.LinkError:
		return &os.LinkError{Op: e.Op, Old: filepath.Join(r.Name(), e.Old), New: filepath.Join(r.Name(), e.New), Err: e.Err}
	}
	return err
}

// ChangedError is a file that is not the one that a plan was made from.
type ChangedError struct{ Path string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s: another program changed it meanwhile; nothing was converted", e.Path)
}

// BusyError is a checkpoint or an output that another conversion is working on.
type BusyError struct{ Path string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s: another conversion is at work on it", e.Path)
}

// tries bounds how often a directory is looked up that is replaced each time.
const tries = 100

// A lockFile is a directory under a lock of flock(2). The lock is advisory: it keeps
// other conversions away, and no other program.
type lockFile struct{ *os.File }

// lockDir locks a directory, or returns a [*BusyError].
func lockDir(r *os.Root, lock func(*os.File) error) (*lockFile, error) {
	d, err := r.Open(".")
	if err != nil {
		return nil, named(r, err)
	}
	if err := lock(d); err != nil {
		d.Close()
		return nil, err
	}
	return &lockFile{d}, nil
}

// is reports whether the locked directory is the one that was looked up.
func (l *lockFile) is(now fs.FileInfo) bool {
	info, err := l.Stat()
	return err == nil && os.SameFile(info, now)
}

// Close lets go of the lock before it closes the descriptor. A child that another
// goroutine forks has a copy until it executes its program, and would keep the lock.
func (l *lockFile) Close() error {
	unlock(l.File)
	return l.File.Close()
}
