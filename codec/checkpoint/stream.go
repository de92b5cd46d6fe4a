package checkpoint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/elfcore"
	"github.com/fpuimg/fpuimg/codec/internal/rawtar"
)

// headSize is how much of a file is looked at to tell what it is.
const headSize = 4 * rawtar.HeadSize

// stream is a file or a pipe whose first bytes were looked at.
type stream struct {
	r    *bufio.Reader
	file *os.File // nil unless it can seek
	size int64
}

// open tells by its first bytes what the stream holds, and reads it. ok is false if
// it is none of the things that are known here: then it is a core image, or damaged.
func (s *stream) open(name string, o Options, b *budget, packed bool) (all []Found, ok bool, err error) {
	head, err := s.r.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("%s: %w", name, err)
	}
	c := &Checkpoint{Path: name, Kind: KindXSaveArea}
	if o.XSaveArea {
		th, err := elfcore.ReadArea(name, s.r, o.Machine)
		c.threads = []codec.Listed{{Thread: th}}
		all, err = found(c, err)
		return all, true, err
	}
	compression, isTar := isArchive(head[:min(len(head), 2*rawtar.HeadSize)], s.size)
	if isCapture(head) {
		all, err = readCapture(name, s.r, b)
		return all, true, err
	}
	if isTar && compression != rawtar.None && !packed {
		return nil, false, &codec.FormatError{Path: name, Field: string(compression), Err: &PackedError{string(compression), "compressed more than once"}}
	}
	if !isTar && !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return nil, false, foreign(name, head)
	}
	if isTar {
		// From here on a file is read through a buffer of another size.
		var r io.Reader = s.r
		if s.file != nil {
			if _, err := s.file.Seek(0, io.SeekStart); err != nil {
				return nil, false, err
			}
			r = s.file
		}
		all, err = readArchive(name, r, s.file, s.size, compression, b, &o)
		return all, true, err
	}
	c.Kind = KindELFCore
	var r io.ReaderAt = s.file
	if s.file == nil {
		spool, err := elfcore.NewSpool(s.r)
		if err != nil {
			return nil, true, err
		}
		defer spool.Close()
		r = spool
	}
	c.threads, c.Problems, err = elfcore.Read(name, r, s.size, o.Machine)
	all, err = found(c, err)
	return all, true, err
}

// image reads one core image.
func (s *stream) image(path, name string) ([]Found, error) {
	raw, err := io.ReadAll(io.LimitReader(s.r, codec.MaxImage+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(raw) > codec.MaxImage {
		return nil, &codec.FormatError{Path: path, Offset: codec.MaxImage, Field: "image", Err: codec.ErrTooLarge}
	}
	return found(newImage(path, name, piped{path, raw}, raw))
}

// unpacked reads what is compressed and is no archive.
func (w *walker) unpacked(in *bufio.Reader, o Options) ([]Found, error) {
	s := &stream{r: in, size: -1}
	all, ok, err := s.open(w.path, o, w.budget, false)
	if !ok && err == nil {
		all, err = s.image(w.path, strings.TrimSuffix(filepath.Base(w.path), filepath.Ext(w.path)))
	}
	for _, f := range all {
		if f.Err == nil && f.Checkpoint.Kind == KindCRIU {
			f.Checkpoint.ReadOnly = "compressed; decompress it first"
		}
	}
	var format *codec.FormatError
	if err != nil && !errors.As(err, &format) {
		err = w.wrap(err)
	}
	return all, err
}
