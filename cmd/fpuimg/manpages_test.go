package main

import (
	"io"
	"path/filepath"
	"testing"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

//go:generate go test -run ^(TestManPages|TestCompletionFiles)$ -update .

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
		testcmd.Golden(t, filepath.Join("..", "..", "man", m.Page()+".1"), []byte(m.Roff()))
	}
}
