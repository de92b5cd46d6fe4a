package checkpoint_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
)

// TestFiles opens the memory pages of a checkpoint in a directory and in archives: the
// file, a part of the plain archive, and an error for a compressed one.
func TestFiles(t *testing.T) {
	pages := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	members := []member{{name: "checkpoint/pages-1.img", data: pages}, {name: "checkpoint/pages-2.img", typ: tar.TypeSymlink, link: "/etc/passwd"}}
	plain := imagesTar(t, "checkpoint/", members...)
	root := t.TempDir()
	dir := filepath.Join(root, "checkpoint")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range threads8(t) {
		write(t, dir, name, b)
	}
	write(t, dir, "pages-1.img", pages)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "pages-2.img")); err != nil {
		t.Fatal(err)
	}
	write(t, root, "x.tar", plain)
	write(t, root, "x.tgz", compressors(t)["gzip"](plain))
	open := func(name string) codec.Files {
		c, err := checkpoint.Open(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return c.Files
	}
	for _, name := range []string{"checkpoint", "x.tar"} {
		files := open(name)
		r, size, err := files.Open("pages-1.img")
		if err != nil || size != int64(len(pages)) {
			t.Fatalf("%s: %d bytes, error %v; want %d", name, size, err, len(pages))
		}
		got := make([]byte, len(pages)-20)
		if _, err := r.ReadAt(got, 20); err != nil || !bytes.Equal(got, pages[20:]) {
			t.Errorf("%s: other bytes, error %v", name, err)
		}
		if n, err := r.ReadAt(got[:10], size-5); n != 5 || err != io.EOF {
			t.Errorf("%s: %d bytes beyond the end, error %v; want 5 and EOF", name, n, err)
		}
		if err := r.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
		if _, _, err := files.Open("pages-2.img"); !errors.Is(err, codec.ErrIrregular) {
			t.Errorf("%s: a link: error %v, want that it is no regular file", name, err)
		}
		if _, _, err := files.Open("pages-3.img"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: error %v, want that there is none", name, err)
		}
		if _, err := codec.ReadImage(files, "core-22100.img"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	piped, err := found(checkpoint.ReadAll("-", bytes.NewReader(plain), checkpoint.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range []codec.Files{open("x.tgz"), piped[0].Files} {
		if _, _, err := files.Open("pages-1.img"); err == nil || !strings.Contains(err.Error(), "unpack the archive") {
			t.Errorf("%s: error %v, want one that says to unpack it", files.Label("pages-1.img"), err)
		}
	}
	files := open("x.tar")
	if err := os.Chtimes(filepath.Join(root, "x.tar"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := files.Open("pages-1.img"); err == nil || !strings.Contains(err.Error(), "changed it meanwhile") {
		t.Errorf("error %v, want that the archive has changed", err)
	}
}

// TestManyMissing reads a pstree.img that names many threads without an image: each is
// told, and only the first are tried to open.
func TestManyMissing(t *testing.T) {
	dir := t.TempDir()
	tids := make([]int, 50_000)
	for i := range tids {
		tids[i] = 1 + i
	}
	write(t, dir, "pstree.img", codec.MarshalPstree([]codec.SavedTask{{PID: 1, TIDs: tids}}))
	write(t, dir, "core-50000.img", threads8(t)["core-22100.img"])
	c, err := checkpoint.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := &counting{Files: c.Files}
	c.Files = files
	missing := 0
	for th, err := range c.Threads() {
		if _, ok := errors.AsType[*codec.MissingError](err); ok {
			missing++
		} else if err != nil || th.TID != 50_000 {
			t.Errorf("thread %d: %v", th.TID, err)
		}
	}
	if missing != len(tids)-1 || files.opened > 2000 {
		t.Errorf("%d threads missing, %d files opened; want %d, and 2000 at most", missing, files.opened, len(tids)-1)
	}
}

type counting struct {
	codec.Files
	opened int
}

func (c *counting) Open(name string) (io.ReaderAt, int64, error) {
	c.opened++
	return c.Files.Open(name)
}
