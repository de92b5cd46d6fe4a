package guest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cpioEntry is one entry of a parsed archive.
type cpioEntry struct {
	name  string
	mode  uint32
	mtime int64
	data  string
}

// parseCPIO reads an archive by the kernel's description of the format, and
// fails the test where it does not keep to it.
func parseCPIO(t *testing.T, b []byte) []cpioEntry {
	t.Helper()
	var entries []cpioEntry
	inodes := map[uint64]bool{}
	for off := 0; ; {
		if len(b) < off+110 || string(b[off:off+6]) != "070701" {
			t.Fatalf("no header at %#x", off)
		}
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(b[off+6+8*i:off+14+8*i]), 16, 32)
			if err != nil {
				t.Fatalf("header at %#x: %v", off, err)
			}
			return v
		}
		size, nameSize := int(field(6)), int(field(11))
		nameEnd := off + 110 + nameSize
		data := (nameEnd + 3) &^ 3
		end := (data + size + 3) &^ 3
		if end > len(b) || b[nameEnd-1] != 0 {
			t.Fatalf("entry at %#x does not fit", off)
		}
		name := string(b[off+110 : nameEnd-1])
		if name == "TRAILER!!!" {
			if len(b)%512 != 0 {
				t.Errorf("length %d is not padded", len(b))
			}
			return entries
		}
		// One inode number twice would be a hard link.
		if inodes[field(0)] {
			t.Errorf("%s: inode %d again", name, field(0))
		}
		inodes[field(0)] = true
		entries = append(entries, cpioEntry{name, uint32(field(1)), int64(field(5)), string(b[data : data+size])})
		off = end
	}
}

func TestCPIO(t *testing.T) {
	root := t.TempDir()
	when := time.Unix(1700000000, 0)
	write := func(name, data string, mode os.FileMode) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, when, when); err != nil {
			t.Fatal(err)
		}
	}
	write("tree/core-1.img", "12345", 0o600)
	write("tree/sub/run", "", 0o755)
	if err := os.Symlink("core-1.img", filepath.Join(root, "tree/link")); err != nil {
		t.Fatal(err)
	}

	var buf bytes.Buffer
	c := newCPIOWriter(&buf)
	for _, err := range []error{
		c.bytes("/job/job.json", 0o644, []byte("{}")),
		c.tree("/job/in", filepath.Join(root, "tree")),
		c.tree("/job/one", filepath.Join(root, "tree/link")),
		c.symlink("/bin/sh", "busybox"),
		c.close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const file, dir, link = 0o100000, 0o040000, 0o120777
	want := []cpioEntry{
		{"job", dir | 0o755, 0, ""},
		{"job/job.json", file | 0o644, 0, "{}"},
		{"job/in", dir | 0o755, 0, ""},
		{"job/in/core-1.img", file | 0o600, when.Unix(), "12345"},
		{"job/in/link", link, 0, "core-1.img"},
		{"job/in/sub", dir | 0o755, 0, ""},
		{"job/in/sub/run", file | 0o755, when.Unix(), ""},
		{"job/one", file | 0o600, when.Unix(), "12345"},
		{"bin", dir | 0o755, 0, ""},
		{"bin/sh", link, 0, "busybox"},
	}
	if got := parseCPIO(t, buf.Bytes()); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	if cpio, err := exec.LookPath("cpio"); err == nil {
		cmd := exec.Command(cpio, "-t", "--quiet")
		cmd.Stdin = &buf
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("cpio -t: %v", err)
		}
		if got := strings.Fields(string(out)); len(got) != len(want) {
			t.Errorf("cpio lists %d entries, want %d: %q", len(got), len(want), got)
		}
	}
}

func TestCPIOErrors(t *testing.T) {
	c := newCPIOWriter(&bytes.Buffer{})
	if err := c.tree("/x", filepath.Join(t.TempDir(), "missing")); !os.IsNotExist(err) {
		t.Errorf("a missing tree: got %v", err)
	}
	if err := c.file("/x", 0o644, time.Time{}, strings.NewReader("short"), 10); err == nil {
		t.Error("a file that shrinks while it is read is taken")
	}
	want := fmt.Errorf("no space")
	if err := newCPIOWriter(failing{want}).dir("/a/b", 0o755); err != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
