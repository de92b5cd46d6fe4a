package checkpoint_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// archives are the archives of testdata, by entry.
var archives = map[string]string{"p-gzip": "p-gzip.tar.gz", "p-zstd": "p-zstd.tar.zst", "p-none": "p-none.tar"}

func archivePath(tb testing.TB, name string) string { return testimg.Path(tb, name, archives[name]) }

// member is a member of a tar archive for tests.
type member struct {
	name string
	data []byte
	typ  byte
	link string
	pax  map[string]string
}

// makeTar builds an archive with the standard library.
func makeTar(tb testing.TB, entries ...member) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.data)), Typeflag: e.typ, Linkname: e.link, Mode: 0o600, PAXRecords: e.pax}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.typ == 'x' {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// threads8 is the images of a real checkpoint, by name.
func threads8(tb testing.TB) map[string][]byte {
	files := map[string][]byte{}
	for _, path := range testimg.Glob(tb, "h-threads8/*.img") {
		base := filepath.Base(path)
		if strings.HasPrefix(base, "core-") || base == "pstree.img" || base == "inventory.img" {
			b, err := os.ReadFile(path)
			if err != nil {
				tb.Fatal(err)
			}
			files[base] = b
		}
	}
	return files
}

func sortedNames(m map[string][]byte) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// imagesTar is an archive of a checkpoint whose members' names start with prefix.
func imagesTar(tb testing.TB, prefix string, more ...member) []byte {
	files := threads8(tb)
	var es []member
	for _, name := range sortedNames(files) {
		es = append(es, member{name: prefix + name, data: files[name]})
	}
	return makeTar(tb, append(es, more...)...)
}

func countThreads(t *testing.T, c *checkpoint.Checkpoint) int {
	t.Helper()
	n := 0
	for _, err := range c.Threads() {
		if err != nil {
			t.Errorf("%s: %v", c.Path, err)
		}
		n++
	}
	return n
}

// TestArchiveShapes reads archives in the forms that engines and people write.
func TestArchiveShapes(t *testing.T) {
	files := threads8(t)
	long := "pod/" + strings.Repeat("a-very-long-name/", 12) + "checkpoint/"
	var reversed []member
	for _, name := range slices.Backward(sortedNames(files)) {
		reversed = append(reversed, member{name: "checkpoint/" + name, data: files[name]})
	}
	tests := []struct {
		name  string
		tar   []byte
		paths []string
	}{
		{"at the root", imagesTar(t, ""), []string{"x.tar"}},
		{"dot slash", imagesTar(t, "./checkpoint/"), []string{"x.tar"}},
		{"a long name", imagesTar(t, long), []string{"x.tar"}},
		{"pstree last and first", makeTar(t, reversed...), []string{"x.tar"}},
		{"a pre-dump beside it", imagesTar(t, "checkpoint/", member{name: "pre-checkpoint/inventory.img", data: files["inventory.img"]}, member{name: "pre-checkpoint/pages-1.img", data: make([]byte, 70000)}), []string{"x.tar"}},
		{"two checkpoints", slices.Concat(bytes.TrimRight(imagesTar(t, "a/checkpoint/"), "\x00"), padTo(bytes.TrimRight(imagesTar(t, "a/checkpoint/"), "\x00")), imagesTar(t, "b/checkpoint/")), []string{"x.tar:a/checkpoint", "x.tar:b/checkpoint"}},
		{"in pax format", paxTar(t, files), []string{"x.tar"}},
	}
	for _, tt := range tests {
		for name, compress := range compressors(t) {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				cs, err := found(checkpoint.ReadAll("x.tar", bytes.NewReader(compress(tt.tar)), checkpoint.Options{}))
				if err != nil {
					t.Fatal(err)
				}
				var paths []string
				for _, c := range cs {
					paths = append(paths, c.Path)
					for _, p := range c.Problems {
						t.Error(p)
					}
					if n := countThreads(t, c); n != 8 {
						t.Errorf("%s: %d threads, want 8", c.Path, n)
					}
				}
				if !slices.Equal(paths, tt.paths) {
					t.Errorf("checkpoints %q, want %q", paths, tt.paths)
				}
			})
		}
	}
}

// padTo returns zeros up to the next block.
func padTo(b []byte) []byte { return make([]byte, -len(b)&511) }

func paxTar(tb testing.TB, files map[string][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range sortedNames(files) {
		h := &tar.Header{Name: "checkpoint/" + name, Size: int64(len(files[name])), Mode: 0o600, Typeflag: tar.TypeReg, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "comment": strings.Repeat("c", 2000)}}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			tb.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// compressors are the ways to compress an archive that are at hand.
func compressors(tb testing.TB) map[string]func([]byte) []byte {
	run := func(f func(w io.Writer) io.WriteCloser) func([]byte) []byte {
		return func(b []byte) []byte {
			var out bytes.Buffer
			w := f(&out)
			if _, err := w.Write(b); err != nil {
				tb.Fatal(err)
			}
			if err := w.Close(); err != nil {
				tb.Fatal(err)
			}
			return out.Bytes()
		}
	}
	m := map[string]func([]byte) []byte{
		"none": func(b []byte) []byte { return b },
		"gzip": run(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
		"zstd": run(func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				tb.Fatal(err)
			}
			return z
		}),
	}
	for _, program := range []string{"bzip2", "xz"} {
		path, err := exec.LookPath(program)
		if err != nil {
			continue
		}
		m[program] = func(b []byte) []byte {
			cmd := exec.Command(path, "-c", "-1")
			cmd.Stdin = bytes.NewReader(b)
			out, err := cmd.Output()
			if err != nil {
				tb.Fatal(err)
			}
			return out
		}
	}
	return m
}

// sparseTar has GNU tar store real core images as sparse files of a size: trailing
// bytes are ignored.
func sparseTar(t *testing.T, format string, size int64) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, b := range threads8(t) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "core-") {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := exec.Command(testcmd.GNUTar(t), "-C", dir, "--format="+format, "-Scf", "-", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 1<<20 {
		t.Fatalf("the archive is not sparse: %d bytes", len(b))
	}
	return b
}

// TestArchiveSparse reads core images that GNU tar stored as sparse files.
func TestArchiveSparse(t *testing.T) {
	for _, format := range []string{"gnu", "posix"} {
		t.Run(format, func(t *testing.T) {
			cs, err := found(checkpoint.ReadAll("x.tar", bytes.NewReader(sparseTar(t, format, 1<<20)), checkpoint.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			if n := countThreads(t, cs[0]); n != 8 {
				t.Errorf("%d threads, want 8", n)
			}
			for th := range cs[0].Threads() {
				want := threads8(t)[filepath.Base(th.Image.Path)]
				if len(th.Image.Raw()) != 1<<20 || !bytes.HasPrefix(th.Image.Raw(), want) {
					t.Errorf("%s: not the file that was stored", th.Image.Path)
				}
			}
		})
	}
}

// TestArchiveHostile reads archives that mean harm.
func TestArchiveHostile(t *testing.T) {
	files := threads8(t)
	core := sortedNames(files)[0]
	long := bytes.Repeat([]byte("x"), 1<<20+1)
	tests := []struct {
		name string
		tar  []byte
		want string // of the error or problem
	}{
		{"a path that escapes", imagesTar(t, "checkpoint/", member{name: "../" + core, data: files[core]}), "leads out of the archive"},
		{"an absolute path", imagesTar(t, "checkpoint/", member{name: "/etc/" + core, data: files[core]}), "leads out of the archive"},
		{"an escape in the middle", imagesTar(t, "checkpoint/", member{name: "checkpoint/../../" + core, data: files[core]}), "leads out of the archive"},
		{"a link as core image", makeTar(t, member{name: "checkpoint/pstree.img", data: files["pstree.img"]}, member{name: "checkpoint/" + core, typ: tar.TypeSymlink, link: "/etc/passwd"}), "not a regular file"},
		{"a hard link out", makeTar(t, member{name: "checkpoint/" + core, typ: tar.TypeLink, link: "../../etc/passwd"}), "a hard link"},
		{"a device", makeTar(t, member{name: "checkpoint/" + core, typ: tar.TypeChar}), "not a regular file"},
		{"two members of one name", imagesTar(t, "checkpoint/", member{name: "./checkpoint/" + core, data: files[core]}), "a second member of this name"},
		{"a huge pax header", imagesTar(t, "checkpoint/", member{name: "a", pax: map[string]string{"comment": string(long[:1<<19])}}), ""},
		{"a pax header beyond the limit", hugePax(imagesTar(t, "checkpoint/")), "extended header"},
		{"no checkpoint", makeTar(t, member{name: "a"}), "no checkpoint"},
		{"only a pre-dump", makeTar(t, member{name: "pre-checkpoint/inventory.img", data: files["inventory.img"]}), "only a pre-dump"},
		{"nothing", make([]byte, 10240), "no checkpoint in the archive"},
		{"absolute paths alone", imagesTar(t, "/var/checkpoint/"), "leads out of the archive; pack it again"},
		{"a name beyond any path", imagesTar(t, "checkpoint/", member{name: strings.Repeat("n/", 5000) + core}), "longer than any path"},
		{"more directories than anyone has", makeTar(t, slices.Collect(func(yield func(member) bool) {
			for i := range 20_000 {
				if !yield(member{name: fmt.Sprint(i, "/", core)}) {
					return
				}
			}
		})...), "more than 256 MiB of images and their directories"},
		{"an image layout", makeTar(t, member{name: "./oci-layout", data: []byte("{}")}, member{name: "./index.json"}), "no layer of it holds a checkpoint"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cs, err := found(checkpoint.ReadAll("x.tar", bytes.NewReader(tt.tar), checkpoint.Options{}))
			var errs []error
			for _, c := range cs {
				errs = append(errs, c.Problems...)
				for _, err := range c.Threads() {
					errs = append(errs, err)
				}
			}
			err = errors.Join(append(errs, err)...)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// hugePax puts a pax header of 2 GiB, which is not there, before the archive.
func hugePax(b []byte) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 2 << 30, Format: tar.FormatUSTAR})
	h := buf.Bytes()[:512]
	h[156] = 'x'
	sumHeader(h)
	return slices.Concat(h, make([]byte, 1<<20+512), b)
}

// sumHeader writes the checksum of a header block.
func sumHeader(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// TestArchiveTruncated cuts archives at every block, or every [testcmd.Step]th, and in the
// middle of blocks.
func TestArchiveTruncated(t *testing.T) {
	b, err := os.ReadFile(archivePath(t, "p-none"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.tar")
	for block := range testcmd.Cases(len(b)/512, 0) {
		n := block * 512
		for _, cut := range []int{n, n + 100} {
			if err := os.WriteFile(path, b[:min(cut, len(b))], 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := found(checkpoint.OpenAll(path, checkpoint.Options{}))
			s, serr := found(checkpoint.ReadAll(path, bytes.NewReader(b[:min(cut, len(b))]), checkpoint.Options{}))
			if (err == nil) != (serr == nil) || len(c) != len(s) {
				t.Fatalf("cut at %d: from the file %v, from a stream %v", cut, err, serr)
			}
			if err == nil {
				for _, terr := range c[0].Threads() {
					err = errors.Join(err, terr)
				}
				err = errors.Join(append(c[0].Problems, err)...)
			}
			// Cut between members the archive is whole, as archive/tar has it.
			if cut%512 != 0 && err == nil {
				t.Errorf("cut at %d: no error", cut)
			}
		}
	}
	for turn, name := range []string{"p-gzip", "p-zstd"} {
		b, err := os.ReadFile(archivePath(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for block := range testcmd.Cases((len(b)-100+511)/512, turn) {
			n := block * 512
			c, err := found(checkpoint.ReadAll(name, bytes.NewReader(b[:n]), checkpoint.Options{}))
			if err == nil && len(c[0].Problems) == 0 {
				// The walk may end before the cut.
				if got := countThreads(t, c[0]); n < len(b)/2 || got == 0 {
					t.Errorf("%s cut at %d of %d: no error, %d threads", name, n, len(b), got)
				}
			}
		}
	}
}

// bombSize is that of the member whose header bombHeader returns.
const bombSize int64 = 100e9

func bombHeader(t *testing.T) []byte {
	t.Helper()
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: "checkpoint/pages-1.img", Typeflag: tar.TypeReg, Size: bombSize, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	return head.Bytes()[:512]
}

// TestArchiveBomb skips a member of 100 GB of zeros by seeking.
func TestArchiveBomb(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bomb.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bombHeader(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(imagesTar(t, "checkpoint/"), 512+(bombSize+511)/512*512); err != nil {
		t.Skip("the file system has no sparse files of this size: ", err)
	}
	c, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := countThreads(t, c); n != 8 {
		t.Errorf("%d threads behind the zeros, want 8", n)
	}
}

// TestArchiveLastCounts reads archives as tar unpacks them: of two members of one name
// the last one counts, however far behind the checkpoint it stands, and whichever way its
// name is spelled.
func TestArchiveLastCounts(t *testing.T) {
	files := threads8(t)
	whole := []member{{name: "config.dump", data: []byte(`{"name":"first"}`)}}
	for _, name := range sortedNames(files) {
		whole = append(whole, member{name: "checkpoint/" + name, data: files[name]})
	}
	const name, twice, irregular = "core-22100.img", "a second member of this name", "not a regular file"
	other := files["core-22103.img"]
	between := member{name: "rootfs-diff.tar", data: make([]byte, 1<<20)}
	tests := []struct {
		name string
		last member
		want []string // problems, and errors of the thread
	}{
		{"the same name", member{name: "checkpoint/" + name, data: other}, []string{twice}},
		{"dot slash", member{name: "./checkpoint/./" + name, data: other}, []string{twice}},
		{"two slashes", member{name: "checkpoint//" + name, data: other}, []string{twice}},
		{"a long name", member{name: strings.Repeat("./", 300) + "checkpoint/" + name, data: other}, []string{twice}},
		{"a symbolic link", member{name: "checkpoint/" + name, typ: tar.TypeSymlink, link: "core-22103.img"}, []string{twice, irregular}},
		{"a hard link", member{name: "checkpoint/" + name, typ: tar.TypeLink, link: "checkpoint/core-22103.img"}, []string{twice, "a hard link"}},
		{"a directory", member{name: "checkpoint/" + name + "/", typ: tar.TypeDir}, []string{twice, irregular}},
		{"a file that ends in a slash", member{name: "checkpoint/" + name + "?", data: other}, []string{twice, irregular}},
		{"a link for the directory", member{name: "/checkpoint", typ: tar.TypeSymlink, link: "elsewhere"}, []string{"a link, and images below its name"}},
	}
	for _, tt := range tests {
		for how, compress := range compressors(t) {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				b := makeTar(t, append(slices.Clip(whole), between, tt.last, member{name: "config.dump", data: []byte(`{"name":"last"}`)})...)
				if strings.HasSuffix(tt.last.name, "?") { // archive/tar writes no such name
					h := b[bytes.Index(b, []byte(tt.last.name)):][:512]
					h[len(tt.last.name)-1] = '/'
					sumHeader(h)
				}
				cs, err := found(checkpoint.ReadAll("x", bytes.NewReader(compress(b)), checkpoint.Options{}))
				if err != nil || len(cs) != 1 {
					t.Fatalf("%d checkpoints, error %v; want one", len(cs), err)
				}
				c := cs[0]
				errs := c.Problems
				for th, err := range c.Threads() {
					switch {
					case err != nil:
						errs = append(errs, err)
					case th.TID == 22100 && tt.last.data != nil && !bytes.Equal(th.Image.Raw(), other):
						t.Error("the first member was read")
					}
				}
				for i, want := range tt.want {
					if i >= len(errs) || !strings.Contains(errs[i].Error(), want) {
						t.Fatalf("errors %v, want %q", errs, tt.want)
					}
				}
				if len(errs) != len(tt.want) {
					t.Errorf("errors %v, want %q", errs, tt.want)
				}
				if c.Container.Name != "last" {
					t.Errorf("container %q, want the last", c.Container.Name)
				}
			})
		}
	}
}

// TestArchiveChecksum flips the last bytes of compressed archives, which check the
// content.
func TestArchiveChecksum(t *testing.T) {
	for how, compress := range compressors(t) {
		b := compress(imagesTar(t, "checkpoint/"))
		switch how {
		case "none", "zstd": // klauspost's encoder writes none for a stream of one block
			continue
		}
		for i := range 4 {
			b[len(b)-8+i] ^= 0x55
		}
		cs, err := found(checkpoint.ReadAll("x", bytes.NewReader(b), checkpoint.Options{}))
		for _, c := range cs {
			err = errors.Join(append(c.Problems, err)...)
		}
		if _, ok := errors.AsType[*checkpoint.CompressionError](err); !ok {
			t.Errorf("%s: error %v, want one of the compression", how, err)
		}
	}
}

// TestArchiveTiny reads members that hold next to nothing, and count all the same.
func TestArchiveTiny(t *testing.T) {
	const n = 1000
	var images, links []member
	for i := range n {
		images = append(images, member{name: fmt.Sprintf("checkpoint/core-%d.img", i)})
		links = append(links, member{name: fmt.Sprintf("lib/%d", i), typ: tar.TypeSymlink, link: "x"})
	}
	for _, tt := range []struct {
		name    string
		members []member
	}{{"images", images}, {"links", links}} {
		_, err := found(checkpoint.ReadAllAfter("x", bytes.NewReader(makeTar(t, tt.members...)), 256<<20-n*200))
		cs, _ := found(checkpoint.ReadAllAfter("x", bytes.NewReader(makeTar(t, tt.members...)), 256<<20-n*200))
		for _, c := range cs {
			err = errors.Join(append(c.Problems, err)...)
		}
		if err == nil || !strings.Contains(err.Error(), "more than 256 MiB") {
			t.Errorf("%s: error %v, want that it is too much", tt.name, err)
		}
	}
}

// TestArchiveManyThreads reads more images than the bound allows to hold: images that
// are alike are held once, and those of a plain file not at all.
func TestArchiveManyThreads(t *testing.T) {
	const n = 1000
	files := threads8(t)
	core := files["core-22100.img"]
	var alike, unlike []member
	for i := range n {
		name := fmt.Sprintf("checkpoint/core-%d.img", 1+i)
		alike = append(alike, member{name: name, data: core})
		unlike = append(unlike, member{name: name, data: append(slices.Clip(core), fmt.Sprint(i)...)})
	}
	read := func(r io.Reader, name string) error {
		cs, err := found(checkpoint.ReadAllAfter(name, r, 256<<20-1<<20))
		for _, c := range cs {
			for _, p := range c.Problems {
				if _, ok := errors.AsType[*codec.MissingError](p); !ok {
					err = errors.Join(err, p)
				}
			}
			if got := countThreads(t, c); got != n && err == nil {
				t.Errorf("%d threads, want %d", got, n)
			}
		}
		return err
	}
	gzip := compressors(t)["gzip"]
	if err := read(bytes.NewReader(gzip(makeTar(t, alike...))), "x"); err != nil {
		t.Error(err)
	}
	if err := read(bytes.NewReader(gzip(makeTar(t, unlike...))), "x"); err == nil || !strings.Contains(err.Error(), "more than 256 MiB") {
		t.Errorf("error %v, want that it is too much", err)
	}
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, makeTar(t, unlike...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := read(f, path); err != nil {
		t.Error(err)
	}
}

// TestArchiveTreeOnce reads an archive whose pstree.img is long, and of many images: it
// is not decoded for each of them.
func TestArchiveTreeOnce(t *testing.T) {
	es := []member{{name: "config.dump", data: []byte("{}")}, {name: "checkpoint/pstree.img", data: codec.MarshalPstree([]codec.SavedTask{{PID: 1, TIDs: slices.Repeat([]int{1}, 1<<20)}})}, {name: "checkpoint/core-1.img"}}
	for i := range 100 {
		es = append(es, member{name: fmt.Sprintf("checkpoint/core-%d.img", 1000+i)}, member{name: "o"})
	}
	b := compressors(t)["gzip"](makeTar(t, es...))
	got := testimg.Allocated(func() {
		if _, err := found(checkpoint.ReadAll("x", bytes.NewReader(b), checkpoint.Options{})); err != nil {
			t.Error(err)
		}
	})
	if limit := uint64(32 << 20); got > limit {
		t.Errorf("%d MiB allocated, want %d at most", got>>20, limit>>20)
	}
}

// TestDirectoriesAbove opens directories that hold the images further down.
func TestDirectoriesAbove(t *testing.T) {
	tests := []struct {
		name string
		dirs []string
	}{
		{"podman", []string{"checkpoint"}},
		{"docker", []string{"checkpoints/a", "checkpoints/b"}},
		{"incus", []string{"state/final"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			var want []string
			for _, dir := range tt.dirs {
				path := filepath.Join(root, filepath.FromSlash(dir))
				want = append(want, path)
				if err := os.MkdirAll(path, 0o700); err != nil {
					t.Fatal(err)
				}
				for name, b := range threads8(t) {
					if err := os.WriteFile(filepath.Join(path, name), b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.WriteFile(filepath.Join(root, "config.dump"), []byte(`{"name":"web"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			cs, err := found(checkpoint.OpenAll(root, checkpoint.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range cs {
				got = append(got, c.Path)
				if n := countThreads(t, c); n != 8 {
					t.Errorf("%s: %d threads, want 8", c.Path, n)
				}
				if tt.name == "podman" && (c.Container == nil || c.Container.Name != "web") {
					t.Errorf("container %+v, want the name web", c.Container)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("checkpoints %q, want %q", got, want)
			}
		})
	}
}

// FuzzArchive reads arbitrary bytes as an archive, from a file and from a stream.
func FuzzArchive(f *testing.F) {
	f.Add(imagesTar(f, "checkpoint/"))
	f.Add(paxTar(f, threads8(f)))
	for name := range archives {
		b, err := os.ReadFile(archivePath(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, compress := range compressors(f) {
		f.Add(compress(makeTar(f, member{name: "checkpoint/core-1.img", data: []byte("a")}, member{name: "l", typ: tar.TypeSymlink, link: "/"})))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		cs, err := found(checkpoint.ReadAll("x", bytes.NewReader(b), checkpoint.Options{}))
		for _, c := range cs {
			for th, err := range c.Threads() {
				if err == nil {
					th.State.Vectors()
				}
			}
		}
		_ = err
	})
}

// TestContainers names the container by what each engine writes.
func TestContainers(t *testing.T) {
	core := member{name: "checkpoint/core-1.img", data: threads8(t)["core-22100.img"]}
	tests := []struct {
		name, config, spec string
		want               *checkpoint.Container
	}{
		{"podman", `{"name":"web","rootfsImageName":"i:1","runtime":"crun"}`, `{"annotations":{"io.container.manager":"libpod"}}`,
			&checkpoint.Container{Name: "web", Image: "i:1", Engine: "Podman", Runtime: "crun"}},
		{"cri-o", `{"name":"k8s_web_pod","runtime":"runc"}`, `{"annotations":{"io.container.manager":"cri-o","io.kubernetes.cri-o.Metadata":"{\"name\":\"web\"}"}}`,
			&checkpoint.Container{Name: "web", Engine: "CRI-O", Runtime: "runc"}},
		{"containerd", `{"id":"1"}`, `{"annotations":{"io.kubernetes.cri.container-name":"web"}}`, &checkpoint.Container{Name: "web", Engine: "containerd"}},
		{"rubbish", `[1]`, `"annotations"`, nil},
		{"hostile", `{"name":"a\u001b[31m\nb"}`, `{}`, &checkpoint.Container{Name: "a\x1b[31m\nb"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := makeTar(t, member{name: "config.dump", data: []byte(tt.config)}, member{name: "./spec.dump", data: []byte(tt.spec)}, core)
			cs, err := found(checkpoint.ReadAll("x", bytes.NewReader(b), checkpoint.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			got := cs[0].Container
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("container %+v, want %+v", got, tt.want)
			}
		})
	}
}
