package checkpoint

import (
	"io"
	"os"
	"testing"
)

// ReadAllAfter is ReadAll for an input of which so many bytes are held already.
func ReadAllAfter(name string, r io.Reader, held int64) ([]Found, error) {
	return readAll(name, r, Options{}, &budget{held: held})
}

// BrokenSpool is a spool whose file cannot be written.
func BrokenSpool(t *testing.T) *Spool {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := NewSpool(1 << 20)
	s.file = f
	return s
}

// Name is the one that the file had.
func (s *Spool) Name() string { return s.file.Name() }
