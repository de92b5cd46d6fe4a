package checkpoint

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/fpuimg/fpuimg/codec"
)

// Archive is the files of one directory in a tar archive. Those that tell of registers
// can be opened always, others where the archive is a file that is not compressed, or a
// [Spool] has them.
type Archive struct {
	Path string // of the archive
	Dir  string // in it, "." for its root

	inner   string      // the archive in that one that has them, "" for itself
	base    int64       // where it begins in that one
	info    fs.FileInfo // of the archive, nil if it cannot be opened again, or is compressed
	members map[string]member
	needed  bool // it has images that tell of registers
	mapped  bool // a pagemap is held
	repeats []error
}

// member is one file of an archive.
type member struct {
	b        []byte // nil if it is not held
	at, size int64  // of the data in the archive, or in the spool
	spool    *Spool // that has it
	sparse   bool   // in the archive: b is what it expands to
	err      error  // why it cannot be read
}

// Open opens a file. The error may be a [*SpoolError] or [ErrNotKept], else a
// [*codec.FormatError] or from the file system.
func (a *Archive) Open(name string) (io.ReaderAt, int64, error) {
	m, ok := a.members[name]
	switch {
	case !ok:
		return nil, 0, &fs.PathError{Op: "open", Path: a.Label(name), Err: fs.ErrNotExist}
	case m.err != nil:
		return nil, 0, m.err
	case m.b != nil:
		return bytes.NewReader(m.b), int64(len(m.b)), nil
	case m.spool != nil:
		return io.NewSectionReader(m.spool.file, m.at, m.size), m.size, nil
	case m.sparse:
		return nil, 0, fmt.Errorf("%s: %w", a.Label(name), errNotExpanded)
	case a.info == nil:
		return nil, 0, fmt.Errorf("%s: %w", a.Label(name), ErrNotKept)
	}
	f, err := os.OpenFile(a.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is not waited for
	if err != nil {
		return nil, 0, err
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, a.info) || info.Size() != a.info.Size() || !info.ModTime().Equal(a.info.ModTime()) {
		f.Close()
		return nil, 0, fmt.Errorf("%s: another program changed it meanwhile", a.Path)
	}
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(f, a.base+m.at, m.size), f}, m.size, nil
}

// Names lists the images in the directory.
func (a *Archive) Names() ([]string, error) { return slices.Collect(maps.Keys(a.members)), nil }

// Label names a file in the archive: "x.tar:checkpoint/core-1.img". At the root it is
// "x.tar:./core-1.img", whose last element is the file's name too.
func (a *Archive) Label(name string) string { return a.Path + ":" + a.place() + "/" + name }

// place is the directory as it is named after the archive: "x.tar:checkpoint" for one in an
// archive in it.
func (a *Archive) place() string {
	if a.inner == "" {
		return a.Dir
	}
	return a.inner + ":" + a.Dir
}

// Replaceable returns an error for a file that [Rewrite] cannot replace. A nil archive has
// none.
func (a *Archive) Replaceable(name string) error {
	if a != nil && a.members[name].sparse {
		return &codec.FormatError{Path: a.Label(name), Field: "tar", Err: errSparse}
	}
	return nil
}
