package testcmd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// programsEnv names a directory with the programs that the tests run, for machines
// on which they cannot be built.
const programsEnv = "FPUIMG_TEST_PROGRAMS"

var built struct {
	sync.Mutex
	dir string
}

// Build returns the path of a program, built once for the architecture, as
// users have it: without the race detector, which makes a start many times as long.
func Build(tb testing.TB, pkg, arch string) string {
	tb.Helper()
	if dir := os.Getenv(programsEnv); dir != "" {
		return filepath.Join(dir, filepath.Base(pkg))
	}
	out, err := build(pkg, arch)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func build(pkg, arch string) (string, error) {
	built.Lock()
	defer built.Unlock()
	abs, err := filepath.Abs(pkg)
	if err == nil && built.dir == "" {
		built.dir, err = os.MkdirTemp("", "fpuimg-test-")
	}
	if err != nil {
		return "", err
	}
	out := filepath.Join(built.dir, filepath.Base(abs))
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, msg)
	}
	return out, nil
}

// Main runs the tests, or one of the commands if the test binary is called by its
// name. In the end it removes what Build has built.
//
// Tests with the race detector run the package's own command as Build builds it:
// scripts start it some thousand times, and what could race in it runs in tests too.
func Main(m *testing.M, commands map[string]func()) { testscript.Main(withCleanup{m}, commands) }

type withCleanup struct{ *testing.M }

func (m withCleanup) Run() int {
	defer func() {
		if built.dir != "" {
			os.RemoveAll(built.dir)
		}
	}()
	// With the race detector each child that is this binary would sleep for a second at
	// its end.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	if err := useBuilt(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.M.Run()
}

// useBuilt puts the command of this package, if it is one, first into the PATH where
// the tests have the race detector.
func useBuilt() error {
	info, ok := debug.ReadBuildInfo()
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	if !ok || !slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) || filepath.Base(filepath.Dir(wd)) != "cmd" {
		return nil
	}
	program, err := build(".", runtime.GOARCH)
	if err != nil {
		return err
	}
	return os.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
}
