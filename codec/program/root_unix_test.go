//go:build unix

package program

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Nobody writes to the FIFO: who waits for it, waits for ever.
func TestOpenInFIFO(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/fifo", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"/fifo", "/link"} {
		if _, _, err := openIn(root, name); !errors.Is(err, errIrregular) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
