package codec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Files are the image files of a checkpoint, in a directory or wherever else.
type Files interface {
	// Open opens a file by its name, such as pages-1.img, and tells its size. What it
	// returns must be closed if it is an [io.Closer]. The error is a [*FormatError] for
	// what is no regular file, else from the file system.
	Open(name string) (r io.ReaderAt, size int64, err error)
	// Names lists the files.
	Names() ([]string, error)
	// Label names a file for messages.
	Label(name string) string
}

// Heir is [Files] that may stand on an older dump: an incremental checkpoint holds only
// the memory that changed since then.
type Heir interface {
	// Parent returns the files of the older dump, nil if there is none. The error is a
	// [*FormatError] for a parent that leads nowhere it may lead, else from the file
	// system; a parent that is gone is no error.
	Parent() (Files, error)
}

// Dir is the files in a directory. Symbolic links, pipes and devices are refused: CRIU
// writes none, and following one would leave the checkpoint.
type Dir string

// Open opens a regular file.
func (d Dir) Open(name string) (io.ReaderAt, int64, error) { return openRegular(d.Label(name)) }

// Names lists all that the directory has.
func (d Dir) Names() ([]string, error) {
	f, err := os.OpenFile(string(d), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is not waited for
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Label is the path of the file.
func (d Dir) Label(name string) string { return filepath.Join(string(d), name) }

// Parent is the directory that CRIU's link leads to.
func (d Dir) Parent() (Files, error) {
	dir, err := filepath.EvalSymlinks(d.Label("parent"))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, &FormatError{d.Label("parent"), 0, "parent", errors.New("not a directory")}
	}
	return Dir(dir), nil
}

func openRegular(path string) (*os.File, int64, error) {
	// A pipe is not waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		err = &FormatError{path, 0, "file", ErrIrregular}
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &FormatError{path, 0, "file", ErrIrregular}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// MaxImage bounds the files that are read whole. A core image is a few KiB; one
// pstree entry per process stays far below this too.
const MaxImage = 64 << 20

// Errors of files that are no image files.
var (
	ErrIrregular = errors.New("not a regular file")
	ErrTooLarge  = fmt.Errorf("larger than %d MiB, which no such image is", MaxImage>>20)
)

// ReadImage reads an image file whole. The error is that of opening it, or a
// [*FormatError] for one that is too large.
func ReadImage(files Files, name string) ([]byte, error) {
	return AppendImage(nil, files, name, MaxImage)
}

// AppendImage is [ReadImage] for a file of at most so many bytes, which it appends to b;
// of a larger one the error wraps [ErrTooLarge].
func AppendImage(b []byte, files Files, name string, limit int64) ([]byte, error) {
	if d, ok := files.(Dir); ok {
		return appendFile(b, d.Label(name), limit)
	}
	r, size, err := files.Open(name)
	if err != nil {
		return b, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	return appendWhole(b, files.Label(name), r, size, limit)
}

// ReadFile is [ReadImage] for a path.
func ReadFile(path string) ([]byte, error) { return appendFile(nil, path, MaxImage) }

func appendFile(b []byte, path string, limit int64) ([]byte, error) {
	f, size, err := openBare(path)
	if err != nil {
		return b, err
	}
	defer f.close()
	return appendWhole(b, path, f, size, limit)
}

func appendWhole(b []byte, path string, r io.ReaderAt, size, limit int64) ([]byte, error) {
	if size > limit {
		return b, &FormatError{path, MaxImage, "file", ErrTooLarge}
	}
	have := len(b)
	b = slices.Grow(b, int(size))[:have+int(size)]
	n, err := r.ReadAt(b[have:], 0)
	if errors.Is(err, io.EOF) {
		err = nil // it shrank meanwhile: what is there is what it holds
	}
	return b[:have+n], err
}

// bare is a file that is read by bare system calls: an [os.File] asks the poller to take
// it, which takes no regular file, and costs as much again as opening it.
type bare struct {
	fd   int
	path string
}

// openBare is openRegular for a file that is read at once.
func openBare(path string) (*bare, int64, error) {
	f := &bare{path: path}
	err := f.call("open", func() (err error) {
		f.fd, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		return err
	})
	if errors.Is(err, syscall.ELOOP) {
		err = &FormatError{path, 0, "file", ErrIrregular}
	}
	if err != nil {
		return nil, 0, err
	}
	var st syscall.Stat_t
	err = f.call("stat", func() error { return syscall.Fstat(f.fd, &st) })
	if err == nil && st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		err = &FormatError{path, 0, "file", ErrIrregular}
	}
	if err != nil {
		f.close()
		return nil, 0, err
	}
	return f, st.Size, nil
}

// call makes a system call, again if a signal interrupts it.
func (f *bare) call(op string, call func() error) error {
	for {
		switch err := call(); err {
		case nil:
			return nil
		case syscall.EINTR:
		default:
			return &os.PathError{Op: op, Path: f.path, Err: err}
		}
	}
}

func (f *bare) close() { syscall.Close(f.fd) }

// ReadAt is that of an [io.ReaderAt].
func (f *bare) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		err = f.call("read", func() (err error) {
			m, err = syscall.Pread(f.fd, b[n:], off+int64(n))
			return err
		})
		if m = max(m, 0); m == 0 && err == nil {
			err = io.EOF
		}
		n += m
	}
	return n, err
}

// CoreTID reads the thread's number from the name of a core image.
func CoreTID(name string) (int, bool) {
	s, ok := strings.CutPrefix(name, "core-")
	if !ok {
		return 0, false
	}
	s, ok = strings.CutSuffix(s, ".img")
	if !ok {
		return 0, false
	}
	tid, err := strconv.ParseUint(s, 10, 31)
	return int(tid), err == nil
}

// CoreName is the name of a thread's core image.
func CoreName(tid int) string { return "core-" + strconv.Itoa(tid) + ".img" }
