package checkpoint_test

import (
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
)

// one hides that its files are a directory's, which are read ahead.
type one struct{ codec.Files }

// TestConcurrent reads a checkpoint of many threads ahead, and one image after the other:
// threads and errors are the same. Some images are missing, damaged, or too large to be
// read ahead.
func TestConcurrent(t *testing.T) {
	dir, images := manyThreads(t)
	for i, path := range images {
		var err error
		switch i % 50 {
		case 20:
			err = os.Remove(path)
		case 21:
			err = os.Truncate(path, 100)
		case 22:
			err = os.Truncate(path, 1<<20) // zeros at the end, which CRIU ignores
		case 23:
			err = os.Remove(path)
			if err == nil {
				err = os.Symlink("pstree.img", path)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	type read struct {
		thread codec.Thread
		err    error
	}
	walk := func(files codec.Files) (all []read) {
		c, err := checkpoint.New(dir, files)
		if err != nil {
			t.Fatal(err)
		}
		for th, err := range c.Threads() {
			all = append(all, read{th, err})
		}
		return all
	}
	want := walk(one{codec.Dir(dir)})
	for range 3 {
		got := walk(codec.Dir(dir))
		if len(got) != len(want) || len(want) < 200 {
			t.Fatalf("%d threads, want %d", len(got), len(want))
		}
		for i := range want {
			if fmt.Sprint(got[i].err) != fmt.Sprint(want[i].err) || !reflect.DeepEqual(got[i].thread, want[i].thread) {
				t.Fatalf("thread %d: %+v, want %+v", i, got[i], want[i])
			}
		}
	}
	c, err := checkpoint.New(dir, codec.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for th, err := range c.Scan() {
		if fmt.Sprint(err) != fmt.Sprint(want[i].err) || !reflect.DeepEqual(th, want[i].thread) {
			t.Fatalf("scanned thread %d: %+v, %v, want %+v", i, th, err, want[i])
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d threads scanned, want %d", i, len(want))
	}
	taken := 0
	for range c.Threads() { // what is read ahead of the last one is dropped
		if taken++; taken == 40 {
			break
		}
	}
}
