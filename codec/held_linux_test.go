package codec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec"
)

// TestBegin begins to read what may lie in a directory, whether the kernel has it in
// memory or not: it is what ReadImage reads, or its error, and no file stays open.
func TestBegin(t *testing.T) {
	dir := t.TempDir()
	const limit = 20 << 10
	for name, size := range map[string]int{"empty": 0, "small": 100, "page": 4096, "pages": limit, "large": limit + 1} {
		write(t, dir, name, []byte(strings.Repeat("content!", size/8+1)[:size]))
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{os.Symlink("small", at("link")), unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("dir"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"empty", "small", "page", "pages", "large", "link", "fifo", "dir", "missing"}
	before := openFiles(t)
	for _, path := range []string{dir, dir + "/", filepath.Join(dir, "gone"), at("small"), at("fifo")} {
		for _, cold := range []bool{false, true} {
			held := codec.Dir(path).Hold()
			for _, name := range names {
				if cold {
					drop(t, filepath.Join(path, name))
				}
				want, wantErr := codec.ReadImage(codec.Dir(path), name)
				if len(want) > limit {
					want, wantErr = nil, &codec.FormatError{Path: at(name), Offset: codec.MaxImage, Field: "file", Err: codec.ErrTooLarge}
				}
				if cold {
					drop(t, filepath.Join(path, name))
				}
				got, begun, err := held.Begin([]byte("before"), held.Label(name), limit)
				if begun != nil {
					got, err = begun.Append(append(got, " more"...))
					want = append([]byte(" more"), want...)
				}
				if string(got) != "before"+string(want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
					t.Errorf("%s/%s: cold %v: %d bytes, %v; want %d, %v", path, name, cold, len(got), err, len(want)+6, wantErr)
				}
			}
			held.Close()
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

// drop makes the kernel forget what a regular file holds, where it has a disk.
func drop(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	f.Sync()
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
