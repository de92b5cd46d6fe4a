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
	"syscall"

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

// openStream opens a regular file, which may not be one any more.
func openStream(path string) (*stream, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &codec.FormatError{Path: path, Field: "file", Err: codec.ErrIrregular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &stream{bufio.NewReaderSize(f, 4096), f, info.Size()}, nil
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
		all, err = readArchive(name, r, s.file, s.size, compression, b, func(in *bufio.Reader) ([]Found, error) { return unpacked(name, in, o, b) })
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
	files := &held{files: map[string][]byte{name: raw}, label: func(string) string { return path }}
	return found(newImage(path, name, files, raw))
}

// unpacked reads what is compressed and is no archive.
func unpacked(path string, in *bufio.Reader, o Options, b *budget) ([]Found, error) {
	s := &stream{r: in, size: -1}
	all, ok, err := s.open(path, o, b, false)
	if !ok && err == nil {
		all, err = s.image(path, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	}
	for _, f := range all {
		if f.Err == nil && f.Checkpoint.Kind == KindCRIU {
			f.Checkpoint.ReadOnly = "compressed; decompress it first"
		}
	}
	return all, err
}
