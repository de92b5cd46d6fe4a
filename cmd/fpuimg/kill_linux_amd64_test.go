package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testglibc "github.com/fpuimg/fpuimg/internal/test/glibc"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	"github.com/fpuimg/fpuimg/internal/test/sysfault"
)

// A killCase is one conversion, or levelling, that is cut off everywhere. Its work
// directory holds ckpt; the arguments, the verb first, name paths in it.
type killCase struct {
	name    string
	args    []string
	inPlace bool
	setup   func(t *testing.T, work string) // beyond the checkpoint itself
	faults  []string                        // of all; nil is each
	only    string                          // the one call that is cut off
}

// manyThreads makes the checkpoint one that is not synced file by file.
func manyThreads(t *testing.T, work string) {
	task := codec.SavedTask{PID: 20000}
	core := testimg.Read(t, "h-avx512", "core-20000.img")
	for tid := 20000; tid < 20040; tid++ {
		task.TIDs = append(task.TIDs, tid)
		if err := os.WriteFile(filepath.Join(work, "ckpt", codec.CoreName(tid)), core, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(work, "ckpt", "pstree.img"), codec.MarshalPstree([]codec.SavedTask{task}), 0o640); err != nil {
		t.Fatal(err)
	}
}

var killCases = []killCase{
	{name: "new directory", args: []string{"convert", "--to=fxsave", "--force", "ckpt"}},
	{name: "single image", args: []string{"convert", "--to=fxsave", "--force", "ckpt/core-20000.img"}},
	{name: "archive", args: []string{"convert", "--to=fxsave", "--force", "p-none.tar"}, setup: func(t *testing.T, work string) {
		if err := os.WriteFile(filepath.Join(work, "p-none.tar"), testimg.Read(t, "p-none", "p-none.tar"), 0o640); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "in place", args: []string{"convert", "--to=fxsave", "--force", "--in-place", "ckpt"}, inPlace: true},
	{name: "single image in place", args: []string{"convert", "--to=fxsave", "--force", "--in-place", "ckpt/core-20000.img"}, inPlace: true},
	{name: "in place, with backups", faults: []string{"SIGKILL"}, args: []string{"convert", "--to=fxsave", "--force", "--in-place", "ckpt"}, inPlace: true, setup: func(t *testing.T, work string) {
		mustRun(t, 0, work, "convert", "--host=x86-64-v3", "--force", "--in-place", "ckpt")
	}},
	{name: "completing", args: []string{"convert", "--to=fxsave", "--force", "--in-place", "ckpt"}, inPlace: true, setup: func(t *testing.T, work string) {
		cutOff(t, work, []string{"convert", "--to=fxsave", "--force", "--in-place", "ckpt"}, func(c sysfault.Call) bool {
			return c.Name == "renameat" && strings.HasSuffix(c.Dest, "core-20000.img")
		})
	}},
	{name: "over a stage", faults: []string{"SIGKILL"}, args: []string{"convert", "--to=fxsave", "--force", "ckpt"}, setup: func(t *testing.T, work string) {
		cutOff(t, work, []string{"convert", "--to=fxsave", "--force", "ckpt"}, func(c sysfault.Call) bool { return c.Name == "fsync" })
	}},
	{name: "many threads", args: []string{"convert", "--to=fxsave", "--force", "ckpt"}, setup: manyThreads, only: "syncfs"},
	{name: "many threads in place", args: []string{"convert", "--to=fxsave", "--force", "--in-place", "ckpt"}, inPlace: true, setup: manyThreads, only: "syncfs"},
	{name: "level", args: []string{"level", "--host=x86-64-v3", "--root=root", "ckpt"}, faults: killedOrFull, setup: levelWork},
	{name: "level in place", args: []string{"level", "--host=x86-64-v3", "--root=root", "--in-place", "ckpt"}, inPlace: true, faults: killedOrFull, setup: levelWork},
	{name: "level an archive", args: []string{"level", "--host=x86-64-v3", "--root=root", "ckpt.tar"}, faults: killedOrFull, setup: func(t *testing.T, work string) {
		levelWork(t, work)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		files := testglibc.New().Images(t)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			content := files[name]
			w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))})
			w.Write(content)
		}
		if err := errors.Join(w.Close(), os.WriteFile(filepath.Join(work, "ckpt.tar"), b.Bytes(), 0o640)); err != nil {
			t.Fatal(err)
		}
	}},
}

var killedOrFull = []string{"SIGKILL", "full disk"}

// levelWork puts a checkpoint of a glibc process in place of the other, and its files
// below root.
func levelWork(t *testing.T, work string) {
	t.Helper()
	ckpt := filepath.Join(work, "ckpt")
	if err := os.RemoveAll(ckpt); err != nil {
		t.Fatal(err)
	}
	testglibc.New().WriteTo(t, ckpt, filepath.Join(work, "root"))
}

// ramDir returns an empty directory, in memory where the system has that.
func ramDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fpuimg-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newWork makes a work directory with a small checkpoint of every kind of file.
func newWork(t *testing.T, k *killCase) string {
	t.Helper()
	work := ramDir(t)
	ckpt := filepath.Join(work, "ckpt")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(filepath.Join(ckpt, "sub"), 0o755))
	for _, name := range []string{"core-20000.img", "cpuinfo.img", "pstree.img"} {
		check(os.WriteFile(filepath.Join(ckpt, name), testimg.Read(t, "h-avx512", name), 0o640))
	}
	check(os.WriteFile(filepath.Join(ckpt, "sub", "pages-1.img"), bytes.Repeat([]byte("page"), 2048), 0o600))
	check(os.Link(filepath.Join(ckpt, "sub", "pages-1.img"), filepath.Join(ckpt, "pages-2.img")))
	check(os.Symlink("../older", filepath.Join(ckpt, "parent")))
	if err := unix.Lsetxattr(filepath.Join(ckpt, "core-20000.img"), "user.note", []byte("kept"), 0); err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	if k.setup != nil {
		k.setup(t, work)
	}
	return work
}

// converter returns a command that is fpuimg.
func converter(t *testing.T, work string, args []string) *exec.Cmd {
	cmd := exec.Command(testcmd.Build(t, "../fpuimg", runtime.GOARCH), args...)
	cmd.Dir = work
	return cmd
}

// mustRun runs a verb of this process's fpuimg on paths in the work directory.
func mustRun(t *testing.T, want int, work string, args ...string) (stderr string) {
	t.Helper()
	args = slices.Clone(args)
	for i, a := range args {
		if dir, ok := strings.CutPrefix(a, "--root="); ok {
			args[i] = "--root=" + filepath.Join(work, dir)
		} else if i > 0 && !strings.HasPrefix(a, "-") {
			args[i] = filepath.Join(work, a)
		}
	}
	var out, errs bytes.Buffer
	if got := run(args, strings.NewReader(""), &out, &errs); got != want {
		t.Errorf("fpuimg %s: exit status %d, want %d: %s", strings.Join(args, " "), got, want, errs.String())
	}
	return errs.String()
}

// cutOff kills a conversion before the first call that is wanted.
func cutOff(t *testing.T, work string, args []string, wanted func(sysfault.Call) bool) {
	t.Helper()
	res, err := sysfault.Run(t.Context(), converter(t, work, args), sysfault.Options{Under: work}, func(c sysfault.Call) sysfault.Action {
		return sysfault.Action{Kill: wanted(c)}
	})
	if err != nil || res.Hit == nil {
		t.Fatalf("cutting off: hit %v, %v", res.Hit, err)
	}
}

// tree returns all that is in a directory: names, modes and contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content := info.Mode().String() + " "
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content += string(b)
		case info.Mode().Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			content += to
		}
		name, err := filepath.Rel(dir, path)
		files[name] = content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// leftover reports whether a name is one that a conversion at work uses.
func leftover(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == codec.RedoName || strings.HasSuffix(part, ".fpuimg-new") || strings.HasSuffix(part, ".fpuimg-stage") {
			return true
		}
	}
	return false
}

func withoutLeftovers(files map[string]string) map[string]string {
	files = maps.Clone(files)
	maps.DeleteFunc(files, func(name, _ string) bool { return leftover(name) })
	return files
}

// A fault is what happens to the n-th mutating call, or from it on.
type fault struct {
	name   string
	decide func(n int) func(sysfault.Call) sysfault.Action
}

func failing(errno syscall.Errno) fault {
	return fault{errno.Error(), func(n int) func(sysfault.Call) sysfault.Action {
		return func(c sysfault.Call) sysfault.Action {
			if c.N == n {
				return sysfault.Action{Errno: errno}
			}
			return sysfault.Action{}
		}
	}}
}

// allocates are the calls that need space.
var allocates = []string{"open", "openat", "mkdirat", "write", "pwrite64", "copy_file_range", "sendfile", "ioctl", "fallocate",
	"linkat", "symlinkat", "renameat", "renameat2", "fsetxattr", "syncfs", "fsync"}

var faults = []fault{
	{"SIGKILL", func(n int) func(sysfault.Call) sysfault.Action {
		return func(c sysfault.Call) sysfault.Action { return sysfault.Action{Kill: c.N == n} }
	}},
	failing(unix.ENOSPC),
	failing(unix.EIO),
	{"full disk", func(n int) func(sysfault.Call) sysfault.Action {
		return func(c sysfault.Call) sysfault.Action {
			if c.N >= n && slices.Contains(allocates, c.Name) {
				return sysfault.Action{Errno: unix.ENOSPC}
			}
			return sysfault.Action{}
		}
	}},
}

// TestAllOrNothing kills conversions before those of their changes to the file system that
// [testcmd.Points] picks, and lets these fail: what is left is the old checkpoint, the new
// one, or one that every verb recognises and the next conversion completes.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tried, total := map[string]int{}, 0
	t.Cleanup(func() { t.Logf("%d points: %v", total, tried) })
	for i := range killCases {
		k := &killCases[i]
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			work := newWork(t, k)
			old := tree(t, work)
			res, err := sysfault.Trace(t.Context(), converter(t, work, k.args), sysfault.Options{Under: work})
			if err != nil || res.ExitCode != 0 {
				t.Fatalf("exit status %d, %v: %s", res.ExitCode, err, res.Stderr)
			}
			done := tree(t, work)
			calls := len(res.Calls)
			if calls < 7 {
				t.Fatalf("only %d calls: %v", calls, res.Calls)
			}
			for name := range done {
				if leftover(name) {
					t.Errorf("a whole run left %s", name)
				}
			}
			for turn, f := range faults {
				if k.faults != nil && !slices.Contains(k.faults, f.name) {
					continue
				}
				points := testcmd.Points(calls, i+turn)
				if k.only != "" {
					at := slices.IndexFunc(res.Calls, func(c sysfault.Call) bool { return c.Name == k.only })
					points = slices.Values([]int{1 + at})
				}
				for n := range points {
					work := newWork(t, k)
					res, err := sysfault.Run(t.Context(), converter(t, work, k.args), sysfault.Options{Under: work}, f.decide(n))
					if err != nil {
						t.Fatal(err)
					}
					mu.Lock()
					tried[f.name]++
					total++
					mu.Unlock()
					if res.Hit == nil {
						if f.name == "full disk" {
							continue // no call after this one needs space
						}
						t.Fatalf("%s at %d: not reached", f.name, n)
					}
					checkFault(t, k, f.name, work, &res, old, done)
					os.RemoveAll(work)
					if t.Failed() {
						t.Fatalf("stopped at %s at call %v of %d", f.name, res.Hit, calls)
					}
				}
			}
			t.Logf("%d calls", calls)
		})
	}
}

// checkFault looks at what a fault left, then runs the same conversion again.
func checkFault(t *testing.T, k *killCase, fault, work string, res *sysfault.Result, old, done map[string]string) {
	t.Helper()
	left := tree(t, work)
	killed := fault == "SIGKILL"
	_, interrupted := left["ckpt/"+codec.RedoName]
	bare, oldBare := withoutLeftovers(left), withoutLeftovers(old)
	isOld, isNew := maps.Equal(bare, oldBare), maps.Equal(bare, done)
	switch {
	case !killed && res.ExitCode != 0 && res.ExitCode != 3:
		t.Errorf("exit status %d: %s", res.ExitCode, res.Stderr)
	case bytes.Contains(res.Stderr, []byte("--dry-run")):
		t.Errorf("nobody gave --dry-run: %s", res.Stderr)
	case !killed && res.ExitCode == 0 && !maps.Equal(left, done):
		t.Errorf("exit status 0, and the result is not whole: %v", slices.Sorted(maps.Keys(left)))
	case interrupted && !killed && !bytes.Contains(res.Stderr, []byte("hint: once the cause is mended, run the conversion again")):
		t.Errorf("no hint how to complete it: %s", res.Stderr)
	case interrupted:
		// Each verb says so, and does nothing.
		for _, verb := range []string{"show", "check --host=x86-64-v3", "convert --to=xsave --dry-run"} {
			stderr := mustRun(t, 3, work, append(strings.Fields(verb), "ckpt")...)
			if !strings.Contains(stderr, "interrupted") || !strings.Contains(stderr, "hint: ") {
				t.Errorf("%s of an interrupted checkpoint says %q", verb, stderr)
			}
		}
		if !maps.Equal(tree(t, work), left) {
			t.Error("a verb that only reads changed the interrupted checkpoint")
		}
	case !isOld && !isNew:
		t.Errorf("neither old nor new: %v", slices.Sorted(maps.Keys(left)))
	case !killed && !maps.Equal(left, bare) && k.name != "completing":
		t.Errorf("a run that could clean up left %v", slices.Sorted(maps.Keys(left)))
	default:
		mustRun(t, 0, work, "show", "ckpt")
	}
	if t.Failed() {
		return
	}
	want := 0
	if isNew && !k.inPlace {
		want = 3 // the output is there
	}
	mustRun(t, want, work, k.args...)
	if again := tree(t, work); !maps.Equal(again, done) {
		t.Errorf("after the next run: %v, want %v", slices.Sorted(maps.Keys(again)), slices.Sorted(maps.Keys(done)))
		for name := range done {
			if again[name] != done[name] {
				t.Errorf("%s: %.40q, want %.40q", name, again[name], done[name])
			}
		}
	}
}

// TestDurableOrder checks what no kill can show, since the page cache outlives the
// process: that everything is durable before the rename that makes it count.
func TestDurableOrder(t *testing.T) {
	const prepare = `((mkdirat|openat|write|ioctl|ftruncate|copy_file_range|linkat|symlinkat|fchown|fchownat|fsetxattr|fremovexattr|fchmod|utimensat) )+`
	want := map[string]string{
		"new directory":         prepare + "(fsync )+renameat2 unlinkat fsync",
		"single image":          prepare + "fsync renameat2 unlinkat fsync",
		"archive":               prepare + "fsync renameat2 unlinkat fsync",
		"in place":              "mkdirat (renameat )+unlinkat " + prepare + "(fsync )+renameat fsync (renameat )+fsync unlinkat fsync",
		"many threads":          prepare + "syncfs renameat2 unlinkat fsync",
		"many threads in place": "mkdirat (renameat )+unlinkat " + prepare + "syncfs renameat fsync (renameat )+fsync unlinkat fsync",
	}
	for i := range killCases {
		k := &killCases[i]
		if want[k.name] == "" {
			continue
		}
		work := newWork(t, k)
		res, err := sysfault.Trace(t.Context(), converter(t, work, k.args), sysfault.Options{Under: work})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		made, synced := map[string]bool{}, map[string]bool{} // before the rename of the whole, or of the record
		counts := false
		for _, c := range res.Calls {
			names = append(names, c.Name)
			counts = counts || c.Name == "renameat2" || c.Name == "renameat" && strings.HasSuffix(c.Dest, codec.RedoName)
			changed := cmp.Or(c.Dest, c.Path)
			switch {
			case counts:
			case c.Name == "fsync":
				synced[c.Path] = true
			case c.Name == "openat" || c.Name == "mkdirat":
				made[c.Path] = !strings.HasSuffix(c.Path, "-stage") // which stays behind
			case c.Name == "unlinkat":
				delete(made, c.Path)
			}
			if !counts && c.Name != "fsync" && (synced[changed] || synced[filepath.Dir(changed)]) {
				t.Errorf("%s: %v after it was synced", k.name, c)
			}
		}
		for path, stays := range made {
			for _, path := range []string{path, filepath.Dir(path)} {
				if stays && !synced[path] && !strings.HasSuffix(path, "-stage") && k.only == "" {
					t.Errorf("%s: %s is not synced before it counts", k.name, path)
				}
			}
		}
		if got := strings.Join(names, " "); !regexp.MustCompile("^" + want[k.name] + "$").MatchString(got) {
			t.Errorf("%s: calls are\n%s\nwant\n%s", k.name, got, want[k.name])
		}
	}
}

// swaps are names below a work directory that another user may give to something else
// while fpuimg runs, and the programs whose names they are.
var swaps = []struct {
	args  []string // with the verb
	names []string
}{
	{[]string{"convert", "--to=fxsave", "--force", "ckpt"}, []string{".ckpt.fxsave.fpuimg-stage", "ckpt", "ckpt/sub"}},
	{[]string{"convert", "--to=fxsave", "--force", "ckpt/core-20000.img"}, []string{"ckpt/.core-20000.fxsave.img.fpuimg-stage", "ckpt", "ckpt/core-20000.img"}},
	{[]string{"convert", "--to=fxsave", "--force", "--in-place", "ckpt"},
		[]string{"ckpt", "ckpt/.core-20000.img.fpuimg-new", "ckpt/core-20000.img", "ckpt/core-20000.img.orig", "ckpt/.probe.fpuimg-new", "ckpt/..fpuimg-redo.fpuimg-new"}},
	{[]string{"convert", "--to=fxsave", "--force", "p-none.tar"}, []string{".p-none.fxsave.tar.fpuimg-stage", "p-none.tar", "."}},
	{[]string{"profile", "-o", "ckpt/x"}, []string{"ckpt", "ckpt/x"}},
}

// TestSwaps has another user give a name to something else before those changes of the
// file system that [testcmd.Points] picks, by a link, and lets every second of them fail:
// what the link leads to stays as it is.
func TestSwaps(t *testing.T) {
	for i, s := range swaps {
		for j, name := range s.names {
			t.Run(strings.Join(s.args, " ")+" "+name, func(t *testing.T) {
				t.Parallel()
				errno, other := unix.ENOSPC, unix.Errno(0)
				for n := range testcmd.Points(math.MaxInt32, i+j) {
					if errno, other = other, errno; !swap(t, s.args, name, n, errno) {
						break
					}
				}
			})
		}
	}
}

// swap runs fpuimg and swaps a name before the n-th change, if there is one.
func swap(t *testing.T, args []string, name string, n int, errno syscall.Errno) (reached bool) {
	t.Helper()
	work, victim := newWork(t, &killCase{}), newWork(t, &killCase{}) // of one content
	defer os.RemoveAll(work)
	defer os.RemoveAll(victim)
	for _, dir := range []string{work, victim} {
		if err := os.WriteFile(filepath.Join(dir, "p-none.tar"), testimg.Read(t, "p-none", "p-none.tar"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"ckpt/x", "ckpt/.core-20000.img.fpuimg-new", "ckpt/core-20000.img.orig"} {
		if err := os.WriteFile(filepath.Join(victim, file), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, stage := range []string{".ckpt.fxsave.fpuimg-stage", "ckpt/.core-20000.fxsave.img.fpuimg-stage", ".p-none.fxsave.tar.fpuimg-stage"} {
		if err := os.MkdirAll(filepath.Join(victim, stage, "mine", "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, victim)
	path := filepath.Join(work, name)
	cmd := converter(t, work, args)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := sysfault.Run(ctx, cmd, sysfault.Options{Under: filepath.Dir(work)}, func(c sysfault.Call) sysfault.Action {
		if c.N != n {
			return sysfault.Action{}
		}
		reached = true
		if err := os.Rename(path, path+".moved"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err := os.Symlink(filepath.Join(victim, name), path); err != nil {
			t.Error(err)
		}
		return sysfault.Action{Errno: errno}
	})
	if err != nil {
		t.Fatalf("call %d: %v", n, err)
	}
	if after := tree(t, victim); !maps.Equal(after, before) {
		t.Fatalf("%s is a link from call %v on (%v): outside there is %v, want %v", name, res.Hit, errno, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
	os.RemoveAll(path + ".moved")
	return reached
}
