// Package testcmd is what the tests of commands share: golden files, scripts, and
// the tools of others that ours are compared with.
package testcmd

import (
	"bytes"
	"errors"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

var update = flag.Bool("update", false, "rewrite golden files, scripts and generated files")

// Golden compares got with a file, or with -update writes the file.
func Golden(tb testing.TB, path string, got []byte) {
	tb.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			tb.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	n := 0
	for n < min(len(g), len(w)) && bytes.Equal(g[n], w[n]) {
		n++
	}
	some := func(lines [][]byte) []byte { return bytes.Join(lines[n:min(n+5, len(lines))], []byte("\n")) }
	tb.Errorf("%s differs from line %d on (make golden rewrites it)\ngot:\n%s\nwant:\n%s", path, n+1, some(g), some(w))
}

// Tool returns the path of a program that is not ours. Where it is missing the test
// is skipped; with FPU_TOOLS=1, as on the machine that decides, it fails.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Lack(tb, name+" is not installed")
	}
	return path
}

// GNUTar is Tool for GNU tar.
func GNUTar(tb testing.TB) string {
	tb.Helper()
	path := Tool(tb, "tar")
	if out, err := exec.Command(path, "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU tar")) {
		Lack(tb, path+" is not GNU tar")
	}
	return path
}

// Library is Tool for a C library that pkg-config knows.
func Library(tb testing.TB, name string) {
	tb.Helper()
	if err := exec.Command(Tool(tb, "pkg-config"), "--exists", name).Run(); err != nil {
		Lack(tb, name+" is not installed")
	}
}

// Lack skips a test on a machine that lacks something which is no part of its CPU; with
// FPU_TOOLS=1 the test fails.
func Lack(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("FPU_TOOLS") != "" {
		tb.Fatalf("%s, and FPU_TOOLS is set", what)
	}
	tb.Skip(what)
}

// Script runs the scripts of testdata/script. $IMAGES is testdata/images of the
// module, and "exits N command..." is a command that must end with exit code N.
// The caller adds commands and conditions of its own; cond may be nil.
func Script(t *testing.T, cmds map[string]func(*testscript.TestScript, bool, []string), cond func(string) (bool, error)) {
	images := testimg.Path(t)
	all := map[string]func(*testscript.TestScript, bool, []string){"exits": exits}
	maps.Copy(all, cmds)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("IMAGES", images)
			env.Setenv("COLUMNS", "80")
			return nil
		},
		Condition: cond,
		Cmds:      all,
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N command [argument]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}
