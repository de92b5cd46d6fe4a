package codec_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
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

// found gives the checkpoints that were found.
func found(all []checkpoint.Found, err error) ([]*checkpoint.Checkpoint, error) {
	var out []*checkpoint.Checkpoint
	for _, f := range all {
		out = append(out, f.Checkpoint)
	}
	return out, err
}
