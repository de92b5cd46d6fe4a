package convert

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnlock checks that a lock ends when it is closed, though a process that was
// forked meanwhile has a copy of the descriptor.
func TestUnlock(t *testing.T) {
	dir := t.TempDir()
	r, err := openDir(dir)
	must(t, err)
	defer r.Close()
	for how, take := range map[string]func(*os.File) error{"exclusive": lock, "shared": lockShared} {
		l, err := lockDir(r, take)
		must(t, err)
		child, err := unix.Dup(int(l.Fd()))
		must(t, err)
		must(t, l.Close())
		if l, err = lockDir(r, lock); err != nil {
			t.Errorf("%s: %v", how, err)
		} else {
			l.Close()
		}
		unix.Close(child)
	}
}

// TestLockMoved has another conversion replace a directory between the moments when
// this one opens it and locks it.
func TestLockMoved(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "ckpt")
	must(t, os.Mkdir(dir, 0o755))
	moved := false
	l, err := newLock(dir, func(f *os.File) error {
		if !moved {
			moved = true
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Mkdir(dir, 0o755))
		}
		return lock(f)
	})
	must(t, err)
	defer l.Close()
	now, err := os.Stat(dir)
	must(t, err)
	if !l.file.is(now) {
		t.Error("the lock is on the directory that was moved away")
	}
	if _, err := NewLock(dir); err == nil {
		t.Error("it can be locked twice")
	}
}

// TestStageMoved is the same for a stage: the one that was removed is not taken.
func TestStageMoved(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	parent, err := openDir(filepath.Dir(out))
	must(t, err)
	defer parent.Close()
	s := &stage{out: out, parent: parent}
	must(t, parent.Mkdir(s.name(), 0o700))
	err = s.enter(func(f *os.File) error {
		must(t, parent.Remove(s.name()))
		must(t, parent.Mkdir(s.name(), 0o700))
		return lock(f)
	})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stage that was removed before it was locked: %v, want ErrNotExist", err)
	}
	if err := s.enter(lock); err != nil {
		t.Error(err)
	}
}

// TestOpenSwapped replaces a directory between a look at it and its opening.
func TestOpenSwapped(t *testing.T) {
	for what, swap := range map[string]func(path string) error{
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"link":      func(path string) error { return os.Symlink("other", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"nothing":   func(path string) error { return nil },
	} {
		base := t.TempDir()
		r, err := openDir(base)
		must(t, err)
		must(t, r.Mkdir("other", 0o700))
		must(t, r.Mkdir("dir", 0o700))
		was, err := r.Lstat("dir")
		must(t, err)
		must(t, r.Rename("dir", "moved"))
		must(t, swap(filepath.Join(base, "dir")))
		if sub, err := openSub(r, "dir", was); err == nil {
			t.Errorf("%s: %s was opened", what, sub.Name())
		}
		r.Close()
	}
}
