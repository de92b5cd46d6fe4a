package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// talk runs fpuimg and returns its exit code and how many lines it printed.
func talk(args ...string) (code, lines int, out string) {
	var b bytes.Buffer
	code = run(args, strings.NewReader(""), &b, &b)
	return code, strings.Count(b.String(), "\n"), b.String()
}

// TestManyFaults reads checkpoints with a fault for each of many threads: ten are told,
// the rest is counted.
func TestManyFaults(t *testing.T) {
	const n = 20_000
	tids := make([]int, n)
	for i := range tids {
		tids[i] = 1 + i
	}
	pstree := codec.MarshalPstree([]codec.SavedTask{{PID: 1, TIDs: tids}})
	write := func(dir, name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing, cut := t.TempDir(), t.TempDir()
	write(missing, "pstree.img", pstree)
	for tid := range 1000 {
		write(cut, fmt.Sprintf("core-%d.img", 1+tid), []byte("cut"))
	}
	for _, dir := range []string{missing, cut} {
		for _, args := range [][]string{{"show"}, {"show", "--json"}, {"check", "--host=x86-64-v3"}, {"check", "--host=x86-64-v3", "--host=x86-64-v2"},
			{"convert", "--to=fxsave", "--dry-run"}} {
			code, lines, out := talk(append(args, dir)...)
			if code != 3 || lines > 60 || !strings.Contains(out, " more\n") {
				t.Errorf("%q of %s: exit %d, %d lines, want 3, 60 at most, and a count of more:\n%.2000s", args, filepath.Base(dir), code, lines, out)
			}
		}
	}
}

// TestManyFindings reads a checkpoint whose threads each have a finding, or a loss, of
// their own.
func TestManyFindings(t *testing.T) {
	core, err := codec.ParseCore("core", testimg.Read(t, "h-avx512", "core-20000.img"))
	if err != nil {
		t.Fatal(err)
	}
	const n = 300
	make := func(change func(s *xstate.State, i int)) string {
		dir := t.TempDir()
		var tids []int
		for i := range n {
			s := core.State.Clone()
			change(s, i)
			b, err := core.Encode(s)
			if err != nil {
				t.Fatal(err)
			}
			tids = append(tids, 1+i)
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("core-%d.img", 1+i)), append(b, 0), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pstree := codec.MarshalPstree([]codec.SavedTask{{PID: 1, TIDs: tids}})
		if err := os.WriteFile(filepath.Join(dir, "pstree.img"), pstree, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	findings := make(func(s *xstate.State, i int) { s.FX.SetMXCSR(1<<16 + uint32(i)<<17) }) // reserved bits
	losses := make(func(s *xstate.State, i int) {
		data := bytes.Repeat([]byte{0}, 256)
		for bit := range 16 {
			data[bit*16] = byte((i + 1) >> bit & 1)
		}
		s.SetData(xstate.AVX, data)
	})
	for _, tt := range []struct {
		dir  string
		args []string
	}{
		{findings, []string{"show"}},
		{findings, []string{"check", "--host=x86-64-v3"}},
		{findings, []string{"convert", "--to=fxsave", "--force", "--dry-run"}},
		{losses, []string{"check", "--host=x86-64"}},
		{losses, []string{"convert", "--to=fxsave", "--force", "--dry-run"}},
	} {
		_, lines, out := talk(append(tt.args, tt.dir)...)
		if lines > 200 || !strings.Contains(out, " more\n") && !strings.Contains(out, " more losses\n") {
			t.Errorf("%q: %d lines, want 200 at most, and a count of more:\n%.3000s", tt.args, lines, out)
		}
	}
}
