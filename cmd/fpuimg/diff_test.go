package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestDiffOrder compares checkpoints whose threads come in different orders: those of
// one number are compared, and the one that is left with the one that is left.
func TestDiffOrder(t *testing.T) {
	from := testimg.Path(t, "h-threads8")
	ckpt, err := checkpoint.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var tids []int
	var leader, last, other int
	for th, err := range ckpt.Threads() {
		if err != nil {
			t.Fatal(err)
		}
		leader, other, last = th.PID, last, th.TID
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("core-%d.img", th.TID)), th.Image.Raw(), 0o600); err != nil {
			t.Fatal(err)
		}
		tids = append(tids, th.TID)
	}
	const renamed = 30000
	core := testimg.Read(t, "h-threads8", fmt.Sprintf("core-%d.img", other))
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("core-%d.img", renamed)), core, 0o600); err != nil {
		t.Fatal(err)
	}
	tids[len(tids)-1] = renamed
	slices.Reverse(tids[1:])
	tree := codec.MarshalPstree([]codec.SavedTask{{PID: leader, TIDs: tids}})
	if err := os.WriteFile(filepath.Join(dir, "pstree.img"), tree, 0o600); err != nil {
		t.Fatal(err)
	}
	diff := func(a, b string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run([]string{"diff", a, b}, nil, &out, &errs); code != 1 {
			t.Errorf("exit code %d: %s", code, errs.String())
		}
		return out.String()
	}
	image := func(tid int) string { return filepath.Join(from, fmt.Sprintf("core-%d.img", tid)) }
	want := strings.Replace(diff(image(last), image(other)), fmt.Sprintf("and %d\n", other), fmt.Sprintf("and %d\n", renamed), 1)
	if got := diff(from, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPairThreads(t *testing.T) {
	threads := func(tids []int) side {
		return side{"side", func(yield func(codec.Thread, error) bool) {
			for _, tid := range tids {
				var err error
				if tid == 0 {
					err = errors.New("damaged")
				}
				if !yield(codec.Thread{TID: tid}, err) {
					return
				}
			}
		}}
	}
	for _, tt := range []struct {
		a, b []int
		want string
	}{
		{[]int{1, 2, 3}, []int{1, 3, 2}, "1:1 2:2 3:3"},
		{[]int{1, 2, 3, 4}, []int{4, 3, 2, 1}, "1:1 2:2 3:3 4:4"},
		{[]int{1, 2}, []int{1, 5}, "1:1 2:5"},
		{[]int{1, 2}, []int{1}, "1:1 2:-"},
		{[]int{1}, []int{2, 1}, "1:1 -:2"},
		{[]int{8, 1, 9}, []int{1, 5, 6, 7}, "8:5 1:1 9:6 -:7"},
		{[]int{7, 7, 7}, []int{7, 7, 7}, "7:7 7:7 7:7"},
		{nil, []int{1}, "-:1"},
		{[]int{1, 2}, []int{1, 0}, "1:1 damaged"},
		{[]int{0}, []int{1}, "damaged"},
	} {
		var got []string
		for p, err := range pairThreads(threads(tt.a), threads(tt.b)) {
			word := func(t *codec.Thread) string {
				if t == nil {
					return "-"
				}
				return fmt.Sprint(t.TID)
			}
			if err != nil {
				got = append(got, err.Error())
			} else {
				got = append(got, word(p.a)+":"+word(p.b))
			}
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%v and %v: %s, want %s", tt.a, tt.b, got, tt.want)
		}
	}
}
