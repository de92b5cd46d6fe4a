package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// Spool keeps the images of memory that can be read but once as they come by: those of
// compressed archives, and of streams. They are in a temporary file without a name, which
// is made when the first comes. Close gives them up; what was opened of them cannot be
// read then.
type Spool struct {
	max   int64
	file  *os.File
	named bool // it has a name still
	size  int64
	err   error // why nothing more is kept
	turn  *sync.Mutex
	has   bool // the turn
}

// NewSpool keeps max bytes at most.
func NewSpool(max int64) *Spool { return Spools(max)() }

// Spools returns what makes spools that keep max bytes together: one that is to keep
// anything waits until the one that does is closed. They may be of several goroutines.
func Spools(max int64) func() *Spool {
	turn := new(sync.Mutex)
	return func() *Spool { return &Spool{max: max, turn: turn} }
}

// SpoolError is an image of memory that was not kept. It is no error of the image, so
// that Err is not unwrapped: a missing directory for temporary files is no missing image.
type SpoolError struct {
	Path string
	Max  int64
	Err  error // from the file system; nil where it would have been more than Max
}

func (e *SpoolError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: not kept in a temporary file: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s: not kept in a temporary file, as the memory in the archive would take more than %d bytes", e.Path, e.Max)
}

// keep copies size bytes, and tells where they are. kept is a [*SpoolError]; err is that
// of reading.
func (s *Spool) keep(label string, r io.Reader, size int64) (at int64, kept, err error) {
	if size > s.max-s.size {
		return 0, &SpoolError{label, s.max, nil}, nil
	}
	if !s.has {
		s.turn.Lock()
		s.has = true
	}
	if s.file == nil && s.err == nil {
		if s.file, s.err = os.CreateTemp("", "fpuimg-"); s.err == nil {
			s.named = os.Remove(s.file.Name()) != nil // some systems keep that of an open file
		}
	}
	if s.err != nil {
		return 0, &SpoolError{label, s.max, s.err}, nil
	}
	at = s.size
	w := &sink{file: s.file}
	n, err := io.CopyN(w, r, size)
	if w.err != nil {
		s.err = w.err
		s.file.Truncate(at)
		return 0, &SpoolError{label, s.max, s.err}, nil
	}
	if s.size += n; errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return at, nil, err
}

// sink tells errors of writing from those of what is copied.
type sink struct {
	file *os.File
	err  error
}

func (w *sink) Write(b []byte) (n int, err error) {
	n, w.err = w.file.Write(b)
	return n, w.err
}

// Close gives up what is kept. A nil Spool has nothing.
func (s *Spool) Close() error {
	if s == nil {
		return nil
	}
	if s.has {
		defer s.turn.Unlock()
		s.has = false
	}
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if s.named {
		err = errors.Join(err, os.Remove(s.file.Name()))
	}
	return err
}

// isMemory reports whether an image tells of the memory of tasks, or holds it.
func isMemory(base string) bool {
	switch base {
	case "files.img", "reg-files.img", "memfd.img":
		return true
	}
	for _, prefix := range []string{"mm-", "pagemap-", "pages-"} {
		if strings.HasPrefix(base, prefix) && strings.HasSuffix(base, ".img") {
			return true
		}
	}
	return false
}
