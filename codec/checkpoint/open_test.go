package checkpoint_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestOpenDamaged opens directories in which something is missing or damaged: the
// rest is there all the same.
func TestOpenDamaged(t *testing.T) {
	tests := []struct {
		name     string
		damage   func(t *testing.T, dir string)
		threads  string // PID/TID of each, "!" where there is an error instead
		problems int
	}{
		{"whole", func(*testing.T, string) {}, "25000/25000 25004/25004 25005/25005", 0},
		{"no pstree", remove("pstree.img"), "25000/25000 25004/25004 25005/25005", 1},
		{"cut pstree", cut("pstree.img"), "25000/25000 25004/25004 25005/25005", 1},
		{"no core", remove("core-25004.img"), "25000/25000 ! 25005/25005", 0},
		{"cut core", cut("core-25004.img"), "25000/25000 ! 25005/25005", 0},
		{"cut cpuinfo", cut("cpuinfo.img"), "25000/25000 25004/25004 25005/25005", 1},
		{"cut inventory", func(t *testing.T, dir string) { write(t, dir, "inventory.img", nil) },
			"25000/25000 25004/25004 25005/25005", 1},
		{"link for a core", func(t *testing.T, dir string) {
			remove("core-25004.img")(t, dir)
			if err := os.Symlink("core-25000.img", filepath.Join(dir, "core-25004.img")); err != nil {
				t.Fatal(err)
			}
		}, "25000/25000 ! 25005/25005", 0},
		{"zombie", func(t *testing.T, dir string) {
			// mtype 1, and tc with task_state 2 and what else must be there; pstree.img
			// holds rubbish for its threads.
			write(t, dir, "core-25004.img", []byte("\x19\x43\x56\x54\x47\x38\x05\x55\x10\x00\x00\x00\x08\x01\x1a\x0c\x08\x02\x10\x00\x18\x00\x20\x00\x28\x00\x32\x00"))
		}, "25000/25000 25005/25005", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, pattern := range []string{"core-*.img", "cpuinfo.img", "inventory.img", "pstree.img"} {
				for _, path := range testimg.Glob(t, "h-tree3/"+pattern) {
					write(t, dir, filepath.Base(path), testimg.Read(t, testimg.Name(t, path)))
				}
			}
			tt.damage(t, dir)
			c, err := checkpoint.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(c.Problems); got != tt.problems {
				t.Errorf("%d problems, want %d: %v", got, tt.problems, c.Problems)
			}
			if got := threads(c); got != tt.threads {
				t.Errorf("threads %q, want %q", got, tt.threads)
			}
		})
	}
}

// TestOpenNot opens what is no checkpoint.
func TestOpenNot(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "notes.txt", []byte("nothing"))
	for _, path := range []string{dir, filepath.Join(dir, "notes.txt"), filepath.Join(dir, "absent"), filepath.Join(dir, "core-1.img")} {
		if _, err := checkpoint.Open(path); err == nil {
			t.Errorf("%s is opened without an error", path)
		}
	}
}

// TestOpenReader reads one core image from a stream.
func TestOpenReader(t *testing.T) {
	b := testimg.Read(t, "h-avx512", "core-20000.img")
	c, err := found(checkpoint.ReadAll("-", bytes.NewReader(b), checkpoint.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := threads(c[0]), "0/0"; !strings.HasSuffix(got, want) {
		t.Errorf("threads %q, want %q", got, want)
	}
	_, err = checkpoint.ReadAll("-", bytes.NewReader(b[:100]), checkpoint.Options{})
	if format, ok := errors.AsType[*codec.FormatError](err); !ok || format.Path != "-" {
		t.Errorf("error %v, want a *FormatError", err)
	}
}

// TestTreeLeader gives processes another first thread than themselves: one that has
// ended has none, a living one is damaged.
func TestTreeLeader(t *testing.T) {
	tests := []struct {
		name  string
		tasks []codec.SavedTask
		want  string
	}{
		{"a living one", []codec.SavedTask{{PID: 22100, TIDs: []int{22109, 22103}}}, "22100/22100 ! 22100/22103"},
		{"one that has ended", []codec.SavedTask{{PID: 7, TIDs: []int{22100, 22103}}}, "7/22100 7/22103"},
		{"two with one thread", []codec.SavedTask{{PID: 7, TIDs: []int{22100}}, {PID: 8, TIDs: []int{22100}}}, "7/22100 !"},
		{"a thread of another", []codec.SavedTask{{PID: 7, TIDs: []int{22103}}, {PID: 22100, TIDs: []int{22100, 22103}}}, "! 22100/22100 22100/22103"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := threads8(t)
			for _, name := range []string{"core-22100.img", "core-22103.img"} {
				write(t, dir, name, files[name])
			}
			write(t, dir, "pstree.img", codec.MarshalPstree(tt.tasks))
			c, err := checkpoint.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := threads(c); got != tt.want {
				t.Errorf("threads %q, want %q", got, tt.want)
			}
		})
	}
}

// TestBackup checks that the original that a conversion in place left is no image, though
// the image is gone.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	for name, b := range threads8(t) {
		write(t, dir, name, b)
	}
	if err := os.Rename(filepath.Join(dir, "core-22100.img"), filepath.Join(dir, "core-22100.img.orig")); err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range c.Threads() {
		if _, ok := errors.AsType[*codec.MissingError](err); !ok {
			t.Errorf("error %v, want that the leader's image is missing", err)
		}
		break
	}
}

// TestPagemap: how memory is dumped is read in each container, from a pagemap that a
// compressed archive holds.
func TestPagemap(t *testing.T) {
	tests := []struct {
		path []string
		wide bool
	}{
		{[]string{"g-haswell-criu317-auto"}, false},
		{[]string{"g-haswell-criu42-sse"}, true},
		{[]string{"h-threads8"}, true},
		{[]string{"p-none", "p-none.tar"}, true},
		{[]string{"p-gzip", "p-gzip.tar.gz"}, true},
		{[]string{"p-zstd", "p-zstd.tar.zst"}, true},
	}
	for _, tt := range tests {
		c, err := checkpoint.Open(testimg.Path(t, tt.path...))
		if err != nil {
			t.Fatal(err)
		}
		if m, err := c.Pagemap(); err != nil || m == nil || m.Wide != tt.wide || m.Compressed {
			t.Errorf("%v: got %+v, %v, want wide %v", tt.path, m, err, tt.wide)
		}
	}
	core, err := checkpoint.Open(testimg.Path(t, "g-haswell-criu42-sse", "core-8050.img"))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := core.Pagemap(); m != nil || err != nil {
		t.Errorf("a lone core image: got %+v, %v", m, err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(testimg.Path(t, "g-haswell-criu42-sse"))); err != nil {
		t.Fatal(err)
	}
	// CRIU 4.3 says in inventory.img that it compressed the pages: compress, field 15.
	inventory := filepath.Join(dir, "inventory.img")
	b, err := os.ReadFile(inventory)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, 15<<3, 1)
	b[4] += 2 // the length of the entry
	if err := os.WriteFile(inventory, b, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Pagemap(); err != nil || !m.Compressed {
		t.Errorf("compressed: got %+v, %v", m, err)
	}
	if err := os.Truncate(filepath.Join(dir, "pagemap-8050.img"), 20); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Pagemap(); m != nil || !isFormatError(err) {
		t.Errorf("cut off: got %+v, %v", m, err)
	}
}

func isFormatError(err error) bool {
	_, ok := errors.AsType[*codec.FormatError](err)
	return ok
}
