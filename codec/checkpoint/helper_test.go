package checkpoint_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
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
