package checkpoint_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/memory"
)

// whole reads a file of a checkpoint.
func whole(files codec.Files, name string) ([]byte, error) {
	r, size, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(r, 0, size))
}

func zip(tb testing.TB, b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// TestSpool reads the memory in archives that come by once: it is as in a file of them
// that is not compressed.
func TestSpool(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	plain, err := os.ReadFile(archivePath(t, "p-none"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := checkpoint.Open(archivePath(t, "p-none"))
	if err != nil {
		t.Fatal(err)
	}
	zstded, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "a.tar.gz", zip(t, plain))
	write(t, dir, "a.tar.zst", zstded.EncodeAll(plain, nil))
	write(t, dir, "nested.tar", makeTar(t, member{name: "in/a.tar.gz", data: zip(t, plain)}))
	write(t, dir, "nested.tar.gz", zip(t, makeTar(t, member{name: "in/a.tar", data: plain})))
	open := map[string]func(checkpoint.Options) ([]checkpoint.Found, error){"stream": func(o checkpoint.Options) ([]checkpoint.Found, error) {
		return checkpoint.ReadAll("-", bytes.NewReader(plain), o)
	}}
	for _, name := range []string{"a.tar.gz", "a.tar.zst", "nested.tar", "nested.tar.gz"} {
		open[name] = func(o checkpoint.Options) ([]checkpoint.Found, error) {
			return checkpoint.OpenAll(filepath.Join(dir, name), o)
		}
	}
	for name, open := range open {
		all, err := found(open(checkpoint.Options{}))
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: %v, %v", name, all, err)
		}
		if _, err := memory.NewImages(all[0].Files).Open(1); !errors.Is(err, checkpoint.ErrNotKept) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: without a spool: %v", name, err)
		}
		spool := checkpoint.NewSpool(1 << 20)
		if all, err = found(open(checkpoint.Options{Spool: spool})); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, file := range []string{"mm-1.img", "mm-7.img", "files.img", "pagemap-6.img", "pages-1.img", "pages-2.img", "pages-3.img"} {
			b, err := whole(all[0].Files, file)
			w, werr := whole(want.Files, file)
			if err != nil || werr != nil || !bytes.Equal(b, w) {
				t.Errorf("%s: %s: %d bytes, %v; want %d, %v", name, file, len(b), err, len(w), werr)
			}
		}
		if _, err := memory.NewImages(all[0].Files).Open(7); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 && runtime.GOOS == "linux" {
			t.Errorf("%s: a file with a name: %v", name, left)
		}
		// Somebody else may have come by the name.
		if err := os.WriteFile(spool.Name(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := spool.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(spool.Name()); err != nil && runtime.GOOS == "linux" {
			t.Errorf("%s: Close removed a file of others: %v", name, err)
		}
		if _, err := whole(all[0].Files, "pages-1.img"); err == nil {
			t.Errorf("%s: the pages outlive the spool", name)
		}
	}
	if err := (*checkpoint.Spool)(nil).Close(); err != nil {
		t.Error(err)
	}
}

// TestSpoolFull: what is not kept says so where it is opened, and the registers are read
// all the same. It is not taken for an image that is not there.
func TestSpoolFull(t *testing.T) {
	full := zip(t, imagesTar(t, "checkpoint/", member{name: "checkpoint/mm-1.img", data: make([]byte, 100)},
		member{name: "checkpoint/pages-1.img", data: make([]byte, 5000)}, member{name: "checkpoint/pages-2.img", data: make([]byte, 4000)}))
	for name, test := range map[string]struct {
		spool  *checkpoint.Spool
		tmpdir string
		kept   []string
		says   string
	}{
		"all fits":     {spool: checkpoint.NewSpool(9100), kept: []string{"mm-1.img", "pages-1.img", "pages-2.img"}},
		"one does not": {spool: checkpoint.NewSpool(4100), kept: []string{"mm-1.img", "pages-2.img"}, says: "more than 4100 bytes"},
		"none does":    {spool: checkpoint.NewSpool(99), says: "more than 99 bytes"},
		"no directory": {spool: checkpoint.NewSpool(1 << 20), tmpdir: "/nonexistent/dir", says: "/nonexistent/dir"},
		"write error":  {spool: checkpoint.BrokenSpool(t), says: "write /"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.tmpdir != "" {
				t.Setenv("TMPDIR", test.tmpdir)
			}
			defer test.spool.Close()
			all, err := found(checkpoint.ReadAll("x.tar.gz", bytes.NewReader(full), checkpoint.Options{Spool: test.spool}))
			if err != nil {
				t.Fatal(err)
			}
			if n := countThreads(t, all[0]); n != 8 {
				t.Errorf("%d threads", n)
			}
			for _, file := range []string{"mm-1.img", "pages-1.img", "pages-2.img"} {
				b, err := whole(all[0].Files, file)
				var spool *checkpoint.SpoolError
				switch {
				case slices.Contains(test.kept, file):
					if err != nil || len(b) == 0 {
						t.Errorf("%s: %d bytes, %v", file, len(b), err)
					}
				case !errors.As(err, &spool) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "x.tar.gz:checkpoint/"+file):
					t.Errorf("%s: error %v, want one of %q", file, err, test.says)
				}
			}
		})
	}
}

// TestSpools: of spools that are to keep no more together than one may, a second waits for
// the first.
func TestSpools(t *testing.T) {
	b := zip(t, imagesTar(t, "", member{name: "pages-1.img", data: make([]byte, 5000)}))
	spools := checkpoint.Spools(1 << 20)
	read := func(spool *checkpoint.Spool) {
		if _, err := checkpoint.ReadAll("x.tar.gz", bytes.NewReader(b), checkpoint.Options{Spool: spool}); err != nil {
			t.Error(err)
		}
	}
	first, unused, second, done := spools(), spools(), spools(), make(chan struct{})
	read(first)
	go func() {
		defer close(done)
		read(second)
	}()
	select {
	case <-done:
		t.Error("two keep memory at once")
	case <-time.After(50 * time.Millisecond):
	}
	for _, spool := range []*checkpoint.Spool{unused, first} {
		if err := spool.Close(); err != nil {
			t.Error(err)
		}
	}
	<-done
	second.Close()
}

// TestSpoolCut reads an archive that ends in a page: that is said, and no page is there
// that was not.
func TestSpoolCut(t *testing.T) {
	b := imagesTar(t, "", member{name: "pages-1.img", data: make([]byte, 5000)})
	spool := checkpoint.NewSpool(1 << 20)
	defer spool.Close()
	all, err := found(checkpoint.ReadAll("x.tar", bytes.NewReader(b[:len(b)-5000]), checkpoint.Options{Spool: spool}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := whole(all[0].Files, "pages-1.img"); !errors.Is(err, fs.ErrNotExist) || len(all[0].Problems) == 0 {
		t.Errorf("error %v, problems %v", err, all[0].Problems)
	}
}

// Images that are compressed one by one, and a capture, hold memory that is not read: it
// is not taken for missing.
func TestMemoryLeft(t *testing.T) {
	dir := t.TempDir()
	for name, b := range threads8(t) {
		write(t, dir, name+".gz", zip(t, b))
	}
	write(t, dir, "mm-1.img.gz", zip(t, []byte("mm")))
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := memory.NewImages(c.Files).Open(1); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mm-1.img: memory is not read from such files") {
		t.Error(err)
	}
	if names, err := c.Files.Names(); err != nil || !slices.Contains(names, "mm-1.img") {
		t.Error(names, err)
	}
	if _, err := memory.NewImages(c.Files).Open(2); !errors.As(err, new(*codec.MissingError)) {
		t.Error(err)
	}
}
