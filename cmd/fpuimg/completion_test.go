package main

import (
	"io"
	"testing"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testshell "github.com/fpuimg/fpuimg/internal/test/shell"
)

// TestCompletionFiles compares completions/ with what fpuimg completion prints; with
// -update it writes the files.
func TestCompletionFiles(t *testing.T) {
	for _, shell := range cli.Shells {
		path := testshell.File(t, "fpuimg", shell)
		out, errs, code := capture(t, "completion", shell)
		if code != 0 {
			t.Fatalf("fpuimg completion %s: %s", shell, errs)
		}
		testcmd.Golden(t, path, out)
	}
}

// TestFlagValues has every option that takes a value say which.
func TestFlagValues(t *testing.T) {
	s := cli.NewIO("fpuimg", nil, io.Discard, io.Discard)
	known := flagValues()
	used := map[string]bool{}
	for _, v := range verbs() {
		fs, _ := v.flags(s)
		fs.VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				return
			}
			used[f.Name] = true
			if _, ok := known[f.Name]; !ok {
				t.Errorf("%s --%s: its values are not listed", v.manual.Name, f.Name)
			}
		})
	}
	for name := range known {
		if !used[name] {
			t.Errorf("no command has --%s", name)
		}
	}
}

var completionCases = []testshell.Case{
	{Line: "fpuimg sh", Want: []string{"show"}, Not: "check"},
	{Line: "fpuimg c", Want: []string{"check", "convert", "completion"}, Not: "show"},
	{Line: "fpuimg show --re", Want: []string{"--regs", "--redact"}, Not: "--json"},
	{Line: "fpuimg show --as=f", Want: []string{"--as=f32", "--as=f64"}, Not: "--as=hex"},
	{Line: "fpuimg show --component=PK", Want: []string{"--component=PKRU"}, Not: "--component=SSE"},
	{Line: "fpuimg check --host=x86-64-v", Want: []string{"--host=x86-64-v2", "--host=x86-64-v4"}, Not: "--host=v"},
	{Line: "fpuimg convert --to=", Want: []string{"--to=none", "--to=fxsave", "--to=xsave"}, Not: "--to=AVX"},
	{Line: "fpuimg convert --to x", Want: []string{"xsave"}, Not: "fxsave"},
	{Line: "fpuimg help pro", Want: []string{"profile"}, Not: "show"},
	{Line: "fpuimg completion z", Want: []string{"zsh"}, Not: "bash"},
	{Line: "fpuimg show ck", Want: []string{"ckpt-a", "ckpt-b", "ckpt-file"}, Not: "other"},
	{Line: "fpuimg show --regs ckpt-a", Want: []string{"ckpt-a"}, Not: "ckpt-b"},
	{Line: "fpuimg show -- ck", Want: []string{"ckpt-a", "ckpt-b"}, Not: "other"},
	{Line: "fpuimg convert -o ot", Want: []string{"other"}, Not: "ckpt-a"},
	{Line: "fpuimg check --host=ot", Want: []string{"--host=other"}, Not: "--host=x86-64"},
	{Line: `fpuimg show my\ d`, Want: []string{"my dir"}, Not: "other", Except: "fish"},
	{Line: `fpuimg show "my d`, Want: []string{"my dir"}, Not: "other", Except: "fish"},
	{Line: `fpuimg check --host="my d`, Want: []string{"--host=my dir"}, Not: "other", Except: "fish"},
	{Line: "fpuimg check --host=", Want: []string{"--host=x86-64-v2", "--host=my dir"}, Not: "my dir"},
	{Line: `fpuimg show "my dir" --as=f`, Want: []string{"--as=f32", "--as=f64"}, Not: "--as=hex"},
}

// TestShells completes the command lines in real shells.
func TestShells(t *testing.T) { testshell.Run(t, "fpuimg", cli.Shells, completionCases) }
