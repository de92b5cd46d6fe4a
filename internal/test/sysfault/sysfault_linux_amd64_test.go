package sysfault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// command returns a command that runs a target on dir.
func command(t testing.TB, target, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, dir)
	cmd.Env = append(os.Environ(), targetEnv+"="+target)
	return cmd
}

// tempDir returns an empty directory by its real name, with the file f if asked.
func tempDir(t testing.TB, withFile bool) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if withFile {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// trace runs a target to its end and requires exit status 0.
func trace(t *testing.T, target, dir string, opts Options) Result {
	t.Helper()
	res, err := Trace(t.Context(), command(t, target, dir), opts)
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 0 || res.Hit != nil {
		t.Fatalf("exit %d, signal %v, hit %v, stdout %q, stderr %q", res.ExitCode, res.Signal, res.Hit, res.Stdout, res.Stderr)
	}
	return res
}

// tree describes all that is in a directory, for comparison.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%q %d links", b, info.Sys().(*syscall.Stat_t).Nlink)
		case info.Mode().Type() == fs.ModeSymlink:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		list = append(list, fmt.Sprintf("%s %s %s", info.Mode(), name, content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// treeAfter returns the tree that the first n steps of the target "save" leave.
func treeAfter(t *testing.T, n int) []string {
	t.Helper()
	s := &saver{dir: tempDir(t, false)}
	if err := saveSteps(s, steps[:n]); err != nil {
		t.Fatal(err)
	}
	if s.file != nil {
		s.file.Close()
	}
	return tree(t, s.dir)
}

func checkTree(t *testing.T, dir string, want []string) {
	t.Helper()
	if got := tree(t, dir); !reflect.DeepEqual(got, want) {
		t.Errorf("left behind:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// at returns the path of a name in dir; no name stays none.
func at(dir, name string) string {
	if name == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

func stepCalls(dir string) []Call {
	var calls []Call
	for i, step := range steps {
		calls = append(calls, Call{i + 1, step.name, at(dir, step.path), at(dir, step.dest)})
	}
	return calls
}

func checkCalls(t *testing.T, got, want []Call) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w Call
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("call %d: got %v, want %v", i+1, g, w)
		}
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, false)
	res := trace(t, "save", dir, Options{})
	checkCalls(t, res.Calls, stepCalls(dir))
	checkTree(t, dir, treeAfter(t, len(steps)))
}

func TestKill(t *testing.T) {
	t.Parallel()
	for n := 1; n <= len(steps)+1; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t, false)
			res, err := Kill(t.Context(), command(t, "save", dir), n, Options{})
			if err != nil {
				t.Fatal(err)
			}
			checkTree(t, dir, treeAfter(t, n-1))
			calls := stepCalls(dir)
			if n > len(calls) {
				if res.Hit != nil || res.ExitCode != 0 || res.Signal != 0 {
					t.Errorf("hit %v, exit %d, signal %v; want a run to the end", res.Hit, res.ExitCode, res.Signal)
				}
				return
			}
			if res.Hit == nil || *res.Hit != calls[n-1] {
				t.Errorf("hit %v, want %v", res.Hit, calls[n-1])
			}
			if res.ExitCode != -1 || res.Signal != unix.SIGKILL {
				t.Errorf("exit %d, signal %v, want -1, SIGKILL", res.ExitCode, res.Signal)
			}
			checkCalls(t, res.Calls, calls[:n])
		})
	}
}

func TestFail(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{unix.ENOSPC, unix.EIO} {
		for n := 1; n <= len(steps)+1; n++ {
			t.Run(fmt.Sprint(unix.ErrnoName(errno), n), func(t *testing.T) {
				t.Parallel()
				dir := tempDir(t, false)
				res, err := Fail(t.Context(), command(t, "save", dir), n, errno, Options{})
				if err != nil {
					t.Fatal(err)
				}
				checkTree(t, dir, treeAfter(t, n-1))
				calls := stepCalls(dir)
				if n > len(calls) {
					if res.Hit != nil || res.ExitCode != 0 {
						t.Errorf("hit %v, exit %d; want a run to the end", res.Hit, res.ExitCode)
					}
					return
				}
				if res.Hit == nil || *res.Hit != calls[n-1] {
					t.Errorf("hit %v, want %v", res.Hit, calls[n-1])
				}
				want := steps[n-1].errType + " " + unix.ErrnoName(errno) + "\n"
				if res.ExitCode != 1 || string(res.Stdout) != want {
					t.Errorf("exit %d, stdout %q, want 1, %q", res.ExitCode, res.Stdout, want)
				}
			})
		}
	}
}

// TestRun fills the disk: from the fourth call on nothing more can be written,
// and everything else still can.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, false)
	res, err := Run(t.Context(), command(t, "threads", dir), Options{}, func(c Call) Action {
		if c.Name == "write" && c.N > workers {
			return Action{Errno: unix.ENOSPC}
		}
		return Action{}
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Hit == nil || res.Hit.Name != "write" {
		t.Errorf("hit %v, want a write", res.Hit)
	}
	// Each worker stops at its first error.
	want := strings.Repeat(pathError+" ENOSPC\n", workers)
	if string(res.Stdout) != want {
		t.Errorf("stdout %q, want %q", res.Stdout, want)
	}
}

// TestForms makes every call of the table once and more, so that a wrong argument
// position is found.
func TestForms(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, true)
	if err := os.Symlink("f", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	res := trace(t, "calls", dir, Options{})
	var want []Call
	seen := make(map[uint64]bool)
	for i, call := range allCalls(0, 0) {
		nr := uint64(call.nr)
		seen[nr] = true
		want = append(want, Call{i + 1, forms[nr].name, at(dir, call.path), at(dir, call.dest)})
	}
	checkCalls(t, res.Calls, want)
	for nr, form := range forms {
		if !seen[nr] {
			t.Errorf("%s is in the table but not in allCalls", form.name)
		}
	}
}

func TestNotCounted(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, true)
	res := trace(t, "quiet", dir, Options{})
	checkCalls(t, res.Calls, []Call{{1, "mkdirat", at(dir, "loud"), ""}})
	if string(res.Stdout) != "to a pipe\n" || string(res.Stderr) != "to another\n" {
		t.Errorf("stdout %q, stderr %q", res.Stdout, res.Stderr)
	}
}

func TestThreads(t *testing.T) {
	t.Parallel()
	const total = workers * (1 + perWorker)
	written := func(dir string) (bytes int) {
		files, err := filepath.Glob(filepath.Join(dir, "w*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			bytes += len(b)
		}
		return bytes
	}

	dir := tempDir(t, false)
	res := trace(t, "threads", dir, Options{})
	perFile := make(map[string]int)
	for i, call := range res.Calls {
		if call.N != i+1 {
			t.Errorf("call %d has number %d", i+1, call.N)
		}
		perFile[call.Path]++
	}
	if len(res.Calls) != total || len(perFile) != workers {
		t.Errorf("%d calls on %d files, want %d on %d", len(res.Calls), len(perFile), total, workers)
	}
	if got := written(dir); got != workers*perWorker {
		t.Errorf("%d bytes written, want %d", got, workers*perWorker)
	}

	for n := 1; n <= total; n += 9 {
		dir := tempDir(t, false)
		res, err := Kill(t.Context(), command(t, "threads", dir), n, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if res.Hit == nil || res.Hit.N != n || res.Signal != unix.SIGKILL || len(res.Calls) != n {
			t.Errorf("kill %d: hit %v, signal %v, %d calls", n, res.Hit, res.Signal, len(res.Calls))
		}
		writes := 0
		for _, call := range res.Calls[:len(res.Calls)-1] {
			if call.Name == "write" {
				writes++
			}
		}
		// One call per other thread may have been cut off.
		if got := written(dir); got > writes || got < writes-(workers-1) {
			t.Errorf("kill %d: %d bytes written by %d calls", n, got, writes)
		}

		dir = tempDir(t, false)
		res, err = Fail(t.Context(), command(t, "threads", dir), n, unix.EIO, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want := pathError + " EIO\n"; res.Hit == nil || string(res.Stdout) != want {
			t.Errorf("fail %d: hit %v, stdout %q, want %q from one thread", n, res.Hit, res.Stdout, want)
		}
	}
}

func TestChild(t *testing.T) {
	t.Parallel()
	calls := func(dir string) []Call {
		return []Call{
			{1, "mkdirat", at(dir, "before"), ""},
			{2, "openat", at(dir, "child"), ""},
			{3, "write", at(dir, "child"), ""},
			{4, "mkdirat", at(dir, "after"), ""},
		}
	}
	exists := func(dir, name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	t.Run("trace", func(t *testing.T) {
		dir := tempDir(t, false)
		checkCalls(t, trace(t, "spawn", dir, Options{}).Calls, calls(dir))
	})
	t.Run("kill", func(t *testing.T) {
		dir := tempDir(t, false)
		res, err := Kill(t.Context(), command(t, "spawn", dir), 2, Options{})
		if err != nil {
			t.Fatal(err)
		}
		checkCalls(t, res.Calls, calls(dir)[:2])
		// The parent must not have lived on.
		if !exists(dir, "before") || exists(dir, "child") || exists(dir, "after") || res.Signal != unix.SIGKILL {
			t.Errorf("signal %v, left %q", res.Signal, tree(t, dir))
		}
	})
	t.Run("fail", func(t *testing.T) {
		dir := tempDir(t, false)
		res, err := Fail(t.Context(), command(t, "spawn", dir), 2, unix.EROFS, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{pathError + " EROFS", "child: exit status 1"}
		if got := lines(res.Stdout); !reflect.DeepEqual(got, want) {
			t.Errorf("stdout %q, want %q", got, want)
		}
		if exists(dir, "child") || !exists(dir, "after") {
			t.Errorf("left %q", tree(t, dir))
		}
	})
}

// TestExec replaces the program from a thread that is not its first, which takes
// the first one's id.
func TestExec(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, false)
	res, err := run(t.Context(), command(t, "exec", dir), Options{}, func(Call) Action { return Action{} })
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 0 || res.lost != 0 {
		t.Errorf("exit %d, stdout %q, lost %d threads", res.ExitCode, res.Stdout, res.lost)
	}
	checkCalls(t, res.Calls, stepCalls(dir))
}

func TestUnder(t *testing.T) {
	t.Parallel()
	mkdir := func(dir string, names ...string) (calls []Call) {
		for i, name := range names {
			calls = append(calls, Call{i + 1, "mkdirat", filepath.Join(dir, name), ""})
		}
		return calls
	}
	renames := func(dir string, n int) []Call {
		return []Call{
			{n, "renameat", at(dir, "in/1"), at(dir, "moved")},
			{n + 1, "renameat", at(dir, "moved"), at(dir, "in/1")},
		}
	}
	inside := []string{"in", "in/1", "in/2", "in/3", "in/4"}
	all := []string{"out", "in", "in/1", "inn", "in/2", "up", "in/3", "in/4"}
	tests := []struct {
		name  string
		under func(dir string) string
		want  func(dir string) []Call
	}{
		{"nothing", func(string) string { return "" },
			func(dir string) []Call { return append(mkdir(dir, all...), renames(dir, 9)...) }},
		{"root", func(string) string { return "/" },
			func(dir string) []Call { return append(mkdir(dir, all...), renames(dir, 9)...) }},
		{"directory to be", func(dir string) string { return dir + "/in" },
			func(dir string) []Call { return append(mkdir(dir, inside...), renames(dir, 6)...) }},
		{"uncleaned", func(dir string) string { return dir + "/./in/" },
			func(dir string) []Call { return append(mkdir(dir, inside...), renames(dir, 6)...) }},
		{"one entry", func(dir string) string { return dir + "/in/2" },
			func(dir string) []Call { return mkdir(dir, "in/2") }},
		{"elsewhere", func(dir string) string { return dir + "/i" },
			func(string) []Call { return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t, false)
			if err := os.Symlink("in", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			res := trace(t, "names", dir, Options{Under: tt.under(dir)})
			checkCalls(t, res.Calls, tt.want(dir))
		})
	}
	t.Run("through a link", func(t *testing.T) {
		dir := tempDir(t, false)
		link := filepath.Join(tempDir(t, false), "link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		res := trace(t, "save", dir, Options{Under: link})
		checkCalls(t, res.Calls, stepCalls(dir))
	})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, false)
	res, err := Trace(t.Context(), command(t, "signals", dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 7 || res.Signal != 0 {
		t.Errorf("exit %d, signal %v, want 7; stdout %q", res.ExitCode, res.Signal, res.Stdout)
	}
	checkCalls(t, res.Calls, []Call{
		{1, "mkdirat", at(dir, "SIGUSR1"), ""},
		{2, "mkdirat", at(dir, "SIGTRAP"), ""},
	})

	res, err = Trace(t.Context(), command(t, "term", dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != -1 || res.Signal != unix.SIGTERM {
		t.Errorf("exit %d, signal %v, want -1, SIGTERM", res.ExitCode, res.Signal)
	}

	dir = tempDir(t, false)
	checkCalls(t, trace(t, "stop", dir, Options{}).Calls, []Call{{1, "mkdirat", at(dir, "on"), ""}})
}

// TestRestart interrupts a counted call several times.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, true)
	res, err := run(t.Context(), command(t, "lease", dir), Options{}, func(Call) Action { return Action{} })
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode == 77 {
		testcmd.Lack(t, "no lease to be had: "+string(res.Stdout))
	}
	if res.ExitCode != 0 {
		t.Fatalf("exit %d, stdout %q, stderr %q", res.ExitCode, res.Stdout, res.Stderr)
	}
	if res.restarts == 0 {
		t.Error("no restart seen: the test tests nothing")
	}
	checkCalls(t, res.Calls, []Call{{1, "openat", at(dir, "f"), ""}, {2, "write", at(dir, "f"), ""}})
}

// TestBusy counts under a storm of preemption signals and threads.
func TestBusy(t *testing.T) {
	t.Parallel()
	for range 5 {
		dir := tempDir(t, false)
		res := trace(t, "busy", dir, Options{})
		if len(res.Calls) != 102 {
			t.Fatalf("%d calls, want 102", len(res.Calls))
		}
	}
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	tests := []struct{ target, name string }{
		{"setsid", "setsid"},
		{"mmap", "mmap of a file, shared and writable,"},
		{"x32", "32-bit system calls"},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			dir := tempDir(t, true)
			res, err := Trace(t.Context(), command(t, tt.target, dir), Options{})
			var unsupported *UnsupportedError
			if !errors.As(err, &unsupported) || unsupported.Name != tt.name {
				t.Fatalf("error %v, want an UnsupportedError for %s", err, tt.name)
			}
			if res.Signal != unix.SIGKILL {
				t.Errorf("signal %v, want SIGKILL", res.Signal)
			}
			if got := tree(t, dir); len(got) != 1 {
				t.Errorf("went on: %q", got)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	tests := []struct {
		target string
		signal syscall.Signal // that ends the command itself
	}{
		{"hang", unix.SIGKILL},
		{"orphan", 0}, // has exited by then
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t, false)
			cause := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			calls := 0
			res, err := Run(ctx, command(t, tt.target, dir), Options{}, func(Call) Action {
				calls++
				cancel(cause)
				return Action{}
			})
			if !errors.Is(err, cause) || calls != 1 {
				t.Errorf("error %v after %d calls, want %v after 1", err, calls, cause)
			}
			if res.Signal != tt.signal {
				t.Errorf("command ended by signal %d, want %d", res.Signal, tt.signal)
			}
		})
	}
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		dir := tempDir(t, false)
		if _, err := Trace(ctx, command(t, "save", dir), Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want %v", err, context.Canceled)
		}
		checkTree(t, dir, nil)
	})
}

// TestOtherChildren starts children of the same process while a run goes on: their
// ends are not the harness's to wait for.
func TestOtherChildren(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, false)
	others := 0
	_, err := Run(t.Context(), command(t, "save", dir), Options{}, func(Call) Action {
		var exit *exec.ExitError
		if err := command(t, "exit3", dir).Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Errorf("other child: %v, want exit status 3", err)
		}
		others++
		return Action{}
	})
	if err != nil || others != len(steps) {
		t.Errorf("error %v, %d other children", err, others)
	}
}

// TestGoexit ends the goroutine of the caller in the middle of a run.
func TestGoexit(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, false)
	cmd := command(t, "spawn", dir)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(t.Context(), cmd, Options{}, func(c Call) Action {
			if c.N == 2 { // in the child
				runtime.Goexit()
			}
			return Action{}
		})
	}()
	<-done
	if err := unix.Kill(cmd.Process.Pid, 0); err != unix.ESRCH {
		t.Errorf("the command is left: %v", err)
	}
	if got := tree(t, dir); len(got) != 1 {
		t.Errorf("went on: %q", got)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	dir := tempDir(t, false)
	save := func() *exec.Cmd { return command(t, "save", dir) }
	withStdout := save()
	withStdout.Stdout = os.Stdout
	tests := []struct {
		name string
		run  func() (Result, error)
		want string
	}{
		{"kill 0", func() (Result, error) { return Kill(t.Context(), save(), 0, Options{}) }, "call number 0"},
		{"fail -1", func() (Result, error) { return Fail(t.Context(), save(), -1, unix.EIO, Options{}) }, "call number -1"},
		{"no errno", func() (Result, error) { return Fail(t.Context(), save(), 1, 0, Options{}) }, "needs an errno"},
		{"kernel errno", func() (Result, error) { return Fail(t.Context(), save(), 1, eRestartSys, Options{}) }, "errno 512"},
		{"stdout", func() (Result, error) { return Trace(t.Context(), withStdout, Options{}) }, "already set"},
		{"no program", func() (Result, error) { return Trace(t.Context(), exec.Command(dir+"/none"), Options{}) }, "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.run(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			checkTree(t, dir, nil)
		})
	}
}

func TestStdin(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	res, err := Trace(t.Context(), cmd, Options{})
	if err != nil || len(res.Stdout) != 1<<20 || res.ExitCode != 0 || len(res.Calls) != 0 {
		t.Errorf("error %v, exit %d, %d bytes, calls %v", err, res.ExitCode, len(res.Stdout), res.Calls)
	}
}

func BenchmarkTrace(b *testing.B) {
	for b.Loop() {
		res, err := Trace(b.Context(), command(b, "save", b.TempDir()), Options{})
		if err != nil || len(res.Calls) != len(steps) {
			b.Fatal(err, res.Calls)
		}
	}
}

func BenchmarkUntraced(b *testing.B) {
	for b.Loop() {
		if err := command(b, "save", b.TempDir()).Run(); err != nil {
			b.Fatal(err)
		}
	}
}
