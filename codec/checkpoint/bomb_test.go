//go:build !race

package checkpoint_test

// What expands in one goroutine tells the race detector nothing, and takes ten times as long with it.

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestArchiveSparseBomb refuses sparse members that are small in the archive and not
// in memory.
func TestArchiveSparseBomb(t *testing.T) {
	cs, err := found(checkpoint.ReadAll("x.tar", bytes.NewReader(sparseTar(t, "gnu", 64<<20)), checkpoint.Options{}))
	for _, c := range cs {
		err = errors.Join(append(c.Problems, err)...)
	}
	if err == nil || !strings.Contains(err.Error(), "more than 256 MiB") {
		t.Errorf("error %v, want that it is too much", err)
	}
}

// zstdBomb returns zstd frames of some bytes and 1200 MiB of zeros.
func zstdBomb(head []byte) []byte {
	z, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return append(z.EncodeAll(head, nil), bytes.Repeat(z.EncodeAll(make([]byte, 8<<20), nil), 150)...)
}

// TestPackedBomb skips a member of 100 GB of zeros within bounds.
func TestPackedBomb(t *testing.T) {
	_, err := found(checkpoint.ReadAll("bomb", bytes.NewReader(zstdBomb(bombHeader(t))), checkpoint.Options{}))
	if err == nil || !strings.Contains(err.Error(), "bomb") {
		t.Errorf("error %v, want that it is a decompression bomb", err)
	}
}

// TestNestedBomb has a compressed file in a compressed archive expand: what it was given
// counts only as the file has it.
func TestNestedBomb(t *testing.T) {
	bomb := gz(makeTar(t, member{name: "x.tar.zst", data: zstdBomb(nil)}))
	_, err := checkpoint.ReadAll("-", bytes.NewReader(bomb), checkpoint.Options{})
	if err == nil || !strings.Contains(err.Error(), "bomb") {
		t.Errorf("error %v, want that it is a bomb", err)
	}
}

// TestPackedLargeImage opens a directory with an image that expands to more than any has.
func TestPackedLargeImage(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "core-1.img.gz", gz(make([]byte, 65<<20)))
	if _, err := checkpoint.Open(dir); err == nil {
		t.Error("an image of 65 MiB is read")
	}
}

// TestLayoutBudget reads a layout of six layers that become 64 MiB of images each: the
// bound on what is held is one for all of them.
func TestLayoutBudget(t *testing.T) {
	images := bytes.TrimRight(makeTar(t, member{name: "checkpoint/core-1.img", data: make([]byte, 32<<20)},
		member{name: "checkpoint/core-2.img", data: bytes.Repeat([]byte{1}, 32<<20)}), "\x00")
	gzip := compressors(t)["gzip"]
	images = gzip(append(images, padTo(images)...))
	l := newLayout(t)
	var layers []string
	for i := range 6 {
		end := gzip(makeTar(t, member{name: fmt.Sprint(i)}))
		layers = append(layers, descriptor("layer.v1.tar+gzip", l.put(slices.Concat(images, end))))
	}
	l.index(l.image(layers...))
	var all []*checkpoint.Checkpoint
	var err error
	got := testimg.Allocated(func() { all, err = found(checkpoint.OpenAll(l.dir, checkpoint.Options{})) })
	if limit := uint64(600 << 20); got > limit {
		t.Errorf("%d MiB allocated, want %d at most", got>>20, limit>>20)
	}
	for _, c := range all {
		err = errors.Join(append(c.Problems, err)...)
	}
	if err == nil || !strings.Contains(err.Error(), "MiB of images and their directories") {
		t.Errorf("error %v, want that it is too much", err)
	}
}
