package convert

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/fpuimg/fpuimg/internal/rawtar"
)

// ErrNoWriter is a compression that can be read but not written.
var ErrNoWriter = rawtar.ErrNoWriter

// ArchiveOptions are the choices of [WriteArchive] and [CopyArchive].
type ArchiveOptions struct {
	// Compression of the result: none, gzip or zstd; "" keeps that of the
	// archive.
	Compression string
	// Progress is called with the bytes of the archive that are copied so far; nil
	// is none.
	Progress func(done int64)
}

// WriteArchive writes the archive of the plans' checkpoints, converted, to the new
// file out, which must not exist. All plans must be of one archive.
//
// Only the planned core images and cpuinfo.img change, and in their headers the size
// and the checksum. Every other block is copied as it stands: member order, pax and
// GNU headers, sparse maps, links and what follows the end of the archive. The file
// appears by one rename once it is durable; on any failure nothing is left.
//
// The error is a [*codec.FormatError] if the archive is not the one that was
// planned, a [*ChangedError], a [*BusyError], [ErrStage] or from the file system.
func WriteArchive(plans []*Plan, out string, o ArchiveOptions) error {
	src, err := openArchive(plans)
	if err != nil {
		return err
	}
	defer src.Close()
	return build(out, func(s *stage) error {
		f, err := create(s.dir, result)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := copyArchive(plans, f, src, o); err != nil {
			return err
		}
		if err := copyMeta(f, src, true); err != nil {
			return err
		}
		return f.Sync()
	})
}

// openArchive opens the one archive of all plans.
func openArchive(plans []*Plan) (*os.File, error) {
	archive, _ := plans[0].Checkpoint.Archive()
	return openPath(archive)
}

// CanWriteArchive returns the error, [ErrNoWriter], with which every conversion of an
// archive would fail for want of a compressor.
func CanWriteArchive(archive string, o ArchiveOptions) error {
	f, err := openPath(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	_, to, err := o.compressions(archive, bufio.NewReaderSize(f, rawtar.HeadSize))
	if err != nil {
		return err
	}
	_, err = newEncoder(archive, io.Discard, to)
	return err
}

// compressions tells by the first bytes of an archive how it is compressed, and says
// how the result is to be.
func (o ArchiveOptions) compressions(archive string, in *bufio.Reader) (from, to rawtar.Compression, err error) {
	head, err := in.Peek(rawtar.HeadSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", "", err
	}
	from, ok := rawtar.Detect(head)
	if !ok {
		return "", "", fmt.Errorf("%s: no archive any more", archive)
	}
	return from, cmp.Or(rawtar.Compression(o.Compression), from), nil
}

func newEncoder(archive string, w io.Writer, c rawtar.Compression) (io.WriteCloser, error) {
	enc, err := rawtar.NewEncoder(w, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", archive, err)
	}
	return enc, nil
}

// CopyArchive writes the converted archive to w. See [WriteArchive].
func CopyArchive(plans []*Plan, w io.Writer, o ArchiveOptions) error {
	src, err := openArchive(plans)
	if err != nil {
		return err
	}
	defer src.Close()
	return copyArchive(plans, w, src, o)
}

func copyArchive(plans []*Plan, w io.Writer, f *os.File, o ArchiveOptions) error {
	archive := f.Name()
	in := bufio.NewReaderSize(f, 64<<10)
	from, to, err := o.compressions(archive, in)
	if err != nil {
		return err
	}
	dec, err := rawtar.NewDecoder(in, from, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	defer dec.Close()
	out := bufio.NewWriterSize(w, 256<<10)
	enc, err := newEncoder(archive, out, to)
	if err != nil {
		return err
	}
	c := &archiveCopier{tr: rawtar.NewReader(dec), w: enc, progress: o.Progress, files: map[string][]byte{}, was: map[string]uint64{}}
	for _, p := range plans {
		_, dir := p.Checkpoint.Archive()
		for base, content := range p.files {
			c.files[path.Join(dir, base)] = content
			c.was[path.Join(dir, base)] = p.read[base]
		}
	}
	if err := c.copy(); err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	if err := enc.Close(); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	// The images that are replaced were compared; of the rest, what can be.
	now, err := f.Stat()
	if was := plans[0].archive; err == nil && (!os.SameFile(was, now) || was.Size() != now.Size() || !was.ModTime().Equal(now.ModTime())) {
		err = &ChangedError{archive}
	}
	return err
}

// maxImage is the size of the largest image that codec reads.
const maxImage = 64 << 20

// archiveCopier copies an archive with some members' content replaced.
type archiveCopier struct {
	tr       *rawtar.Reader
	w        io.Writer
	files    map[string][]byte // by cleaned name; nil once it is written
	was      map[string]uint64 // the hashes of what they replace
	progress func(done int64)
}

func (c *archiveCopier) copy() error {
	for {
		m, tail, err := c.tr.Next()
		switch {
		case err == io.EOF:
			if _, err := c.w.Write(tail); err != nil {
				return err
			}
			if err := c.tr.Rest(c.w); err != nil {
				return err
			}
			for name, content := range c.files {
				if content != nil {
					return fmt.Errorf("%s: gone from the archive meanwhile", name)
				}
			}
			return nil
		case err != nil:
			return err
		}
		if err := c.member(m); err != nil {
			return err
		}
		if c.progress != nil {
			c.progress(c.tr.Offset())
		}
	}
}

// member copies one member, or writes its new content.
func (c *archiveCopier) member(m *rawtar.Member) error {
	name := path.Clean(m.Name)
	content, planned := c.files[name]
	if !planned {
		if _, err := c.w.Write(m.Header); err != nil {
			return err
		}
		return c.tr.CopyData(c.w)
	}
	if content == nil {
		return fmt.Errorf("%s: twice in the archive", name)
	}
	old, err := io.ReadAll(io.LimitReader(c.tr, maxImage))
	if err != nil {
		return err
	}
	if hash(old) != c.was[name] {
		return &ChangedError{name}
	}
	header, err := m.Resized(int64(len(content)))
	if err != nil {
		return err
	}
	for _, b := range [][]byte{header, content, make([]byte, -len(content)&511)} {
		if _, err := c.w.Write(b); err != nil {
			return err
		}
	}
	c.files[name] = nil
	return nil
}
