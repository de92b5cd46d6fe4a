package convert_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/compat"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// tarOf packs a directory with GNU tar.
func tarOf(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(testcmd.GNUTar(t), append([]string{"-C", dir, "-cf", "-"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// magics begin compressed files; "none" is none.
var magics = map[string]string{"none": "", "gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd"}

// compress packs b as an archive file would be.
func compress(t testing.TB, b []byte, c string) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch c {
	case "none":
		return b
	case "gzip":
		w = gzip.NewWriter(&out)
	default:
		var err error
		if w, err = zstd.NewWriter(&out); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpacked decompresses an archive.
func unpacked(t testing.TB, path string) (b []byte, c string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r io.Reader
	switch {
	case bytes.HasPrefix(b, []byte(magics["gzip"])):
		c = "gzip"
		r, err = gzip.NewReader(bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte(magics["zstd"])):
		c = "zstd"
		r, err = zstd.NewReader(bytes.NewReader(b))
	default:
		return b, "none"
	}
	if err == nil {
		b, err = io.ReadAll(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b, c
}

// pod makes a directory as an engine packs it: images in checkpoint/, and all that
// tar can hold around them.
func pod(t testing.TB, image string) string {
	t.Helper()
	dir := scratch(t)
	if err := os.CopyFS(filepath.Join(dir, "checkpoint"), os.DirFS(testimg.Path(t, image))); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{"config.dump": `{"name":"web","runtime":"crun"}`, "ctr.log": "",
		"checkpoint/" + strings.Repeat("long", 30) + ".img": "a name too long for ustar",
		"rootfs-diff.tar": strings.Repeat("r", 3000)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	pages, err := os.Create(filepath.Join(dir, "checkpoint", "pages-9.img"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(30) {
		if _, err := pages.WriteAt([]byte("page"), i*65536); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(pages.Close(), os.Link(filepath.Join(dir, "ctr.log"), filepath.Join(dir, "same.log")),
		os.Symlink("../pre-checkpoint", filepath.Join(dir, "checkpoint", "parent"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeTemp(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(scratch(t), name)
	if err := os.WriteFile(path, b, 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// convertArchive converts all checkpoints of an archive and returns the new one.
func convertArchive(t testing.TB, path string, o convert.Options, a convert.ArchiveOptions) string {
	t.Helper()
	out := filepath.Join(scratch(t), "out.tar")
	if err := convert.WriteArchive(archivePlans(t, path, o), out, a); err != nil {
		t.Fatal(err)
	}
	return out
}

func archivePlans(t testing.TB, path string, o convert.Options) []*convert.Plan {
	t.Helper()
	all, err := checkpoint.OpenAll(path, checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var plans []*convert.Plan
	for _, f := range all {
		p, err := convert.NewPlan(f.Checkpoint, o)
		if err != nil {
			t.Fatal(err)
		}
		if p.Refused() {
			t.Fatal("the plan is refused")
		}
		plans = append(plans, p)
	}
	return plans
}

// blocks is one member as it stands in an archive.
type blocks struct {
	name         string
	header, data []byte
	offset       int64
}

// membersOf takes an archive apart as archive/tar does. A sparse map counts as header.
func membersOf(t testing.TB, b []byte) (out []blocks, tail []byte) {
	t.Helper()
	r := bytes.NewReader(b)
	tr := tar.NewReader(r)
	at := func() int { return (len(b) - r.Len() + 511) &^ 511 }
	start := 0
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out, b[start:]
		}
		if err != nil {
			t.Fatal(err)
		}
		data := at()
		if _, err := io.Copy(io.Discard, tr); err != nil {
			t.Fatal(err)
		}
		end := at()
		out = append(out, blocks{h.Name, bytes.Clone(b[start:data]), b[data:end], int64(start)})
		start = end
	}
}

// TestArchiveBytes converts archives of every format and compression, or of every
// [testcmd.Step]th. Every member that is not converted must keep its blocks, in their
// order; of a converted one only size and checksum may differ, and its content must be what
// converting the unpacked directory gives. Unpacking the result must give that directory.
func TestArchiveBytes(t *testing.T) {
	dir := pod(t, "h-threads8")
	wantDir := convertDir(t, filepath.Join(dir, "checkpoint"), forced(xstate.FormatFXSave))
	want := contents(t, wantDir)
	formats := map[string][]string{"gnu": {"--format=gnu"}, "pax": {"--format=posix"}, "pax, sparse": {"--format=posix", "-S"},
		"gnu, sparse": {"--format=gnu", "-S"}, "xattrs": {"--format=posix", "--xattrs", "--pax-option=comment:=x"}}
	compressions := []string{"none", "gzip", "zstd"}
	for i, name := range slices.Sorted(maps.Keys(formats)) {
		args := formats[name]
		for j, names := range [][]string{{"."}, {"checkpoint", "config.dump", "ctr.log", "rootfs-diff.tar", "same.log"}} {
			// The images themselves must not be sparse; their file system may make
			// them so.
			plain := tarOf(t, dir, append(args, names...)...)
			for k := range testcmd.Cases(len(compressions), 2*i+j) {
				c := compressions[k]
				t.Run(name+"/"+names[0]+"/"+c, func(t *testing.T) {
					path := writeTemp(t, "a.tar", compress(t, plain, c))
					out := convertArchive(t, path, forced(xstate.FormatFXSave), convert.ArchiveOptions{})
					plainOut, compression := unpacked(t, out)
					if compression != c {
						t.Errorf("compressed by %s, want %s", compression, c)
					}
					before, tail := membersOf(t, plain)
					after, tailAfter := membersOf(t, plainOut)
					if len(before) != len(after) {
						t.Fatalf("%d members, want %d", len(after), len(before))
					}
					if !bytes.Equal(tail, tailAfter) {
						t.Error("the end of the archive differs")
					}
					converted := 0
					for i, m := range before {
						n := after[i]
						base := filepath.Base(m.name)
						if !strings.HasPrefix(base, "core-") && base != "cpuinfo.img" {
							if !bytes.Equal(m.header, n.header) || !bytes.Equal(m.data, n.data) {
								t.Errorf("%s: not the same blocks", m.name)
							}
							continue
						}
						converted++
						if w := want[base]; !bytes.HasPrefix(n.data, []byte(w)) || len(n.data) != (len(w)+511)/512*512 {
							t.Errorf("%s: not what converting the directory gives", m.name)
						}
						at := len(m.header) - 512 // its own block
						for _, r := range [][2]int{{124, 136}, {148, 156}} {
							clear(m.header[at+r[0] : at+r[1]])
							clear(n.header[at+r[0] : at+r[1]])
						}
						if !bytes.Equal(m.header, n.header) {
							t.Errorf("%s: more than size and checksum changed in the header", m.name)
						}
					}
					if converted != 9 {
						t.Errorf("%d members converted, want 9", converted)
					}
					to := scratch(t)
					cmd := exec.Command("tar", "-C", to, "-xf", "-")
					cmd.Stdin = bytes.NewReader(plainOut)
					if msg, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("tar: %v: %s", err, msg)
					}
					got := contents(t, filepath.Join(to, "checkpoint"))
					if got["parent"] != "-> ../pre-checkpoint" {
						t.Errorf("the link to the parent is now %q", got["parent"])
					}
					got["parent"] = want["parent"] // a moved directory needs another
					if !maps.Equal(got, want) {
						t.Error("unpacked, it is not the converted directory")
					}
				})
			}
		}
	}
}

// TestArchivePodman converts the archives that Podman wrote, and back where that
// loses nothing.
func TestArchivePodman(t *testing.T) {
	for _, name := range []string{"p-gzip/p-gzip.tar.gz", "p-zstd/p-zstd.tar.zst", "p-none/p-none.tar"} {
		t.Run(name, func(t *testing.T) {
			path := testimg.Path(t, name)
			down := convertArchive(t, path, forced(xstate.FormatFXSave), convert.ArchiveOptions{})
			c, err := checkpoint.Open(down)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range c.Problems {
				t.Error(p)
			}
			for th, err := range c.Threads() {
				if err != nil || th.State.Format != xstate.FormatFXSave {
					t.Errorf("thread %d: %v, %v", th.TID, th.State.Format, err)
				}
			}
			if c.Container == nil || c.Container.Runtime != "runc" {
				t.Errorf("container %+v, want runc's", c.Container)
			}
			again := archivePlans(t, down, forced(xstate.FormatFXSave))
			if again[0].Changed() {
				t.Error("a second conversion has something to do")
			}
			// Up, and down again.
			up := convertArchive(t, down, convert.Options{Target: compat.Target{Format: new(xstate.FormatXSave)}}, convert.ArchiveOptions{})
			back := convertArchive(t, up, forced(xstate.FormatFXSave), convert.ArchiveOptions{})
			want, _ := unpacked(t, down)
			if got, _ := unpacked(t, back); !bytes.Equal(got, want) {
				t.Error("up and down again gives other bytes")
			}
		})
	}
}

// TestArchiveCompression changes the compression of an archive.
func TestArchiveCompression(t *testing.T) {
	path := testimg.Path(t, "p-none", "p-none.tar")
	plain, _ := unpacked(t, convertArchive(t, path, forced(xstate.FormatFXSave), convert.ArchiveOptions{}))
	for _, c := range []string{"none", "gzip", "zstd"} {
		got, compression := unpacked(t, convertArchive(t, path, forced(xstate.FormatFXSave), convert.ArchiveOptions{Compression: c}))
		if compression != c || !bytes.Equal(got, plain) {
			t.Errorf("asked for %s: have %s, the same bytes: %v", c, compression, bytes.Equal(got, plain))
		}
	}
	for _, program := range []string{"bzip2", "xz"} { // that are read only
		b, err := exec.Command(testcmd.Tool(t, program), "-c", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		packed := writeTemp(t, "x", b)
		plans := archivePlans(t, packed, forced(xstate.FormatFXSave))
		out := filepath.Join(filepath.Dir(packed), "out")
		if err := convert.CanWriteArchive(packed, convert.ArchiveOptions{}); !errors.Is(err, convert.ErrNoWriter) {
			t.Errorf("error %v, want that %s cannot be written", err, program)
		}
		if err := convert.CanWriteArchive(packed, convert.ArchiveOptions{Compression: "gzip"}); err != nil {
			t.Error(err)
		}
		if err := convert.WriteArchive(plans, out, convert.ArchiveOptions{}); !errors.Is(err, convert.ErrNoWriter) {
			t.Errorf("error %v, want that %s cannot be written", err, program)
		}
		if err := convert.WriteArchive(plans, out, convert.ArchiveOptions{Compression: "none"}); err != nil {
			t.Error(err)
		}
		if got, _ := unpacked(t, out); !bytes.Equal(got, plain) {
			t.Errorf("other bytes from the %s archive", program)
		}
	}
}

// TestArchiveCPUInfo adapts cpuinfo.img in the archive as in a directory.
func TestArchiveCPUInfo(t *testing.T) {
	dir := pod(t, "h-avx512")
	if _, err := os.Stat(filepath.Join(dir, "checkpoint", "cpuinfo.img")); err != nil {
		t.Fatal(err)
	}
	want := contents(t, convertDir(t, filepath.Join(dir, "checkpoint"), forced(xstate.FormatFXSave)))
	out := convertArchive(t, writeTemp(t, "a.tar", tarOf(t, dir, ".")), forced(xstate.FormatFXSave), convert.ArchiveOptions{})
	b, _ := unpacked(t, out)
	members, _ := membersOf(t, b)
	i := slices.IndexFunc(members, func(m blocks) bool { return filepath.Base(m.name) == "cpuinfo.img" })
	if i < 0 || !bytes.HasPrefix(members[i].data, []byte(want["cpuinfo.img"])) {
		t.Error("cpuinfo.img is not what converting the directory gives")
	}
}

// TestArchiveRoot converts an archive with the images at its root, as containerd
// packs them.
func TestArchiveRoot(t *testing.T) {
	dir := copyImage(t, "h-threads8")
	want := contents(t, convertDir(t, dir, forced(xstate.FormatFXSave)))
	out := convertArchive(t, writeTemp(t, "a.tar", tarOf(t, dir, ".")), forced(xstate.FormatFXSave), convert.ArchiveOptions{})
	to := scratch(t)
	if msg, err := exec.Command("tar", "-C", to, "-xf", out).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, msg)
	}
	if !maps.Equal(contents(t, to), want) {
		t.Error("unpacked, it is not the converted directory")
	}
}

// TestArchiveSeveral converts two checkpoints of one archive in one go.
func TestArchiveSeveral(t *testing.T) {
	dir := scratch(t)
	for _, name := range []string{"h-avx", "h-threads8"} {
		if err := os.CopyFS(filepath.Join(dir, name, "checkpoint"), os.DirFS(testimg.Path(t, name))); err != nil {
			t.Fatal(err)
		}
	}
	out := convertArchive(t, writeTemp(t, "a.tar", tarOf(t, dir, ".")), forced(xstate.FormatFXSave), convert.ArchiveOptions{})
	all, err := checkpoint.OpenAll(out, checkpoint.Options{})
	if err != nil || len(all) != 2 {
		t.Fatalf("%d checkpoints, %v; want 2", len(all), err)
	}
	for _, f := range all {
		for th, err := range f.Checkpoint.Threads() {
			if err != nil || th.State.Format != xstate.FormatFXSave {
				t.Errorf("%s: thread %d: %v", f.Path, th.TID, err)
			}
		}
	}
}

// TestArchiveRefusals leaves nothing behind where an archive cannot be converted.
func TestArchiveRefusals(t *testing.T) {
	path := writeTemp(t, "a.tar", testimg.Read(t, "p-none", "p-none.tar"))
	dir := filepath.Dir(path)
	o := forced(xstate.FormatFXSave)
	check := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", what, err, want)
		}
		if files := contents(t, dir); len(files) > 2 {
			t.Errorf("%s: left behind: %v", what, slices.Collect(maps.Keys(files)))
		}
	}
	plans := archivePlans(t, path, o)
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := convert.WriteArchive(plans, there, convert.ArchiveOptions{})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing output: %v", err)
	}
	b := testimg.Read(t, "p-none", "p-none.tar")
	if err := os.WriteFile(path, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	check("cut off meanwhile", convert.WriteArchive(plans, filepath.Join(dir, "out"), convert.ArchiveOptions{}), "ends inside a member")
	if err := os.WriteFile(path, append(slices.Clone(b), make([]byte, 1024)...), 0o600); err != nil {
		t.Fatal(err)
	}
	check("changed meanwhile", convert.WriteArchive(plans, filepath.Join(dir, "out"), convert.ArchiveOptions{}), "another program changed it")

	// A core image that is stored as a sparse file cannot change its size.
	sparse := scratch(t)
	if err := os.CopyFS(sparse, os.DirFS(testimg.Path(t, "h-avx"))); err != nil {
		t.Fatal(err)
	}
	core := testCore(t, sparse)
	if err := os.Truncate(core, 1<<20); err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(writeTemp(t, "s.tar", tarOf(t, sparse, "--format=posix", "-S", ".")))
	if err != nil {
		t.Fatal(err)
	}
	_, err = convert.NewPlan(c, o)
	check("a sparse core image", err, "s.tar:./"+filepath.Base(core)+": offset 0x0: tar: stored as a sparse file")
}

// TestArchiveOnlyCRIU refuses to convert what is no CRIU checkpoint.
func TestArchiveOnlyCRIU(t *testing.T) {
	c, err := checkpoint.Open(testimg.Glob(t, "core-kernel/core.*")[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := convert.NewPlan(c, forced(xstate.FormatFXSave)); err == nil || !strings.Contains(err.Error(), "elf-core") {
		t.Errorf("error %v, want that an ELF core cannot be converted", err)
	}
}
