package main

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite golden files, scripts and man pages")

// cleanup is what platform-specific tests leave to the end.
var cleanup []func()

// commands are what the test binary is if it is called so.
var commands = map[string]func(){"fpurestore": main}

func TestMain(m *testing.M) { testscript.Main(withCleanup{m}, commands) }

type withCleanup struct{ *testing.M }

func (m withCleanup) Run() int {
	defer func() {
		for _, f := range cleanup {
			f()
		}
	}()
	return m.M.Run()
}

// golden compares got with a file; with -update it writes the file.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (make golden rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}
