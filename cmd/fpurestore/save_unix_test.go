//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSaveDirExchanged has whoever owns the place put something else under the hidden
// name: no file of another's is written, and nothing is waited for.
func TestSaveDirExchanged(t *testing.T) {
	place := func(dir string) string { // of their making: a directory of traps
		traps := filepath.Join(dir, "traps")
		must(t, os.Mkdir(traps, 0o700), os.WriteFile(filepath.Join(dir, "victim"), []byte("precious"), 0o600),
			os.Symlink("../victim", filepath.Join(traps, "core-1.img")), syscall.Mkfifo(filepath.Join(traps, "core-2.img"), 0o600))
		return traps
	}
	for name, exchange := range map[string]func(dir, stage string) error{
		"directory": func(dir, stage string) error { return os.Rename(place(dir), stage) },
		"link":      func(dir, stage string) error { place(dir); return os.Symlink("traps", stage) },
		"link out":  func(dir, stage string) error { return os.Symlink(t.TempDir(), stage) },
		"FIFO":      func(dir, stage string) error { return syscall.Mkfifo(stage, 0o600) },
		"nothing":   func(dir, stage string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := newSaveDir(filepath.Join(dir, "saved"))
			must(t, err)
			stage := filepath.Join(dir, d.stage)
			must(t, os.Rename(stage, filepath.Join(dir, "moved")), exchange(dir, stage))
			if err := fill(d, 1, 2); err == nil {
				t.Error("no error")
			} else if _, ok := errors.AsType[*saveError](err); !ok {
				t.Errorf("a %T: %v", err, err)
			}
			d.discard()
			if b, err := os.ReadFile(filepath.Join(dir, "victim")); err == nil && string(b) != "precious" {
				t.Errorf("another's file is %q", b)
			}
			if left := names(t, filepath.Join(dir, "moved")); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// TestOpenOwn takes nothing for its own directory that is not.
func TestOpenOwn(t *testing.T) {
	dir := t.TempDir()
	parent, err := os.OpenRoot(dir)
	must(t, err)
	defer parent.Close()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(in("own"), 0o700), os.Mkdir(in("open"), 0o700), os.Chmod(in("open"), 0o777), os.Mkdir(in("group"), 0o700),
		os.Chmod(in("group"), 0o770), os.Symlink("/tmp", in("out")), os.Symlink("open", in("link")),
		syscall.Mkfifo(in("fifo"), 0o600), os.WriteFile(in("file"), nil, 0o600))
	bad := []string{"open", "group", "out", "link", "fifo", "file", "nothing"}
	if os.Getuid() == 0 {
		must(t, os.Mkdir(in("another's"), 0o700), os.Chown(in("another's"), 1, 1))
		bad = append(bad, "another's")
	}
	for _, name := range bad {
		if root, err := openOwn(parent, name); err == nil {
			root.Close()
			t.Errorf("%s is taken", name)
		}
	}
	root, err := openOwn(parent, "own")
	must(t, err)
	root.Close()
	// The place itself is nothing to wait for either.
	if _, err := newSaveDir(filepath.Join(in("fifo"), "saved")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a FIFO: %v", err)
	}
}
