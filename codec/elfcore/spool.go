package elfcore

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// maxSpool bounds what is kept of a stream. Cores have their notes at the beginning.
const maxSpool = 1 << 30

// Spool makes a stream one that can be read anywhere: as much of it as is asked for is
// kept in a temporary file without a name.
type Spool struct {
	r     io.Reader
	f     *os.File
	named bool  // it has a name still
	size  int64 // of what is kept
	err   error // why it is not more, [io.EOF] if there is not
}

// NewSpool starts to read a stream. The error is from the file system.
func NewSpool(r io.Reader) (*Spool, error) {
	f, err := os.CreateTemp("", "fpuimg-")
	if err != nil {
		return nil, err
	}
	named := os.Remove(f.Name()) != nil // some systems keep that of an open file
	return &Spool{r: r, f: f, named: named}, nil
}

// ReadAt reads from what is kept, and from the stream what is not. The error says
// where too much would have to be kept.
func (s *Spool) ReadAt(b []byte, off int64) (int, error) {
	if off > maxSpool-int64(len(b)) {
		return 0, fmt.Errorf("offset %#x lies beyond what is kept of a stream, %d MiB; give the core as a file", off, maxSpool>>20)
	}
	if more := off + int64(len(b)) - s.size; more > 0 && s.err == nil {
		var n int64
		n, s.err = io.CopyN(s.f, s.r, more)
		s.size += n
	}
	n, err := s.f.ReadAt(b, off)
	if err == io.EOF {
		err = s.err
	}
	return n, err
}

// Close gives up what is kept.
func (s *Spool) Close() error {
	err := s.f.Close()
	if s.named {
		err = errors.Join(err, os.Remove(s.f.Name()))
	}
	return err
}

// window reads ahead: headers and notes are many and small.
type window struct {
	r   io.ReaderAt
	at  int64
	buf []byte
}

func (w *window) ReadAt(b []byte, off int64) (int, error) {
	const ahead = 64 << 10
	if len(b) > ahead {
		return w.r.ReadAt(b, off)
	}
	if off < w.at || off+int64(len(b)) > w.at+int64(len(w.buf)) {
		if w.buf == nil {
			w.buf = make([]byte, 0, ahead)
		}
		n, err := w.r.ReadAt(w.buf[:ahead], off)
		if w.at, w.buf = off, w.buf[:n]; n < len(b) {
			return copy(b, w.buf), err
		}
	}
	return copy(b, w.buf[off-w.at:]), nil
}
