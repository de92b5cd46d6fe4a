package testcmd

import (
	"os"
	"os/exec"
	"path/filepath"
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
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "fpuimg-test-")
		if err != nil {
			tb.Fatal(err)
		}
		built.dir = dir
	}
	out := filepath.Join(built.dir, filepath.Base(pkg))
	if _, err := os.Stat(out); err == nil {
		return out
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if msg, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("building %s: %v\n%s", pkg, err, msg)
	}
	return out
}

// Main runs the tests, or one of the commands if the test binary is called by its
// name. In the end it removes what Build has built.
func Main(m *testing.M, commands map[string]func()) { testscript.Main(withCleanup{m}, commands) }

type withCleanup struct{ *testing.M }

func (m withCleanup) Run() int {
	defer func() {
		if built.dir != "" {
			os.RemoveAll(built.dir)
		}
	}()
	return m.M.Run()
}
