package convert_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// interrupt makes of a checkpoint one whose conversion in place was cut off after
// its commit, with the first n renames done, and returns what it should become.
func interrupt(t *testing.T, dir string, o convert.Options, renames int) (names []string, want map[string]string) {
	t.Helper()
	before := contents(t, dir)
	out := contents(t, convertDir(t, dir, o))
	want = maps.Clone(out)
	for name, b := range out {
		if before[name] == b {
			continue
		}
		names = append(names, name)
		want[name+".orig"] = before[name]
	}
	slices.Sort(names) // core images first
	record := `{"files":["` + strings.Join(names, `","`) + `"]}`
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(codec.RedoName, record)
	for _, name := range names {
		if renames >= 1 {
			if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".orig")); err != nil {
				t.Fatal(err)
			}
		}
		if renames >= 2 {
			write(name, out[name])
		} else {
			write("."+name+".fpuimg-new", out[name])
		}
		renames -= 2
	}
	return names, want
}

func TestRecover(t *testing.T) {
	for renames := range 7 {
		dir := copyImage(t, "g-max-criu42-pkru4")
		names, want := interrupt(t, dir, forced(xstate.FormatFXSave), renames)
		if len(names) < 3 {
			t.Fatalf("only %v changes", names)
		}
		for _, path := range []string{dir, filepath.Join(dir, names[0])} {
			c, err := checkpoint.Open(path)
			if err == nil {
				err = errors.Join(c.Problems...)
			}
			var interrupted *codec.InterruptedError
			if !errors.As(err, &interrupted) {
				t.Errorf("%d renames: opening %s: %v, want an InterruptedError", renames, path, err)
			}
			if _, err := convert.NewPlan(&checkpoint.Checkpoint{Problems: []error{err}}, forced(xstate.FormatXSave)); err == nil {
				t.Errorf("%d renames: a plan was made", renames)
			}
		}
		completed, err := convert.Recover(filepath.Join(dir, names[0])) // by one of its files
		if err != nil || !completed {
			t.Fatalf("%d renames: Recover: %t, %v", renames, completed, err)
		}
		if got := contents(t, dir); !maps.Equal(got, want) {
			t.Errorf("%d renames: the checkpoint is not the converted one", renames)
		}
		if completed, err := convert.Recover(dir); completed || err != nil {
			t.Errorf("%d renames: a second time: %t, %v", renames, completed, err)
		}
	}
}

// TestSweep checks that what an uncommitted conversion left goes, and only that.
func TestSweep(t *testing.T) {
	dir := copyImage(t, "h-sse")
	before := contents(t, dir)
	for _, name := range []string{".core-1.img.fpuimg-new", "..fpuimg-redo.fpuimg-new"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if completed, err := convert.Recover(dir); completed || err != nil {
		t.Errorf("Recover: %t, %v", completed, err)
	}
	if !maps.Equal(contents(t, dir), before) {
		t.Error("the checkpoint is not as it was")
	}
}

// TestHostileRecord checks records that no conversion wrote: nothing outside the
// checkpoint is touched.
func TestHostileRecord(t *testing.T) {
	for _, record := range []string{
		`{"files":["../outside.img"]}`, `{"files":["/etc/outside.img"]}`, `{"files":["sub/core-1.img"]}`,
		`{"files":[".."]}`, `{"files":[""]}`, `{"files":["pstree"]}`, `{"files":[7]}`, `{"files":`, ``, `[]`, `{"files":["x\u0000.img"]}`,
	} {
		base := scratch(t)
		dir := filepath.Join(base, "ckpt")
		if err := os.CopyFS(dir, os.DirFS(copyImage(t, "h-sse"))); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			"outside.img": "mine", ".outside.img.fpuimg-new": "theirs", "ckpt/..outside.img.fpuimg-new": "theirs", "ckpt/" + codec.RedoName: record,
		} {
			if err := os.WriteFile(filepath.Join(base, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := contents(t, base)
		completed, err := convert.Recover(dir)
		var format *codec.FormatError
		if completed || !errors.As(err, &format) {
			t.Errorf("record %s: %t, %v; want a FormatError", record, completed, err)
		}
		if !maps.Equal(contents(t, base), before) {
			t.Errorf("record %s: something changed", record)
		}
	}
}

// TestLinkedLeftovers checks that links in the place of our own files are not
// followed.
func TestLinkedLeftovers(t *testing.T) {
	base := scratch(t)
	victim := filepath.Join(base, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := copyImage(t, "h-sse")
	for _, name := range []string{".core-20600.img.fpuimg-new", ".cpuinfo.img.fpuimg-new", "..fpuimg-redo.fpuimg-new"} {
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := plan(t, dir, forced(xstate.FormatFXSave)).InPlace(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "mine" {
		t.Errorf("a link was followed: %q, %v", b, err)
	}
	redo := copyImage(t, "h-sse")
	if err := os.Symlink(victim, filepath.Join(redo, codec.RedoName)); err != nil {
		t.Fatal(err)
	}
	if completed, err := convert.Recover(redo); completed || err == nil {
		t.Errorf("a record that is a link: %t, %v", completed, err)
	}
	out := filepath.Join(base, "out.img")
	if err := os.Symlink(victim, filepath.Join(base, ".out.img.fpuimg-stage")); err != nil {
		t.Fatal(err)
	}
	core := testCore(t, dir)
	if err := plan(t, core+".orig", forced(xstate.FormatFXSave)).WriteFile(out); err == nil {
		t.Error("a stage that is a link was taken over")
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "mine" {
		t.Errorf("a link was followed: %q, %v", b, err)
	}
}

func testCore(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
	if err != nil || len(names) == 0 {
		t.Fatal("no core image", err)
	}
	return names[0]
}

// TestStale checks that a checkpoint which changed after it was read is left alone.
func TestStale(t *testing.T) {
	dir := copyImage(t, "h-threads8")
	first, second := plan(t, dir, forced(xstate.FormatFXSave)), plan(t, dir, forcedHost(level(t, "x86-64-v3")))
	if err := first.InPlace(); err != nil {
		t.Fatal(err)
	}
	after := contents(t, dir)
	if err := second.InPlace(); err == nil || !strings.Contains(err.Error(), "another program changed it") {
		t.Errorf("in place, after another conversion: %v", err)
	}
	base := scratch(t)
	if err := second.WriteDir(filepath.Join(base, "out"), convert.DirOptions{}); err == nil {
		t.Error("to a new directory, after another conversion: no error")
	}
	if entries, err := os.ReadDir(base); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if !maps.Equal(contents(t, dir), after) {
		t.Error("the checkpoint changed")
	}

	// A record that another conversion left in the meantime.
	dir = copyImage(t, "h-sse")
	p := plan(t, dir, forced(xstate.FormatFXSave))
	interrupt(t, dir, forced(xstate.FormatFXSave), 0)
	after = contents(t, dir)
	var interrupted *codec.InterruptedError
	if err := p.InPlace(); !errors.As(err, &interrupted) {
		t.Errorf("over a record: %v, want an InterruptedError", err)
	}
	if !maps.Equal(contents(t, dir), after) {
		t.Error("the checkpoint changed")
	}
}

// TestBackups checks that a second conversion keeps the originals of the first.
func TestBackups(t *testing.T) {
	dir := copyImage(t, "h-avx512")
	before := contents(t, dir)
	for _, o := range []convert.Options{forcedHost(level(t, "x86-64-v3")), forced(xstate.FormatFXSave)} {
		if err := plan(t, dir, o).InPlace(); err != nil {
			t.Fatal(err)
		}
	}
	after := contents(t, dir)
	for name, b := range after {
		if original, ok := strings.CutSuffix(name, ".orig"); ok && b != before[original] {
			t.Errorf("%s is not the first original", name)
		}
	}
	if after["core-20000.img"] == before["core-20000.img"] || after["core-20000.img.orig"] == "" {
		t.Error("nothing was converted")
	}
}

func TestOutputs(t *testing.T) {
	dir := copyImage(t, "h-sse")
	before := contents(t, dir)
	p := plan(t, dir, forced(xstate.FormatFXSave))
	for _, out := range []string{filepath.Join(dir, "out"), dir + "/./out", filepath.Join(dir, "..", filepath.Base(dir), "out")} {
		if err := p.WriteDir(out, convert.DirOptions{}); err == nil || !strings.Contains(err.Error(), "lies inside the checkpoint") {
			t.Errorf("output %s: %v", out, err)
		}
	}
	inner := filepath.Join(scratch(t), "link")
	if err := os.Symlink(dir, inner); err != nil {
		t.Fatal(err)
	}
	if err := p.WriteDir(filepath.Join(inner, "out"), convert.DirOptions{}); err == nil {
		t.Error("an output inside, by a link: no error")
	}
	if err := p.WriteDir(inner, convert.DirOptions{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("an output that exists: %v", err)
	}
	single := plan(t, testCore(t, dir), forced(xstate.FormatFXSave))
	if err := single.WriteFile(inner); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that exists: %v", err)
	}
	if _, err := p.Bytes(); err == nil {
		t.Error("the bytes of a directory: no error")
	}
	if !maps.Equal(contents(t, dir), before) {
		t.Error("the checkpoint changed")
	}
}

// TestConcurrent lets conversions of one checkpoint race. Whatever they say, the
// checkpoint is the whole work of one of them, or of some one after the other, or of none.
func TestConcurrent(t *testing.T) {
	targets := []convert.Options{forced(xstate.FormatFXSave), forcedHost(level(t, "x86-64-v3")), forced(xstate.FormatNone)}
	whole := []map[string]string{contents(t, testimg.Path(t, "h-threads8"))}
	var chain func(dir string, done ...int)
	chain = func(dir string, done ...int) {
		for i, o := range targets {
			if !slices.Contains(done, i) {
				out := convertDir(t, dir, o)
				whole = append(whole, contents(t, out))
				chain(out, append(done, i)...)
			}
		}
	}
	chain(testimg.Path(t, "h-threads8"))
	for range 15 {
		dir := copyImage(t, "h-threads8")
		out := filepath.Join(scratch(t), "out")
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if _, err := convert.Recover(dir); err != nil {
					return
				}
				c, err := checkpoint.Open(dir)
				if err != nil {
					return
				}
				p, err := convert.NewPlan(c, targets[i/2])
				if err != nil {
					return
				}
				if i%2 == 0 {
					p.InPlace()
				} else {
					p.WriteDir(out, convert.DirOptions{})
				}
			})
		}
		wg.Wait()
		got := contents(t, dir)
		maps.DeleteFunc(got, func(name, _ string) bool { return strings.HasSuffix(name, ".orig") })
		if !slices.ContainsFunc(whole, func(w map[string]string) bool { return maps.Equal(got, w) }) {
			t.Fatalf("in place: the work of no one: %v", slices.Sorted(maps.Keys(got)))
		}
		if _, err := os.Stat(out); err != nil {
			continue
		}
		copied := contents(t, out)
		maps.DeleteFunc(copied, func(name, _ string) bool { return strings.HasSuffix(name, ".orig") })
		if !slices.ContainsFunc(whole, func(w map[string]string) bool { return maps.Equal(copied, w) }) {
			t.Fatalf("to a new directory: the work of no one: %v", slices.Sorted(maps.Keys(copied)))
		}
	}
}
