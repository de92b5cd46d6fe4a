package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// showGoldens has one real checkpoint of each kind. The text is that of --regs,
// except where many threads would say nothing new.
var showGoldens = []struct {
	name string
	args []string // for both forms, after "show"
}{
	{"avx512", []string{"--regs", "h-avx512"}},
	{"avx", []string{"--regs", "h-avx"}},
	{"init", []string{"--regs", "h-init"}},
	{"special", []string{"--regs", "h-special"}},
	{"special-f64", []string{"--as=f64", "h-special"}},
	{"x87top", []string{"--regs", "h-x87top"}},
	{"compat32", []string{"--regs", "h-compat32"}},
	{"threads200", []string{"h-threads200"}},
	{"threads8", []string{"--regs", "--tid=22100,22160", "h-threads8"}},
	{"tree3", []string{"h-tree3"}},
	{"amx", []string{"--regs", "h-amx"}},
	{"pkru", []string{"--regs", "--component=pkru,BNDCSR", "g-max-criu42-pkru4"}},
	{"mpx", []string{"--regs", "g-max-criu42-auto"}},
	{"fxsave", []string{"--regs", "g-qemu64-criu42-auto"}},
	{"old-v10", []string{"--regs", "old-v10-sse"}},
	{"old-nofpregs", []string{"--regs", "old-nofpregs"}},
	{"old-ymmonly", []string{"--regs", "old-ymmonly"}},
	{"old-x87zeroed", []string{"--regs", "old-x87zeroed"}},
	{"pidns", []string{"--regs", "h-pidns1"}},
	{"redact", []string{"--regs", "--redact", "g-max-criu42-auto"}},
	{"archive-gzip", []string{"--regs", "p-gzip/p-gzip.tar.gz"}},
	{"archive-zstd", []string{"p-zstd/p-zstd.tar.zst"}},
	{"archive-none", []string{"p-none/p-none.tar"}},
	{"core-gcore", []string{"--regs", "core-gcore/core.27521"}},
	{"core-kernel", []string{"core-kernel/core.27620"}},
	{"bad", nil}, // every file of bad/
}

func TestShowGolden(t *testing.T) {
	for _, tt := range showGoldens {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if tt.name == "bad" {
				for _, path := range testimg.Glob(t, "bad/*.img") {
					args = append(args, testimg.Name(t, path))
				}
			}
			dir, err := filepath.Abs(filepath.Join("testdata", "show"))
			if err != nil {
				t.Fatal(err)
			}
			stdout, stderr, code := capture(t, append([]string{"show"}, args...)...)
			text := fmt.Appendf(stdout, "-- stderr --\n%s-- exit %d --\n", stderr, code)
			testcmd.Golden(t, filepath.Join(dir, tt.name+".txt.golden"), text)
			for n, line := range bytes.Split(stdout, []byte("\n")) {
				if len(line) > 80 && tt.name != "special" && tt.name != "special-f64" {
					t.Errorf("line %d is wider than 80 columns: %s", n+1, line)
				}
			}

			stdout, _, jsonCode := capture(t, append([]string{"show", "--json"}, args...)...)
			testcmd.Golden(t, filepath.Join(dir, tt.name+".json.golden"), stdout)
			if jsonCode != code {
				t.Errorf("exit code %d with --json, %d without", jsonCode, code)
			}
		})
	}
}

// TestShowTextOnAnyWidth looks for lines that are wider than the terminal, with
// and without colour.
func TestShowTextOnAnyWidth(t *testing.T) {
	names := []string{"h-avx512", "h-amx", "h-threads200", "h-tree3", "g-max-criu42-pkru4", "old-nofpregs"}
	plain, _, _ := capture(t, append([]string{"show"}, names...)...)
	coloured, _, _ := capture(t, append([]string{"show", "--color=always"}, names...)...)
	if bytes.Contains(plain, []byte("\x1b")) {
		t.Error("colour where standard output is no terminal")
	}
	stripped := coloured
	for _, attrs := range [][]string{{"1", "2", "31;1", "33;1", "32", "0", "22", "0;22"}} {
		for _, a := range attrs {
			stripped = bytes.ReplaceAll(stripped, []byte("\x1b["+a+"m"), nil)
		}
	}
	if !bytes.Equal(stripped, plain) {
		t.Errorf("colour changes more than colour:\n%s\nwant:\n%s", stripped, plain)
	}
	for line := range strings.Lines(string(plain)) {
		if len(line) > 81 {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}
}

// TestShowChanged reads images that change between the pass for the table and the
// one for the registers.
func TestShowChanged(t *testing.T) {
	other := testimg.Read(t, "h-sse", "core-20600.img")
	for name, change := range map[string]func(path string) error{
		"other components": func(path string) error { return os.WriteFile(path, other, 0o600) },
		"gone":             os.Remove,
		"nothing":          nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(testimg.Path(t, "h-threads8"))); err != nil {
				t.Fatal(err)
			}
			ckpt, err := checkpoint.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			o := showOptions{regs: true, features: ^xstate.Features(0), unseen: map[int]bool{}}
			img := &shown{path: dir, ckpt: ckpt}
			if err := o.read(img, nil); err != nil {
				t.Fatal(err)
			}
			if change != nil {
				if err := change(filepath.Join(dir, "core-22109.img")); err != nil {
					t.Fatal(err)
				}
			}
			err = o.text(cli.NewIO("test", nil, io.Discard, io.Discard), img)
			if (err != nil) != (change != nil) || err != nil && !strings.Contains(err.Error(), "another program changed it") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestShowWideNames shows names whose characters are two columns wide.
func TestShowWideNames(t *testing.T) {
	fx := xstate.InitFXArea()
	core, err := codec.MarshalCore(codec.Thread{PID: 7, TID: 7, Comm: strings.Repeat("火", 5),
		State: &xstate.State{Format: xstate.FormatXSave, FX: fx}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "core-7.img")
	if err := os.WriteFile(path, core, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := capture(t, "show", path)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, path) && view.Width(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}
}
