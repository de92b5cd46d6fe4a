package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/internal/rawtar"
)

// Options say how to read what does not describe itself.
type Options struct {
	// XSaveArea takes a file to be a bare XSAVE area.
	XSaveArea bool
	// Machine is the one that stored a bare area, or wrote an ELF core that does not
	// place its components; nil guesses from the size.
	Machine *xstate.CPU
}

// OpenAll opens every checkpoint that path holds: one for an images directory, a
// core image, an ELF core or a bare area; as many as there are for an archive, for a
// directory above the images, such as a runtime's, and for an OCI image layout.
// ARCHIVE:DIR names one of several. A blob of a layout that cannot be read is among
// them, with problems and no threads. The errors are those of [Open]; of a layout with
// nothing to read, all are joined.
func OpenAll(path string, o Options) ([]*Checkpoint, error) {
	return openAll(path, o, new(budget))
}

func openAll(path string, o Options, b *budget) ([]*Checkpoint, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if all, inner, ok := splitInner(path); ok {
			return openInner(all, inner, o, b)
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
		return openDirs(path, b)
	case !info.Mode().IsRegular():
		return nil, &FormatError{path, 0, "file", errIrregular}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &stream{bufio.NewReaderSize(f, 4096), f, info.Size()}
	if c, ok, err := s.open(path, o, b); ok || err != nil {
		return c, err
	}
	raw, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := openCore(path, raw)
	if err != nil {
		return nil, err
	}
	c.problem(interrupted(filepath.Dir(path)))
	return []*Checkpoint{c}, nil
}

// ReadAll is [OpenAll] for a stream; name stands for its path.
func ReadAll(name string, r io.Reader, o Options) ([]*Checkpoint, error) {
	return readAll(name, r, o, new(budget))
}

func readAll(name string, r io.Reader, o Options, b *budget) ([]*Checkpoint, error) {
	s := &stream{r: bufio.NewReaderSize(r, 4096), size: -1}
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			if at, err := f.Seek(0, io.SeekCurrent); err == nil && at == 0 {
				s.file, s.size = f, info.Size()
			}
		}
	}
	if c, ok, err := s.open(name, o, b); ok || err != nil {
		return c, err
	}
	c, err := OpenReader(name, s.r)
	if err != nil {
		return nil, err
	}
	return []*Checkpoint{c}, nil
}

// stream is a file or a pipe whose first bytes were looked at.
type stream struct {
	r    *bufio.Reader
	file *os.File // nil unless it can seek
	size int64
}

// rewind goes back to the start of a file. A pipe has kept what was looked at.
func (s *stream) rewind() error {
	if s.file == nil {
		return nil
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return err
}

// open tells by its first bytes what the stream holds, and reads it. ok is false if
// it is none of the things that are known here: then it is a core image, or damaged.
func (s *stream) open(name string, o Options, b *budget) (c []*Checkpoint, ok bool, err error) {
	head, err := s.r.Peek(2 * rawtar.HeadSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("%s: %w", name, err)
	}
	compression, isTar := rawtar.Detect(head)
	if len(head) == 2*rawtar.HeadSize && len(bytes.TrimLeft(head, "\x00")) == 0 {
		isTar = s.size < 0 || s.size%rawtar.HeadSize == 0 // an archive's end, and nothing before it
	}
	isELF := bytes.HasPrefix(head, []byte(elfMagic))
	var one *Checkpoint
	switch {
	case o.XSaveArea:
		one, err = openArea(name, s.r, o.Machine)
	case !isTar && !isELF:
		return nil, false, nil
	default:
		// From here on the file is read through a buffer of another size.
		var r io.Reader = s.r
		var file io.ReadSeeker
		if s.file != nil {
			if err := s.rewind(); err != nil {
				return nil, false, err
			}
			r, file = s.file, s.file
		}
		if isTar {
			c, err = readArchive(name, r, file, s.size, compression, b)
			return c, true, err
		}
		one, err = openELF(name, r, file, s.size, o.Machine)
	}
	if err != nil {
		return nil, true, err
	}
	return []*Checkpoint{one}, true, nil
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
func openInner(outer, inner string, o Options, b *budget) ([]*Checkpoint, error) {
	all, err := openAll(outer, o, b)
	if err != nil {
		return nil, err
	}
	want := path.Clean(inner)
	var names []string
	for _, c := range all {
		file, dir := c.Archive()
		if file != "" && (dir == want || strings.HasSuffix(c.Path, ":"+inner)) {
			c.Path = outer + ":" + inner
			return []*Checkpoint{c}, nil
		}
		if dir != "" { // what cannot be read has no place
			names = append(names, dir)
		}
	}
	return nil, fmt.Errorf("%s: no checkpoint %q in it; it has %s", outer, inner, namesOf(names))
}

// namesOf lists the first of the checkpoints that an archive or a directory has.
func namesOf(names []string) string {
	if n := len(names) - maxFaults; n > 0 {
		names = append(names[:maxFaults:maxFaults], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

// openDirs opens an images directory, or those below one.
func openDirs(path string, b *budget) ([]*Checkpoint, error) {
	c, err := OpenDir(path)
	if err == nil {
		c.Container = dirContainer(filepath.Clean(path))
		return []*Checkpoint{c}, nil
	}
	if layout, lerr := openLayout(path, b); layout != nil || lerr != nil {
		return layout, lerr
	}
	// Podman and runc have the images in checkpoint/, Docker in checkpoints/NAME/,
	// Incus in state/final/.
	var out []*Checkpoint
	for _, pattern := range []string{"*", "checkpoints/*", "state/*"} {
		below, _ := filepath.Glob(filepath.Join(escapeGlob(path), filepath.FromSlash(pattern)))
		slices.Sort(below)
		for _, dir := range below {
			if !holdsImages(dir) {
				continue
			}
			c, derr := OpenDir(dir)
			if derr != nil {
				return nil, derr
			}
			c.Container = dirContainer(dir)
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return nil, err
	}
	return out, nil
}

// escapeGlob makes a path a pattern that matches it alone.
func escapeGlob(path string) string {
	if filepath.Separator == '\\' {
		return path // there is no escape there
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// holdsImages reports whether a directory, which no link leads to, has a pstree.img
// or a core image.
func holdsImages(dir string) bool {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return false
	}
	if _, err := os.Lstat(filepath.Join(dir, "pstree.img")); err == nil {
		return true
	}
	cores, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "core-*.img"))
	return len(cores) > 0
}

// Only returns the one checkpoint that path holds, or an error that names all. What is
// wrong with other blobs of an image layout becomes a problem of it.
func Only(path string, all []*Checkpoint) (*Checkpoint, error) {
	var faults []error
	var readable []*Checkpoint
	for _, c := range all {
		if c.Unreadable() {
			faults = append(faults, c.Problems...)
		} else {
			readable = append(readable, c)
		}
	}
	if len(readable) == 1 {
		readable[0].Problems = append(readable[0].Problems, faults...)
		return readable[0], nil
	}
	names := make([]string, len(readable))
	for i, c := range readable {
		names[i] = c.Path
	}
	if path == "-" {
		return nil, fmt.Errorf("-: holds %d checkpoints: %s; save it to a file, and name one as FILE:DIR", len(names), namesOf(names))
	}
	return nil, fmt.Errorf("%s: holds %d checkpoints; name one of %s", path, len(names), namesOf(names))
}
