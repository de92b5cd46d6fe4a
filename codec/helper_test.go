package codec_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
)

// entry builds an image file of one entry.
func entry(magic uint32, payload []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x54564319)
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// zombie is the core entry of one: mtype 1, and tc with task_state 2 and what else
// must be there.
var zombie = []byte("\x08\x01\x1a\x0c\x08\x02\x10\x00\x18\x00\x20\x00\x28\x00\x32\x00")

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
func threads(c *codec.Checkpoint) string {
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
