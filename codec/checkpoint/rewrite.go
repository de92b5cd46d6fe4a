package checkpoint

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/internal/rawtar"
)

// ErrNoWriter is a compression that can be read but not written.
var ErrNoWriter = rawtar.ErrNoWriter

// Rewrite is a copy of an archive with some files changed.
type Rewrite struct {
	Path string // of the archive, for messages
	// Compression of the result: none, gzip or zstd; "" keeps that of the archive.
	Compression string
	// Replace gives the new content of each file that is to change, by its place in the
	// archive. It is given the old content, and its error ends the copy.
	Replace map[string]func(old []byte) ([]byte, error)
	// Patch gives the new content of files that keep their size, while they stream by.
	Patch map[string]func(old io.Reader) io.Reader
	// Progress is called with the bytes of the archive that are copied so far; nil
	// is none.
	Progress func(done int64)
}

// Check returns the error, [ErrNoWriter], with which every copy of the archive would fail
// for want of a compressor.
func (r *Rewrite) Check(archive io.Reader) error {
	dec, _, err := r.coders(archive, io.Discard)
	if err != nil {
		return err
	}
	return dec.Close()
}

// coders returns what reads and what writes the archive.
func (r *Rewrite) coders(archive io.Reader, w io.Writer) (dec io.ReadCloser, enc io.WriteCloser, err error) {
	in := bufio.NewReaderSize(archive, 64<<10)
	head, err := in.Peek(rawtar.HeadSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	from, ok := rawtar.Detect(head)
	if !ok {
		return nil, nil, fmt.Errorf("%s: no archive any more", r.Path)
	}
	if enc, err = rawtar.NewEncoder(w, cmp.Or(rawtar.Compression(r.Compression), from)); err == nil {
		dec, err = rawtar.NewDecoder(in, from, nil)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", r.Path, err)
	}
	return dec, enc, nil
}

// Write copies the archive to w. Only the files that are replaced change, and in their
// headers the size and the checksum. Every other block is copied as it stands: member
// order, pax and GNU headers, sparse maps, links and what follows the end of the archive.
func (r *Rewrite) Write(w io.Writer, archive io.Reader) error {
	out := bufio.NewWriterSize(w, 256<<10)
	dec, enc, err := r.coders(archive, out)
	if err != nil {
		return err
	}
	defer dec.Close()
	if err := r.copy(rawtar.NewReader(dec), enc); err != nil {
		return fmt.Errorf("%s: %w", r.Path, err)
	}
	if err := enc.Close(); err != nil {
		return err
	}
	return out.Flush()
}

func (r *Rewrite) copy(tr *rawtar.Reader, w io.Writer) error {
	done := map[string]bool{}
	for {
		m, tail, err := tr.Next()
		if err == io.EOF {
			if _, err := w.Write(tail); err != nil {
				return err
			}
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(m.Name)
		replace, patch := r.Replace[name], r.Patch[name]
		switch {
		case done[name]:
			return fmt.Errorf("%s: twice in the archive", name)
		case replace != nil:
			err = rewriteMember(tr, m, w, replace)
		case patch != nil:
			err = patchMember(tr, m, w, patch)
		default:
			if _, err = w.Write(m.Header); err == nil {
				err = tr.CopyData(w)
			}
		}
		if replace != nil || patch != nil {
			done[name] = true
		}
		if err != nil {
			return err
		}
		if r.Progress != nil {
			r.Progress(tr.Offset())
		}
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(r.Replace)), slices.Collect(maps.Keys(r.Patch))) {
		if !done[name] {
			return fmt.Errorf("%s: gone from the archive meanwhile", name)
		}
	}
	return tr.Rest(w)
}

// patchMember writes a member with what a patch makes of its content.
func patchMember(tr *rawtar.Reader, m *rawtar.Member, w io.Writer, patch func(io.Reader) io.Reader) error {
	if !m.Regular() {
		return fmt.Errorf("%s: no plain file in the archive; pack it without --sparse and with --hard-dereference", m.Name)
	}
	if _, err := w.Write(m.Header); err != nil {
		return err
	}
	if n, err := io.Copy(w, patch(tr)); err != nil || n != m.Size {
		return cmp.Or(err, io.ErrUnexpectedEOF)
	}
	return tr.CopyData(w) // the padding
}

// rewriteMember writes a member with its new content.
func rewriteMember(tr *rawtar.Reader, m *rawtar.Member, w io.Writer, replace func([]byte) ([]byte, error)) error {
	old, err := io.ReadAll(io.LimitReader(tr, codec.MaxImage))
	if err != nil {
		return err
	}
	content, err := replace(old)
	if err != nil {
		return err
	}
	header, err := m.Resized(int64(len(content)))
	if err != nil {
		return err
	}
	for _, b := range [][]byte{header, content, make([]byte, -len(content)&511)} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
