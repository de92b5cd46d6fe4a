package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// fill writes threads of process 1.
func fill(d *saveDir, tids ...int) error {
	var threads []savedThread
	for _, tid := range tids {
		fx := xstate.InitFXArea()
		threads = append(threads, savedThread{liveThread: liveThread{pid: 1, tid: tid}, area: fx[:]})
	}
	return d.fill([]codec.SavedTask{{PID: 1, TIDs: tids}}, threads, nil)
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// must stops a test at the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestSaveDirTaken refuses what is there, whatever it is, at the start and at the end.
func TestSaveDirTaken(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"file":          func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"dangling link": func(path string) error { return os.Symlink("nowhere", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "saved")
			d, err := newSaveDir(path)
			must(t, err, take(path))
			was, err := os.Lstat(path)
			must(t, err)
			if err := fill(d, 1); !errors.Is(err, errThere) {
				t.Errorf("in the end: %v", err)
			}
			d.discard()
			_, err = newSaveDir(path)
			if e, ok := errors.AsType[*saveError](err); !ok || e.path != path || !errors.Is(err, errThere) {
				t.Errorf("at the start: %v", err)
			}
			if is, err := os.Lstat(path); err != nil || !os.SameFile(is, was) || names(t, dir) != "saved" {
				t.Errorf("%v, and %s", err, names(t, dir))
			}
		})
	}
}

// TestSaveDirFails leaves nothing behind.
func TestSaveDirFails(t *testing.T) {
	dir := t.TempDir()
	d, err := newSaveDir(filepath.Join(dir, "saved"))
	must(t, err)
	if err := fill(d, 1, 2, 1); !errors.Is(err, os.ErrExist) || !strings.HasPrefix(err.Error(), d.path+": ") {
		t.Errorf("a file twice: %v", err)
	}
	if !strings.HasPrefix(names(t, dir), ".fpurestore-") {
		t.Errorf("on its way: %s", names(t, dir))
	}
	d.discard()
	if left := names(t, dir); left != "" {
		t.Errorf("left behind: %s", left)
	}
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for _, path := range []string{"nowhere/saved", "file/saved"} {
		path = filepath.Join(dir, path)
		_, err := newSaveDir(path)
		if e, ok := errors.AsType[*saveError](err); !ok || e.path != path {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSaveDirMode writes for nobody but its user.
func TestSaveDirMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved")
	d, err := newSaveDir(path)
	must(t, err, fill(d, 1))
	d.discard()
	if names(t, path) != "core-1.img inventory.img pstree.img" {
		t.Error(names(t, path))
	}
	for _, name := range []string{"", "core-1.img", "pstree.img"} {
		if info, err := os.Lstat(filepath.Join(path, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
}
