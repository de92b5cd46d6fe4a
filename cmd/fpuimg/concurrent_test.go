package main

import (
	"bytes"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestConcurrent checks many inputs on one goroutine and on several: what is printed is
// the same.
func TestConcurrent(t *testing.T) {
	var paths []string
	for _, name := range []string{"h-avx512", "h-threads8", "h-sse", "h-avx", "h-amx", "old-nofpregs", "p-none/p-none.tar", "h-init"} {
		paths = append(paths, testimg.Path(t, name))
	}
	paths = slices.Insert(paths, 3, filepath.Join(t.TempDir(), "missing"))
	for _, options := range []string{"--host=haswell", "--host=haswell --host=znver4", "--host=haswell --host=znver4 --json"} {
		var want string
		for _, cpus := range []int{1, 4} {
			before := runtime.GOMAXPROCS(cpus)
			var out, errs bytes.Buffer
			code := run(append(append([]string{"check"}, strings.Fields(options)...), paths...), nil, &out, &errs)
			runtime.GOMAXPROCS(before)
			got := errs.String() + out.String()
			if want == "" {
				want = got
			}
			if code != 3 || got != want { // one is missing
				t.Errorf("check %s on %d CPUs: exit code %d,\n%s\nand on one\n%s", options, cpus, code, got, want)
			}
		}
	}
}

// TestConcurrentInput names standard input twice: the first has all of it.
func TestConcurrentInput(t *testing.T) {
	core := testimg.Read(t, "h-avx512", "core-20000.img")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for range 50 {
		var out, errs bytes.Buffer
		code := run([]string{"check", "--host=haswell", "-", "-"}, iotest.OneByteReader(bytes.NewReader(core)), &out, &errs)
		if want := "fpuimg: error: -: an empty file\n"; code != 3 || errs.String() != want || !strings.HasPrefix(out.String(), "- on haswell: downgrade-lossy\n") {
			t.Fatalf("exit code %d, %q,\n%s", code, errs.String(), out.String())
		}
	}
}
