package main

import (
	"path/filepath"
	"strings"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

//go:generate go test -run ^(TestManPage|TestCompletionFiles)$ -update .

// TestManPage compares man/ with the manual that --help prints; with -update it
// writes the page.
func TestManPage(t *testing.T) {
	var out, errs strings.Builder
	if code := run([]string{"--roff"}, nil, &out, &errs); code != 0 {
		t.Fatalf("exit status %d: %s", code, errs.String())
	}
	testcmd.Golden(t, filepath.Join("..", "..", "man", "fpurestore.1"), []byte(out.String()))
}
