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

	"golang.org/x/sys/unix"
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
// [*FormatError] for one that is too large, which wraps [ErrTooLarge].
func ReadImage(files Files, name string) ([]byte, error) {
	if d, ok := files.(Dir); ok {
		return ReadFile(d.Label(name))
	}
	r, size, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	return appendWhole(nil, files.Label(name), r, size, MaxImage)
}

// ReadFile is [ReadImage] for a path.
func ReadFile(path string) ([]byte, error) {
	f, err := openBare(path)
	if err != nil {
		return nil, err
	}
	return f.appendWhole(nil, MaxImage)
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
	size int64
}

// openBare is openRegular for a file that is read at once, by its path.
func openBare(path string) (bare, error) {
	f, err := openAny(unix.AT_FDCWD, path, path)
	if err == nil {
		err = f.stat()
	}
	return f, err
}

// openAny opens what may be no regular file. Its name is one in the directory at, which may
// be unix.AT_FDCWD; the path is for messages.
func openAny(at int, name, path string) (bare, error) {
	f := bare{path: path}
	for {
		var err error
		f.fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return f, nil
		case unix.EINTR:
		case unix.ELOOP:
			return f, &FormatError{path, 0, "file", ErrIrregular}
		default:
			return f, f.fault("open", err)
		}
	}
}

// stat learns the size. It closes what is no regular file.
func (f *bare) stat() error {
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	if err != nil {
		err = f.fault("stat", err)
	} else if st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = &FormatError{f.path, 0, "file", ErrIrregular}
	}
	if err != nil {
		f.close()
	}
	f.size = st.Size
	return err
}

func (f bare) fault(op string, err error) error { return &os.PathError{Op: op, Path: f.path, Err: err} }

func (f bare) close() { unix.Close(f.fd) }

// appendWhole appends what the file holds, of at most so many bytes, and closes it.
func (f bare) appendWhole(b []byte, limit int64) ([]byte, error) {
	defer f.close()
	return appendWhole(b, f.path, f, f.size, limit)
}

// ReadAt is that of an [io.ReaderAt].
func (f bare) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		switch m, err := unix.Pread(f.fd, b[n:], off+int64(n)); {
		case err == unix.EINTR:
		case err != nil:
			return n, f.fault("read", err)
		case m == 0:
			return n, io.EOF
		default:
			n += m
		}
	}
	return n, nil
}

// HeldDir is a directory that is held open by who reads many of its images.
type HeldDir struct {
	prefix string // of the images' paths
	fd     int
}

// Hold opens the directory that the labels are in. If that cannot be, its images are opened
// by their paths, and say why not.
func (d Dir) Hold() *HeldDir {
	label := d.Label("x")
	h := &HeldDir{prefix: strings.TrimSuffix(label, "x")}
	var err error
	if h.fd, err = unix.Open(filepath.Dir(label), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		h.fd = unix.AT_FDCWD
	}
	return h
}

// Close closes the directory.
func (h *HeldDir) Close() {
	if h.fd != unix.AT_FDCWD {
		unix.Close(h.fd)
	}
}

// Label is that of a [Dir].
func (h *HeldDir) Label(name string) string { return h.prefix + name }

// Begin appends an image of at most so many bytes to b if the kernel has it in memory. If
// not, the kernel is asked to read it, and what is returned appends it once that is done.
// The path is its label. The errors are those of [ReadImage].
func (h *HeldDir) Begin(b []byte, path string, limit int64) ([]byte, *Begun, error) {
	name := path
	if h.fd != unix.AT_FDCWD {
		name = strings.TrimPrefix(path, h.prefix)
	}
	f, err := openAny(h.fd, name, path)
	if err != nil {
		return b, nil, err
	}
	have := len(b)
	b = slices.Grow(b, likely)
	n, err := readNow(f.fd, b[have:have+likely])
	// Of a part of a file, whose end is not in memory, the kernel gives whole pages, and of a
	// block device whole sectors. What gives fewer bytes than are asked for, and another
	// number of them, is a regular file to its end.
	if err == nil && n%sector != 0 && int64(n) <= limit {
		f.close()
		return b[:have+n], nil, nil
	}
	b = b[:have]
	switch err := f.stat(); {
	case err != nil:
		return b, nil, err
	case f.size > limit:
		b, err = f.appendWhole(b, limit)
		return b, nil, err
	}
	willNeed(f.fd, f.size)
	return b, &Begun{f}, nil
}

const (
	likely = 8 << 10 // bytes, which are more than most images have
	sector = 512
)

// Begun is an image that the kernel was asked to read. It is open until Append.
type Begun struct{ file bare }

// Path is the label of the image.
func (f *Begun) Path() string { return f.file.path }

// Append appends the image to b.
func (f *Begun) Append(b []byte) ([]byte, error) { return f.file.appendWhole(b, f.file.size) }

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
func CoreName(tid int) string {
	b := append(make([]byte, 0, 32), "core-"...)
	return string(append(strconv.AppendInt(b, int64(tid), 10), ".img"...))
}
