package checkpoint_test

import (
	"fmt"
	"os"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
)

// TestCold reads a checkpoint of many threads of which the kernel has every other image in
// memory: the threads are the same.
func TestCold(t *testing.T) {
	dir, images := manyThreads(t)
	drop := func() {
		for i, path := range images {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if f.Sync(); i%2 == 0 {
				unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
			}
			f.Close()
		}
	}
	open := func(files codec.Files) *checkpoint.Checkpoint {
		c, err := checkpoint.New(dir, files)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var want []codec.Thread
	for th, err := range open(one{codec.Dir(dir)}).Threads() {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, th)
	}
	c := open(codec.Dir(dir))
	for name, walk := range map[string]func(func(codec.Thread, error) bool){"Threads": c.Threads(), "Scan": c.Scan()} {
		drop()
		i := 0
		for th, err := range walk {
			if err != nil || i == len(want) || !reflect.DeepEqual(th, want[i]) {
				t.Fatalf("%s: thread %d: %v, %v; want %v", name, i, fmt.Sprint(th), err, want[min(i, len(want)-1)])
			}
			i++
		}
		if i != len(want) {
			t.Errorf("%s: %d threads, want %d", name, i, len(want))
		}
	}
}
