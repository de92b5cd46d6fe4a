package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fpuimg/fpuimg/internal/cli"
)

var update = flag.Bool("update", false, "rewrite golden files and man pages")

//go:generate go test -run ^TestManPages$ -update .

// TestManPages compares man/ with the manuals that --help prints; with -update it
// writes them.
func TestManPages(t *testing.T) {
	s := cli.NewIO("fpuimg", nil, io.Discard, io.Discard)
	pages := []*cli.Manual{&rootManual}
	for _, v := range verbs() {
		v.flags(s)
		pages = append(pages, &v.manual)
	}
	for _, m := range pages {
		golden(t, filepath.Join("..", "..", "man", m.Page()+".1"), m.Roff())
	}
}

// golden compares got with a file; with -update it writes the file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (make golden rewrites it); got:\n%s\nwant:\n%s", path, got, want)
	}
}
