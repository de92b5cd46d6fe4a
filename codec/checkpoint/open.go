package checkpoint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Options say how to read what does not describe itself.
type Options struct {
	// XSaveArea takes a file to be a bare XSAVE area.
	XSaveArea bool
	// Machine is the one that stored a bare area, or wrote an ELF core that does not
	// place its components; nil guesses from the size.
	Machine *xstate.CPU
	// Spool keeps the memory in compressed archives and in streams of them, which
	// cannot be read otherwise; nil leaves it.
	Spool *Spool
}

// Open opens the one checkpoint that path holds: a CRIU images directory or one
// above it, a core image, an archive, an ELF core. The error is a [*codec.FormatError] if
// the bytes are malformed, a [*CompressionError], a [*codec.InterruptedError], or from the
// file system; or it says that there are several (see [OpenAll]).
func Open(path string) (*Checkpoint, error) {
	all, err := OpenAll(path, Options{})
	if err != nil {
		return nil, err
	}
	return Only(path, all)
}

// Only returns the one checkpoint that path holds, or an error that names all. What is
// wrong with other blobs of an image layout becomes a problem of it.
func Only(path string, all []Found) (*Checkpoint, error) {
	var faults []error
	var readable []*Checkpoint
	var names []string
	for _, f := range all {
		if f.Err != nil {
			faults = append(faults, f.Err)
			continue
		}
		readable = append(readable, f.Checkpoint)
		names = append(names, f.Path)
	}
	switch {
	case len(readable) == 1:
		readable[0].Problems = codec.AppendFault(readable[0].Problems, faults...)
		return readable[0], nil
	case path == "-":
		return nil, fmt.Errorf("-: holds %d checkpoints: %s; save it to a file, and name one as FILE:DIR", len(names), listed(names))
	}
	return nil, fmt.Errorf("%s: holds %d checkpoints; name one of %s", path, len(names), listed(names))
}

// listed names the first of the checkpoints that an archive or a directory has.
func listed(names []string) string {
	if n := len(names) - codec.MaxFaults; n > 0 {
		names = append(names[:codec.MaxFaults:codec.MaxFaults], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

// OpenAll opens every checkpoint that path holds: one for an images directory, a
// core image, an ELF core or a bare area; as many as there are for an archive, for a
// directory above the images, such as a runtime's, and for an OCI image layout.
// ARCHIVE:DIR names one of several. The errors are those of [Open]; of a layout with
// nothing to read, all are joined.
func OpenAll(path string, o Options) ([]Found, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if outer, inner, ok := splitInner(path); ok {
			return openInner(outer, inner, o)
		}
		// The image may be between its two names.
		if err := interrupted(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return openDirs(path, o)
	case !info.Mode().IsRegular():
		return nil, &codec.FormatError{Path: path, Field: "file", Err: codec.ErrIrregular}
	}
	s, err := openStream(path)
	if err != nil {
		return nil, err
	}
	defer s.file.Close()
	if all, ok, err := s.open(path, o, &budget{spool: o.Spool}, true); ok || err != nil {
		return all, err
	}
	image := lonelyLink(path)
	b, err := codec.ReadFile(image)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(image)
	c, err := newImage(path, name, codec.Dir(filepath.Clean(dir)), b)
	if err == nil {
		c.problem(interrupted(filepath.Dir(path)))
	}
	return found(c, err)
}

// lonelyLink returns what a link leads to, if it lies in no checkpoint: CRIU puts no
// links among its images, and who names another one means what it leads to.
func lonelyLink(path string) string {
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(path), "pstree.img")); err == nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// ReadAll is [OpenAll] for a stream; name stands for its path.
func ReadAll(name string, r io.Reader, o Options) ([]Found, error) {
	return readAll(name, r, o, &budget{spool: o.Spool})
}

func readAll(name string, r io.Reader, o Options, b *budget) ([]Found, error) {
	s := &stream{r: bufio.NewReaderSize(r, 4096), size: -1}
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			if at, err := f.Seek(0, io.SeekCurrent); err == nil && at == 0 {
				s.file, s.size = f, info.Size()
			}
		}
	}
	if all, ok, err := s.open(name, o, b, true); ok || err != nil {
		return all, err
	}
	return s.image(name, filepath.Base(name))
}

// splitInner splits ARCHIVE:DIR at the last colon before which something exists.
func splitInner(path string) (outer, inner string, ok bool) {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == ':' {
			if _, err := os.Stat(path[:i]); err == nil {
				return path[:i], path[i+1:], true
			}
		}
	}
	return "", "", false
}

// openInner opens one of the checkpoints of an archive.
func openInner(outer, inner string, o Options) ([]Found, error) {
	all, err := OpenAll(outer, o)
	if err != nil {
		return nil, err
	}
	want := path.Clean(inner)
	var names []string
	for _, f := range all {
		if f.Err != nil {
			continue
		}
		a := f.Checkpoint.Archive()
		if a == nil {
			continue
		}
		if a.Dir == want || a.place() == inner || strings.HasSuffix(f.Path, ":"+inner) {
			f.Checkpoint.Path = outer + ":" + inner
			return found(f.Checkpoint, nil)
		}
		names = append(names, a.place())
	}
	return nil, fmt.Errorf("%s: no checkpoint %q in it; it has %s", outer, inner, listed(names))
}
