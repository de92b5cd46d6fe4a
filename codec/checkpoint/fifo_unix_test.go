//go:build unix

package checkpoint_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
)

// TestSwappedForFIFO has another user replace by a FIFO what was opened before: nothing
// waits for a writer.
func TestSwappedForFIFO(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.tar")
	write(t, dir, "x.tar", imagesTar(t, "checkpoint/", member{name: "checkpoint/pages-1.img", data: []byte("pages")}))
	c, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Files.Open("pages-1.img"); err == nil {
		t.Error("an archive that is a FIFO now was opened")
	}
	if _, err := codec.Dir(path).Names(); err == nil {
		t.Error("a directory that is a FIFO now was listed")
	}
}
