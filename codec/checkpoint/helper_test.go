package checkpoint_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// found gives the checkpoints that were found, and joins what is wrong with others.
func found(all []checkpoint.Found, err error) ([]*checkpoint.Checkpoint, error) {
	var out []*checkpoint.Checkpoint
	for _, f := range all {
		if f.Err != nil {
			err = errors.Join(err, f.Err)
		} else {
			out = append(out, f.Checkpoint)
		}
	}
	return out, err
}

// manyThreads copies a checkpoint of 200 threads, and gives the paths of their images.
func manyThreads(t *testing.T) (dir string, images []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ckpt")
	if err := os.CopyFS(dir, os.DirFS(testimg.Path(t, "h-threads200"))); err != nil {
		t.Fatal(err)
	}
	images, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
	if err != nil || len(images) < 200 {
		t.Fatal(images, err)
	}
	return dir, images
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// remove and cut damage a file of a directory.
func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func cut(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil {
			err = os.Truncate(filepath.Join(dir, name), info.Size()-3)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// threads lists a checkpoint's threads as PID/TID, "!" for one that cannot be read.
func threads(c *checkpoint.Checkpoint) string {
	var out []string
	for th, err := range c.Threads() {
		if err != nil {
			out = append(out, "!")
			continue
		}
		out = append(out, fmt.Sprintf("%d/%d", th.PID, th.TID))
	}
	return strings.Join(out, " ")
}
