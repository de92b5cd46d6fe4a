package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// limited runs fpuimg under limits of the shell's ulimit, and returns what it says on
// standard error and its exit code.
func limited(t *testing.T, ulimit string, args ...string) (stderr string, code int) {
	t.Helper()
	// What the tests were started with is not the program's to count.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", append([]string{"-c", "ulimit " + ulimit + ` && exec fpuimg "$@"`, "sh"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return errs.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return errs.String(), 0
}

// contents describes what is in a directory.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			fmt.Fprintln(&b, path)
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %x\n", path, sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// copyOf copies a real checkpoint into a directory of its own.
func copyOf(t *testing.T, parent string) string {
	t.Helper()
	dir := filepath.Join(parent, "ckpt")
	if err := os.CopyFS(dir, os.DirFS(testimg.Path(t, "h-avx"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestReadLimits reads many checkpoints with few descriptors and little memory.
func TestReadLimits(t *testing.T) {
	paths, err := filepath.Glob(testimg.Path(t, "h-*"))
	if err != nil || len(paths) == 0 {
		t.Fatal(err)
	}
	for _, ulimit := range []string{"-n 8", "-n 64", "-v 2097152", "-f 0"} {
		errs, code := limited(t, ulimit, append([]string{"check", "--host=x86-64-v4"}, paths...)...)
		if code != 3 || strings.Contains(errs, "panic") || strings.Contains(errs, "too many") { // h-amx is damaged
			t.Errorf("ulimit %s: exit code %d: %s", ulimit, code, errs)
		}
	}
}

// TestDamagedReads reads an archive of damaged images, and reads it no more often for
// the errors that it has.
func TestDamagedReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.tar")
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for i := range 300 {
		damaged := bytes.Repeat([]byte{'x'}, 1024)
		header := tar.Header{Name: fmt.Sprintf("checkpoint/core-%d.img", i+1), Mode: 0o600, Size: int64(len(damaged))}
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(damaged); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"show"}, {"check", "--host=x86-64-v4"}, {"convert", "--to=fxsave", "--dry-run"}} {
		before := bytesRead(t)
		if code := run(append(args, path), nil, io.Discard, io.Discard); code != 3 {
			t.Errorf("%v: exit code %d", args, code)
		}
		if n := bytesRead(t) - before; n > 5*archive.Len() {
			t.Errorf("%v: read %d bytes of an archive of %d", args, n, archive.Len())
		}
	}
}

// bytesRead is how much this process has read so far (proc(5), /proc/pid/io).
func bytesRead(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		testcmd.Lack(t, "no count of what is read: "+err.Error())
	}
	if _, err := fmt.Sscanf(string(b), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWriteLimits converts where the result cannot be written: a clear error, the
// checkpoint as it was, and nothing beside it.
func TestWriteLimits(t *testing.T) {
	// fails converts in both ways, and looks at what is left in parent.
	fails := func(t *testing.T, parent, ulimit, want string) {
		t.Helper()
		dir := filepath.Join(parent, "ckpt")
		before := contents(t, dir)
		for _, args := range [][]string{{}, {"--in-place"}} {
			args = append([]string{"convert", "--to=fxsave", "--force", dir}, args...)
			errs, code := limited(t, ulimit, args...)
			if code != 3 || !strings.Contains(errs, "fpuimg: error: ") || !strings.Contains(errs, want) {
				t.Errorf("%v: exit code %d: %s", args, code, errs)
			}
			if contents(t, dir) != before {
				t.Errorf("%v: the checkpoint is another", args)
			}
			if entries, _ := os.ReadDir(parent); len(entries) != 1 {
				t.Errorf("%v: left in the directory: %v", args, entries)
			}
		}
	}
	t.Run("file size", func(t *testing.T) {
		parent := t.TempDir()
		copyOf(t, parent)
		fails(t, parent, "-f 0", "file too large")
	})
	t.Run("descriptors", func(t *testing.T) {
		parent := t.TempDir()
		dir := copyOf(t, parent)
		if err := os.MkdirAll(filepath.Join(dir, "a", "b", "c"), 0o700); err != nil {
			t.Fatal(err)
		}
		archive := filepath.Join(parent, "ckpt.tar")
		if err := os.WriteFile(archive, testimg.Read(t, "p-none", "p-none.tar"), 0o600); err != nil {
			t.Fatal(err)
		}
		cores, _ := filepath.Glob(filepath.Join(dir, "core-*.img"))
		before := contents(t, parent)
		failed := 0
		for _, args := range [][]string{{dir}, {cores[0]}, {archive}, {"--in-place", dir}} {
			// The runtime takes some, and dies where it cannot; the rest is the program's.
			for n := 4; n < 20; n++ {
				errs, code := limited(t, fmt.Sprintf("-n %d", n), append([]string{"convert", "--to=fxsave", "--force"}, args...)...)
				if strings.Contains(errs, "panic: ") {
					t.Errorf("%d descriptors, %v: exit code %d: %s", n, args, code, errs)
				}
				if code == 0 {
					break
				}
				failed++
				if after := contents(t, parent); after != before {
					t.Errorf("%d descriptors, %v: exit code %d, and the directory holds %s, want %s", n, args, code, after, before)
				}
			}
			for _, out := range []string{dir + ".fxsave", strings.TrimSuffix(cores[0], ".img") + ".fxsave.img", filepath.Join(parent, "ckpt.fxsave.tar")} {
				os.RemoveAll(out)
			}
		}
		if failed < 8 {
			t.Errorf("only %d conversions failed", failed)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		parent := t.TempDir()
		copyOf(t, parent)
		if err := unix.Mount(parent, parent, "", unix.MS_BIND, ""); err != nil {
			testcmd.Lack(t, "no bind mount to be had: "+err.Error())
		}
		defer unix.Unmount(parent, unix.MNT_DETACH)
		if err := unix.Mount("", parent, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		fails(t, parent, "-c 0", "read-only file system")
	})
	t.Run("full", func(t *testing.T) {
		parent := t.TempDir()
		if err := unix.Mount("tmpfs", parent, "tmpfs", 0, "size=128k"); err != nil {
			testcmd.Lack(t, "no tmpfs to be had: "+err.Error())
		}
		defer unix.Unmount(parent, unix.MNT_DETACH)
		dir := copyOf(t, parent)
		filler := make([]byte, 4096)
		f, err := os.Create(filepath.Join(dir, "pages-99.img"))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = f.Write(filler)
		}
		f.Close()
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		fails(t, parent, "-c 0", "no space left on device")
	})
	t.Run("permission", func(t *testing.T) {
		parent := t.TempDir()
		copyOf(t, parent)
		if os.Getuid() == 0 {
			// Root may write anywhere, except what is immutable.
			if out, err := exec.Command("chattr", "+i", filepath.Join(parent, "ckpt"), parent).CombinedOutput(); err != nil {
				testcmd.Lack(t, "no immutable files to be had: "+string(out))
			}
			defer exec.Command("chattr", "-i", filepath.Join(parent, "ckpt"), parent).Run()
			fails(t, parent, "-c 0", "not permitted")
			return
		}
		for _, dir := range []string{filepath.Join(parent, "ckpt"), parent} {
			if err := os.Chmod(dir, 0o500); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(dir, 0o700)
		}
		fails(t, parent, "-c 0", "permission denied")
	})
}
