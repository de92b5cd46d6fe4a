package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testshell "github.com/fpuimg/fpuimg/internal/test/shell"
)

// TestCompletionFiles compares completions/ with what --completion prints; with
// -update it writes the files.
func TestCompletionFiles(t *testing.T) {
	for _, shell := range cli.Shells {
		var out, errs strings.Builder
		if code := run([]string{"--completion", shell}, nil, &out, &errs); code != 0 {
			t.Fatalf("--completion=%s: exit status %d: %s", shell, code, errs.String())
		}
		testcmd.Golden(t, testshell.File(t, "fpurestore", shell), []byte(out.String()))
	}
}

// TestFlagValues has every option that takes a value say which.
func TestFlagValues(t *testing.T) {
	var out strings.Builder
	s := cli.NewIO("fpurestore", nil, &out, io.Discard)
	if _, err := dispatch(s, []string{"--version"}, nil); err != nil {
		t.Fatal(err)
	}
	known := flagValues()
	manual.Flags.VisitAll(func(f *pflag.Flag) {
		if _, ok := known[f.Name]; ok == (f.Value.Type() == "bool") {
			t.Errorf("--%s is of type %s; its values are listed: %v", f.Name, f.Value.Type(), ok)
		}
		delete(known, f.Name)
	})
	for name := range known {
		t.Errorf("there is no --%s", name)
	}
}

func completionCases() []testshell.Case {
	return []testshell.Case{
		{Line: "fpurestore --ig", Want: []string{"--ignore-missing"}, Not: "--tree"},
		{Line: "fpurestore --ma", Want: []string{"--map"}, Not: "--save"},
		{Line: "fpurestore --ro", Not: "--roff"},
		{Line: "fpurestore --color=a", Want: []string{"--color=always", "--color=auto"}, Not: "--color=never"},
		{Line: "fpurestore --completion f", Want: []string{"fish"}, Not: "bash"},
		{Line: "fpurestore -D ck", Want: []string{"ckpt-a", "ckpt-b"}, Not: testshell.Plain},
		{Line: "fpurestore --dir=ck", Want: []string{"--dir=ckpt-a", "--dir=ckpt-b"}, Not: "--dir=" + testshell.Plain},
		{Line: "fpurestore --save o", Want: []string{"other"}, Not: "ckpt-a"},
		{Line: "fpurestore -D my", Want: []string{"my dir"}, Not: "other"},
		{Line: `fpurestore -D my\ d`, Want: []string{"my dir"}, Not: "other"},
		{Line: `fpurestore --dir=my\ d`, Want: []string{"--dir=my dir"}, Not: "other"},
		{Line: `fpurestore -D "my d`, Want: []string{"my dir"}, Not: "other"},
		{Line: `fpurestore --save='my d`, Want: []string{"--save=my dir"}, Not: "other"},
		{Line: `fpurestore -D "my dir" --color=a`, Want: []string{"--color=always"}, Not: "--color=never"},
		{Line: "fpurestore --map ck", Not: "ckpt-a"},
		{Line: "fpurestore -t 4711 ck", Want: []string{"ckpt-a", testshell.Plain}, Not: "other"},
	}
}

// TestShells completes the command lines in real shells.
func TestShells(t *testing.T) { testshell.Run(t, "fpurestore", cli.Shells, completionCases()) }
