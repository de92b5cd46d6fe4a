package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestReadme runs the commands of the README's console blocks, in a directory that
// has testdata/images and testdata/machines, and compares what they print. With -update it writes what
// they print into the README.
func TestReadme(t *testing.T) {
	t.Parallel()
	sh := testcmd.Tool(t, "sh")
	path, err := filepath.Abs(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, from := range map[string]string{"images": testimg.Path(t), "machines": filepath.Join("..", "..", "testdata", "machines")} {
		if err := os.CopyFS(filepath.Join(dir, "testdata", name), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	console, commands := false, 0
	for line := range strings.Lines(string(text)) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case line == "```console\n":
			console = true
		case console && line == "```\n":
			console = false
		case console && !isCommand:
			continue // output: written anew below
		}
		out.WriteString(line)
		if console && isCommand {
			commands++
			cmd := exec.Command(sh, "-c", command)
			cmd.Dir = dir
			cmd.Env = append(cmd.Environ(), "COLUMNS=80", "NO_COLOR=1")
			printed, err := cmd.CombinedOutput() // a finding makes an exit code too
			if err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			out.Write(printed)
		}
	}
	if commands == 0 {
		t.Fatal("no commands")
	}
	testcmd.Golden(t, path, []byte(out.String()))
}

// TestReadmeSetUp holds the README to its promise: two commands, which the
// Makefile has.
func TestReadmeSetUp(t *testing.T) {
	root := filepath.Join("..", "..")
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```sh\n")
	block, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("no sh block")
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(block) {
		n++
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "make" || !strings.Contains(string(makefile), "\n.PHONY: "+words[1]+"\n") {
			t.Errorf("%q is no target of the Makefile", line)
		}
	}
	if n != 2 {
		t.Errorf("%d commands, want 2", n)
	}
}
