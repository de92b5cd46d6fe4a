package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestConvertRoot: a thread that waits in the libc has done with its masks, one that
// holds them across a system call of its own has not.
func TestConvertRoot(t *testing.T) {
	for name, want := range map[string]string{"py-1": "compatible", "blk-9": "compatible", "inlm-zmm": "downgrade-lossy", "spin-zmm": "downgrade-lossy"} {
		_, out, _ := fpuimg(t, "convert", "--dry-run", "--json", "--host=x86-64-v3", "--root="+corpus.Root(t, name), corpus.Images(t, name))
		if !strings.Contains(out, `"verdict": "`+want+`"`) || strings.Contains(out, "code-unfit") {
			t.Errorf("%s: want %s:\n%.600s", name, want, out)
		}
	}
}

// TestShowSource: without a cpuinfo.img, the memory of a glibc program tells what it was
// dumped on; a musl program's does not.
func TestShowSource(t *testing.T) {
	for name, want := range map[string]bool{"py-1": true, "lpmusl-1": false} {
		_, out, _ := fpuimg(t, "show", corpus.Images(t, name))
		if got := strings.Contains(out, "dumped on an unnamed CPU (amd 25/17/1)"); got != want {
			t.Errorf("%s: %.300s", name, out)
		}
		_, out, _ = fpuimg(t, "show", "--json", corpus.Images(t, name))
		var doc struct {
			Images []struct{ CPU *cpuid.Profile }
		}
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatal(err)
		}
		cpu := doc.Images[0].CPU
		if got := cpu != nil; got != want || got && (*cpu.Vendor != "amd" || *cpu.Family != 25 || *cpu.Model != 17 || *cpu.Stepping != 1 || !slices.Contains(cpu.Flags, "avx512f") || cpu.XSaveSize != nil) {
			t.Errorf("%s: cpu %+v", name, cpu)
		}
	}
}

// TestArchiveRoot: of a compressed archive the same is said as of the directory, and the
// same is made.
func TestArchiveRoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "py.tar.gz")
	testimg.Pack(t, path, corpus.Images(t, "py-1"))
	check := func(path string) string {
		_, out, _ := fpuimg(t, "check", "--json", "--host=x86-64-v3", "--root="+corpus.Root(t, "py-1"), path)
		return strings.NewReplacer(path, "PATH", `"kind": "archive"`, `"kind": "criu"`).Replace(out)
	}
	got, want := check(path), check(corpus.Images(t, "py-1"))
	if got != want || !strings.Contains(got, `"code-unfit"`) {
		t.Errorf("of the archive\n%.2000s\nof the directory\n%.2000s", got, want)
	}
}
