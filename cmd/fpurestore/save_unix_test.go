//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// must stops a test at an error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// TestSaveMeddled has whoever owns the place of --save change it while the threads are
// held: the restore is done, nothing of another's is written, nothing is waited for, and
// a directory that cannot appear is said and leaves nothing.
func TestSaveMeddled(t *testing.T) {
	images := images(t, filled(avx512), "7/7", "7/8")
	traps := func(at string) error { // as the files that are to be written
		return errors.Join(os.Mkdir(at, 0o777), os.Symlink("../precious", filepath.Join(at, "core-7.img")),
			syscall.Mkfifo(filepath.Join(at, "core-8.img"), 0o666), os.Symlink("../precious", filepath.Join(at, "pstree.img")))
	}
	aside := func(f func(hidden string) error) func(string, string) error {
		return func(_, hidden string) error { return errors.Join(os.Rename(hidden, hidden+"-moved"), f(hidden)) }
	}
	const whole = "core-7.img core-8.img inventory.img pstree.img"
	for name, tt := range map[string]struct {
		meddle func(place, hidden string) error
		saved  bool
	}{
		"nothing":        {func(place, hidden string) error { return nil }, true},
		"a file there":   {func(place, hidden string) error { return os.WriteFile(place, nil, 0o600) }, false},
		"directory":      {func(place, hidden string) error { return os.Mkdir(place, 0o777) }, false},
		"dangling link":  {func(place, hidden string) error { return os.Symlink("nowhere", place) }, false},
		"FIFO":           {func(place, hidden string) error { return syscall.Mkfifo(place, 0o666) }, false},
		"hidden: traps":  {aside(traps), true},
		"hidden: link":   {aside(func(hidden string) error { return os.Symlink(t.TempDir(), hidden) }), true},
		"hidden: FIFO":   {aside(func(hidden string) error { return syscall.Mkfifo(hidden, 0o666) }), true},
		"hidden: a file": {aside(func(hidden string) error { return os.WriteFile(hidden, nil, 0o600) }), true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			precious, place := filepath.Join(dir, "precious"), filepath.Join(dir, "saved")
			must(t, os.WriteFile(precious, []byte("gold"), 0o600))
			f := newFake(t)
			var was os.FileInfo
			f.before = func(call string) error {
				if call == "swap 2" {
					hidden, err := filepath.Glob(filepath.Join(dir, ".*"))
					if len(hidden) != 1 {
						t.Fatal(hidden, err)
					}
					must(t, tt.meddle(place, hidden[0]))
					was, _ = os.Lstat(place)
				}
				return nil
			}
			r := f.restore("-t", "7", "-D", images, "--save", place)
			r.says(t, "2 threads restored")
			if b, err := os.ReadFile(precious); string(b) != "gold" {
				t.Errorf("another's file is %q, %v", b, err)
			}
			is, err := os.Lstat(place)
			switch {
			case tt.saved && (r.code != 0 || names(t, place) != whole || is.Mode() != os.ModeDir|0o700):
				t.Errorf("exit status %d, %v, %s", r.code, err, r.errors)
			case !tt.saved && (r.code != 3 || err != nil || !os.SameFile(is, was)):
				t.Errorf("exit status %d, %v, %s", r.code, err, r.errors)
			case !tt.saved:
				r.says(t, "error: process 7: create "+place+": file already exists", "hint: --save=DIR makes a new directory")
				if left, _ := filepath.Glob(filepath.Join(dir, ".*")); left != nil {
					t.Errorf("left behind: %v", left)
				}
			}
		})
	}
}
