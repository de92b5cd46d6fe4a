package codec_test

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fpuimg/fpuimg/codec"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// times yields a number again and again.
func times(n, count int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for range count {
			if !yield(n) {
				return
			}
		}
	}
}

// upTo yields the numbers from first on.
func upTo(first, count int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := range count {
			if !yield(first + n) {
				return
			}
		}
	}
}

// treeEntry is the payload of one process in pstree.img; its threads are packed, or a
// field each as CRIU writes them.
func treeEntry(pid int, threads iter.Seq[int], packed bool) []byte {
	b := protowire.AppendVarint([]byte{0x08}, uint64(pid))
	var body []byte
	for n := range threads {
		if !packed {
			body = append(body, 0x28)
		}
		body = protowire.AppendVarint(body, uint64(n))
	}
	if packed {
		body = protowire.AppendBytes([]byte{0x2a}, body)
	}
	return append(append(b, body...), 0x10, 0, 0x18, 1, 0x20, 1) // ppid, pgid, sid
}

func tree(entries ...[]byte) []byte {
	b := entry(0x50273030, entries[0])
	for _, e := range entries[1:] {
		b = append(b, entry(0, e)[8:]...)
	}
	return b
}

// TestTreeNumbers reads pstree.img of numbers that no threads have, or two.
func TestTreeNumbers(t *testing.T) {
	two := slices.Values([]int{7, 8})
	tests := []struct {
		name    string
		entries [][]byte
		want    string // the error; of "x: offset "
	}{
		{"two threads", [][]byte{treeEntry(7, two, false), treeEntry(9, times(9, 1), false)}, ""},
		{"packed", [][]byte{treeEntry(7, two, true), treeEntry(9, times(9, 1), true)}, ""},
		{"rubbish of a dead task", [][]byte{treeEntry(7, two, false), treeEntry(9, times(1434627248, 1), false)}, ""},
		{"no threads", [][]byte{treeEntry(7, times(0, 0), false)}, ""},
		{"a thread a second time", [][]byte{treeEntry(7, slices.Values([]int{7, 8, 9, 8}), false)}, "0x14: threads: a second thread with the number 8"},
		{"packed a second time", [][]byte{treeEntry(7, slices.Values([]int{7, 8, 9, 8}), true)}, "0x13: threads: a second thread with the number 8"},
		{"the leader a second time", [][]byte{treeEntry(7, slices.Values([]int{7, 7}), false)}, "0xc: pid: a second thread with the number 7"},
		{"a thread of two processes", [][]byte{treeEntry(7, two, false), treeEntry(9, slices.Values([]int{9, 8}), false)}, "0x20: threads: a second thread with the number 8"},
		{"a process a second time", [][]byte{treeEntry(7, two, false), treeEntry(7, times(7, 1), false)}, "0x1c: pid: a second thread with the number 7"},
		{"a process with a thread's number", [][]byte{treeEntry(7, two, false), treeEntry(8, times(8, 1), false)}, "0x1c: pid: a second thread with the number 8"},
		{"number 0", [][]byte{treeEntry(0, times(0, 0), false)}, "0xc: pid: no thread has the number 0"},
		{"beyond the limit", [][]byte{treeEntry(7, slices.Values([]int{7, 4 << 20}), false)}, "0x10: threads: no thread has the number 4194304"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := codec.ParsePstree("x", tree(tt.entries...))
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || err.Error() != "x: offset "+tt.want):
				t.Errorf("error %v, want x: offset %s", err, tt.want)
			}
		})
	}
}

// TestTreeBound reads a pstree.img of very many threads in memory that grows with the
// file, and not at all where they are one.
func TestTreeBound(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tree  []byte
		limit int
	}{
		{"zeros", tree(treeEntry(1, times(0, 2<<20), true)), 1 << 20},
		{"one number, packed", tree(treeEntry(1, times(1, 2<<20), true)), 1 << 20},
		{"one number", tree(treeEntry(1, times(1, 2<<20), false)), 1 << 20},
		{"many", tree(treeEntry(1, upTo(1, 250_000), true)), 32 << 20},
		{"many processes", tree(slices.Collect(func(yield func([]byte) bool) {
			for n := range 25_000 {
				if !yield(treeEntry(1+n, times(1+n, 1), false)) {
					return
				}
			}
		})...), 16 << 20},
	} {
		got := testimg.Allocated(func() { codec.ParsePstree("x", tt.tree) })
		if got > uint64(tt.limit) {
			t.Errorf("%s: %d bytes allocated for %d, want %d at most", tt.name, got, len(tt.tree), tt.limit)
		}
	}
}

// TestAppendFault counts the faults after the tenth.
func TestAppendFault(t *testing.T) {
	var list []error
	for i := range 15 {
		list = codec.AppendFault(list, fmt.Errorf("%d", i))
	}
	if got := fmt.Sprint(list); got != "[0 1 2 3 4 5 6 7 8 9 and 5 more]" {
		t.Error(got)
	}
	before := fmt.Sprint(list)
	if got := fmt.Sprint(codec.AppendFault(list, list...)); !strings.HasSuffix(got, "9 and 20 more]") {
		t.Error(got)
	}
	if got := fmt.Sprint(list); got != before {
		t.Errorf("the list that was appended to became %s", got)
	}
	if got := fmt.Sprint(codec.AppendFault(nil, list[10])); got != "[and 5 more]" {
		t.Error(got)
	}
}
