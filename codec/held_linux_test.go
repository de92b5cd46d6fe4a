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
	for name, size := range map[string]int{"empty": 0, "small": 100, "sector": 512, "page": 4096, "two": 6000, "likely": 8192, "more": 8193, "pages": limit, "large": limit + 1} {
		write(t, dir, name, []byte(strings.Repeat("content!", size/8+1)[:size]))
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{os.Symlink("small", at("link")), os.Symlink("/proc/self", at("away")), unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("dir"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"empty", "small", "sector", "page", "two", "likely", "more", "pages", "large", "link", "fifo", "dir", "missing"}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8} {
		// Who may not make devices has none to be refused.
		if unix.Mknod(at(name), unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))) == nil {
			names = append(names, name)
		}
	}
	before := openFiles(t)
	for _, path := range []string{dir, dir + "/", dir + "/away/..", filepath.Join(dir, "gone"), at("small"), at("fifo")} {
		for _, cold := range []int64{-1, 0, 4096} { // from there on
			held := codec.Dir(path).Hold()
			for _, name := range names {
				want, wantErr := codec.ReadImage(codec.Dir(path), name)
				if len(want) > limit {
					want, wantErr = nil, &codec.FormatError{Path: at(name), Offset: codec.MaxImage, Field: "file", Err: codec.ErrTooLarge}
				}
				if cold >= 0 {
					drop(filepath.Join(path, name), cold)
				}
				got, begun, err := held.Begin([]byte("before"), held.Label(name), limit)
				if begun != nil {
					got, err = begun.Append(append(got, " more"...))
					want = append([]byte(" more"), want...)
				}
				if string(got) != "before"+string(want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
					t.Errorf("%s/%s: cold from %d: %d bytes, %v; want %d, %v", path, name, cold, len(got), err, len(want)+6, wantErr)
				}
			}
			held.Close()
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

// drop makes the kernel forget what a file on a disk holds from a page on.
func drop(path string, from int64) {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return
	}
	if f, err := os.Open(path); err == nil {
		f.Sync()
		unix.Fadvise(int(f.Fd()), from, 0, unix.FADV_DONTNEED)
		f.Close()
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
