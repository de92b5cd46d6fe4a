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

// TestNestedBomb has a compressed file in a compressed archive expand: what it was given
// counts only as the file has it.
func TestNestedBomb(t *testing.T) {
	block := append([]byte("\x28\xb5\x2f\xfd\x00\x58"), bytes.Repeat([]byte{2, 0, 0x10, 0}, 8*1200)...) // 1200 MiB of zeros
	bomb := gz(makeTar(t, member{name: "x.tar.zst", data: append(block, 1, 0, 0)}))
	_, err := checkpoint.ReadAll("-", bytes.NewReader(bomb), checkpoint.Options{})
	if err == nil || !strings.Contains(err.Error(), "bomb") {
		t.Errorf("error %v, want that it is a bomb", err)
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
