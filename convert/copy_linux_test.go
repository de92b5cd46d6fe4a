package convert_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// meta spells all that a copy must keep of a file, but its content.
func meta(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	xattrs := ""
	buf := make([]byte, 4096)
	if n, err := unix.Llistxattr(path, buf); err == nil {
		for name := range strings.SplitSeq(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			if n, err := unix.Lgetxattr(path, name, value); err == nil {
				xattrs += fmt.Sprintf(" %s=%q", name, value[:n])
			}
		}
	}
	return fmt.Sprintf("mode %#o owner %d:%d links %d mtime %d.%09d%s", st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim.Sec, st.Mtim.Nsec, xattrs)
}

// decorate gives a file metadata that nobody has by chance.
func decorate(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := unix.Lsetxattr(path, "user.note", []byte("kept \x00 whole"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		must(t, os.Lchown(path, 1234, 4321))
	}
	must(t, os.Chmod(path, mode))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path,
		[]unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 11e8, Nsec: 987654321}}, unix.AT_SYMLINK_NOFOLLOW))
}

// TestMetadata checks modes, owners, times and extended attributes of everything,
// for both ways to write.
func TestMetadata(t *testing.T) {
	dir := copyImage(t, "h-sse")
	nested := filepath.Join(dir, "plugin", "data")
	must(t, os.MkdirAll(nested, 0o755))
	must(t, os.WriteFile(filepath.Join(nested, "state"), []byte("x"), 0o600))
	must(t, os.Symlink("pages-1.img", filepath.Join(dir, "inner")))
	paths := map[string]os.FileMode{
		"plugin/data/state": 0o4751, "plugin/data": 0o2550, "plugin": 0o705, "core-" + tidOf(t, dir) + ".img": 0o440,
		"cpuinfo.img": 0o604, "pages-1.img": 0o400, ".": 0o3771,
	}
	for _, name := range []string{"plugin/data/state", "plugin/data", "plugin", "core-" + tidOf(t, dir) + ".img", "cpuinfo.img", "pages-1.img", "."} {
		decorate(t, filepath.Join(dir, name), paths[name])
	}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "inner"), []unix.Timespec{{Sec: 5}, {Sec: 6, Nsec: 7}}, unix.AT_SYMLINK_NOFOLLOW))
	decorate(t, dir, paths["."])
	want := map[string]string{"inner": meta(t, filepath.Join(dir, "inner"))}
	for name := range paths {
		want[name] = meta(t, filepath.Join(dir, name))
	}

	out := convertDir(t, dir, forced(xstate.FormatFXSave))
	for name, m := range want {
		if got := meta(t, filepath.Join(out, name)); got != m {
			t.Errorf("%s:\n got %s\nwant %s", name, got, m)
		}
	}

	must(t, plan(t, dir, forced(xstate.FormatFXSave)).InPlace())
	for name, m := range want {
		if name == "." {
			continue // its entries changed
		}
		if got := meta(t, filepath.Join(dir, name)); got != m {
			t.Errorf("in place: %s:\n got %s\nwant %s", name, got, m)
		}
	}
	core := "core-" + tidOf(t, dir) + ".img"
	if got := meta(t, filepath.Join(dir, core+".orig")); got != want[core] {
		t.Errorf("backup:\n got %s\nwant %s", got, want[core])
	}

	single := filepath.Join(scratch(t), "core.img")
	must(t, plan(t, filepath.Join(dir, core+".orig"), forced(xstate.FormatFXSave)).WriteFile(single))
	if got := meta(t, single); got != want[core] {
		t.Errorf("single image:\n got %s\nwant %s", got, want[core])
	}
}

func tidOf(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
	if err != nil || len(names) == 0 {
		t.Fatal("no core image", err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(names[0]), "core-"), ".img")
}

// TestLinkToCheckpoint checks that a checkpoint named by a symbolic link gives a
// copy with the directory's metadata, not the link's.
func TestLinkToCheckpoint(t *testing.T) {
	dir := copyImage(t, "h-sse")
	decorate(t, dir, 0o750)
	link := filepath.Join(scratch(t), "link")
	must(t, os.Symlink(dir, link))
	out := filepath.Join(scratch(t), "out")
	must(t, plan(t, link, forced(xstate.FormatFXSave)).WriteDir(out+"/", convert.DirOptions{}))
	if got, want := meta(t, out), meta(t, dir); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// holes returns where the data of a file lies.
func holes(t *testing.T, path string) (extents []int64, blocks int64) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			break
		}
		at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		must(t, err)
		extents = append(extents, data, at)
	}
	info, err := f.Stat()
	must(t, err)
	return extents, info.Sys().(*syscall.Stat_t).Blocks
}

func TestSparse(t *testing.T) {
	dir := copyImage(t, "h-sse")
	files := map[string][]int64{ // offsets of 4 KiB of data; then the size
		"pages-2.img": {1 << 20, 4 << 20, 16 << 20},
		"pages-3.img": {0, 2 << 20},
		"pages-4.img": {2 << 20}, // only a hole
		"pages-5.img": {0},       // empty
		"pages-6.img": {0, 36 << 20},
	}
	noise := make([]byte, 33<<20) // more than is copied at once
	rand.NewChaCha8([32]byte{}).Read(noise)
	for name, at := range files {
		f, err := os.Create(filepath.Join(dir, name))
		must(t, err)
		for _, off := range at[:len(at)-1] {
			_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 4096), off)
			must(t, err)
		}
		if name == "pages-6.img" {
			_, err = f.WriteAt(noise, 2<<20)
			must(t, err)
		}
		must(t, f.Truncate(at[len(at)-1]))
		must(t, f.Close())
	}
	var last int64
	out := filepath.Join(scratch(t), "out")
	must(t, plan(t, dir, forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{Progress: func(done int64) {
		if done < last {
			t.Errorf("progress went back from %d to %d", last, done)
		}
		last = done
	}}))
	if last < 20<<20 {
		t.Errorf("progress ended at %d", last)
	}
	for name := range files {
		wantExtents, wantBlocks := holes(t, filepath.Join(dir, name))
		gotExtents, gotBlocks := holes(t, filepath.Join(out, name))
		if fmt.Sprint(gotExtents) != fmt.Sprint(wantExtents) || gotBlocks > wantBlocks {
			t.Errorf("%s: data at %v in %d blocks, want %v in %d", name, gotExtents, gotBlocks, wantExtents, wantBlocks)
		}
		a, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		b, err := os.ReadFile(filepath.Join(out, name))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", name)
		}
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ino
}

// TestHardLinks checks that names of one file stay names of one file, and that a
// converted image is parted from a name that is not converted.
func TestHardLinks(t *testing.T) {
	dir := copyImage(t, "h-threads8")
	at := func(d, name string) string { return filepath.Join(d, name) }
	cores, err := filepath.Glob(at(dir, "core-*.img"))
	must(t, err)
	a, b := filepath.Base(cores[0]), filepath.Base(cores[1])
	must(t, os.Remove(cores[1]))
	must(t, os.Link(cores[0], cores[1]))
	must(t, os.Link(cores[0], at(dir, "zz-backup")))
	must(t, os.Link(at(dir, "pages-1.img"), at(dir, "pages-1.copy")))
	must(t, os.Mkdir(at(dir, "sub"), 0o755))
	must(t, os.Link(at(dir, "pages-1.img"), at(dir, "sub/pages")))
	old, err := os.ReadFile(cores[0])
	must(t, err)

	out := convertDir(t, dir, forced(xstate.FormatFXSave))
	if inode(t, at(out, "pages-1.img")) != inode(t, at(out, "pages-1.copy")) || inode(t, at(out, "pages-1.img")) != inode(t, at(out, "sub/pages")) {
		t.Error("the names of pages-1.img are files of their own")
	}
	if inode(t, at(out, a)) != inode(t, at(out, b)) {
		t.Error("two names of one core image are two files")
	}
	if got, err := os.ReadFile(at(out, "zz-backup")); err != nil || !bytes.Equal(got, old) {
		t.Errorf("a name of the old image has another content: %v", err)
	}
	if now, err := os.ReadFile(at(out, a)); err != nil || bytes.Equal(now, old) {
		t.Errorf("%s was not converted: %v", a, err)
	}
}

// TestLinks checks where symbolic links lead afterwards.
func TestLinks(t *testing.T) {
	base := scratch(t)
	dir := filepath.Join(base, "ckpt")
	must(t, os.CopyFS(dir, os.DirFS(copyImage(t, "h-sse"))))
	must(t, os.MkdirAll(filepath.Join(base, "older"), 0o755))
	must(t, os.MkdirAll(filepath.Join(base, "deep", "er"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	links := map[string]string{
		"parent": "../older", "absolute": filepath.Join(base, "older"), "dangling": "../gone", "inner": "sub/../pages-1.img",
		"sub/up": "../pages-1.img", "sub/out": "../../older", "byname": "../ckpt/pages-1.img",
	}
	for name, target := range links {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	resolve := func(d, name string) string {
		target, err := os.Readlink(filepath.Join(d, name))
		must(t, err)
		if filepath.IsAbs(target) {
			return target
		}
		return filepath.Join(d, filepath.Dir(name), target)
	}
	tests := []struct {
		out  string
		same []string // links that read as before
	}{
		{"ckpt.fxsave", []string{"parent", "absolute", "dangling", "inner", "sub/up", "sub/out", "byname"}},
		{"deep/er/ckpt", []string{"absolute", "inner", "sub/up"}},
	}
	for _, tt := range tests {
		out := filepath.Join(base, tt.out)
		var notes []string
		must(t, plan(t, dir, forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{Note: func(s string) { notes = append(notes, s) }}))
		for name, target := range links {
			want := resolve(dir, name)
			if name == "inner" || name == "sub/up" {
				want = filepath.Join(out, "pages-1.img") // links inside lead to the copy
			}
			if got := resolve(out, name); got != want {
				t.Errorf("%s: %s leads to %s, want %s", tt.out, name, got, want)
			}
			now, err := os.Readlink(filepath.Join(out, name))
			must(t, err)
			kept := strings.Contains(strings.Join(tt.same, " "), name)
			if kept != (now == target) {
				t.Errorf("%s: %s reads %s, was %s", tt.out, name, now, target)
			}
			named := strings.Contains(strings.Join(notes, "\n"), name+": the link now reads")
			if named == kept {
				t.Errorf("%s: %s kept %t, named %t: %q", tt.out, name, kept, named, notes)
			}
		}
	}
}

func TestSpecialFiles(t *testing.T) {
	dir := copyImage(t, "h-sse")
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	base := scratch(t)
	err := plan(t, dir, forced(xstate.FormatFXSave)).WriteDir(filepath.Join(base, "out"), convert.DirOptions{})
	if err == nil || !strings.Contains(err.Error(), "pipe: neither a file nor a directory nor a link") {
		t.Errorf("a FIFO: %v", err)
	}
	if left := contents(t, base); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	// In place it does not matter.
	must(t, plan(t, dir, forced(xstate.FormatFXSave)).InPlace())
}

const nobody = 65534

// asNobody makes the rest of a test, on this goroutine, the work of a user whom modes
// bind. Only this thread's rights on files change (setfsuid(2)), and the thread ends
// with the goroutine, since it is not unlocked.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread()
	must(t, unix.Setfsgid(nobody))
	must(t, unix.Setfsuid(nobody))
	t.Cleanup(func() { unix.Setfsuid(0); unix.Setfsgid(0) })
	if old, _ := unix.SetfsuidRetUid(-1); old != nobody {
		testcmd.Lack(t, "there is no other user to be")
	}
}

// TestReadOnly converts what its owner has made read-only, as a user whom modes
// bind: neither a failure nor a stage that was left behind is in the way.
func TestReadOnly(t *testing.T) {
	base := scratch(t)
	must(t, os.Chmod(base, 0o777))
	asNobody(t)
	make := func(dir string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
		for _, name := range []string{"core-20600.img", "pstree.img"} {
			must(t, os.WriteFile(filepath.Join(dir, name), testimg.Read(t, "h-sse", name), 0o400))
		}
		must(t, os.WriteFile(filepath.Join(dir, "sub", "pages"), []byte("x"), 0o400))
		must(t, os.Chmod(filepath.Join(dir, "sub"), 0o555))
		must(t, os.Chmod(dir, 0o555))
	}
	dir, out := filepath.Join(base, "ckpt"), filepath.Join(base, "out")
	make(dir)
	t.Cleanup(func() {
		for _, d := range []string{dir, out} {
			os.Chmod(d, 0o755)
			os.Chmod(filepath.Join(d, "sub"), 0o755)
		}
	})
	p := plan(t, dir, forced(xstate.FormatFXSave))
	left := func(stage string) string {
		t.Helper()
		must(t, os.Mkdir(filepath.Join(base, stage), 0o700))
		return filepath.Join(base, stage, "fpuimg-result")
	}
	make(left(".out.fpuimg-stage"))
	must(t, p.WriteDir(out, convert.DirOptions{}))
	if got, want := meta(t, filepath.Join(out, "sub")), meta(t, filepath.Join(dir, "sub")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	must(t, os.WriteFile(left(".one.img.fpuimg-stage"), []byte("half"), 0o400))
	must(t, plan(t, filepath.Join(dir, "core-20600.img"), forced(xstate.FormatFXSave)).WriteFile(filepath.Join(base, "one.img")))

	// What is left of a long name too: its stage, shorter, is the same each time.
	long := strings.Repeat("é", 127)
	make(left("." + strings.Repeat("é", 23) + "-899ecbc2d052dd19.fpuimg-stage"))
	must(t, p.WriteDir(filepath.Join(base, long), convert.DirOptions{}))
	must(t, os.Chmod(filepath.Join(base, long), 0o755))
	must(t, os.Chmod(filepath.Join(base, long, "sub"), 0o755))
	must(t, os.RemoveAll(filepath.Join(base, long)))

	must(t, os.Chmod(dir, 0o755))
	must(t, unix.Mkfifo(filepath.Join(dir, "zz-pipe"), 0o600))
	if err := p.WriteDir(filepath.Join(base, "failed"), convert.DirOptions{}); err == nil {
		t.Error("a FIFO was copied")
	}
	entries, err := os.ReadDir(base)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "ckpt one.img out"; got != want {
		t.Errorf("the directory holds %s, want %s", got, want)
	}
	if _, err := os.Lstat(filepath.Join(dir, "core-20600.img.orig")); err == nil {
		t.Error("the source has a backup")
	}
}
