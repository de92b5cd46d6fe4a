//go:build !race

package rawtar

// What expands in one goroutine tells the race detector nothing, and takes ten times as long with it.

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestBudget decompresses files that share a budget: none of them is a bomb, and
// together they are one.
func TestBudget(t *testing.T) {
	z, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	small, b := bytes.Repeat(z.EncodeAll(make([]byte, 8<<20), nil), 50), new(Budget) // 400 MiB of zeros
	var total int64
	var err error
	for i := 0; i < 4 && err == nil; i++ {
		d, derr := NewDecoder(b.Count(bytes.NewReader(small)), Zstd, b)
		if derr != nil {
			t.Fatal(derr)
		}
		var n int64
		n, err = io.Copy(io.Discard, d)
		total += n
		d.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "bomb") {
		t.Errorf("error %v, want that it is a bomb", err)
	}
	if total < bombSize || total > bombSize+64<<20 {
		t.Errorf("%d bytes before it, want %d", total, bombSize)
	}
}
