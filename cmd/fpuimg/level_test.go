package main

import (
	"archive/tar"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fpuimg/fpuimg/internal/test/corpus"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// leveling is what tests read of a [levelImage].
type leveling struct {
	Output            *string
	Changed, Verified bool
	Refusals          []refusalDoc
	Tasks             []levelTask
	Threads           []json.RawMessage
}

// levelled runs level with --json, and returns its one image.
func levelled(t *testing.T, want int, args ...string) leveling {
	t.Helper()
	code, out, errs := fpuimg(t, append([]string{"level", "--json"}, args...)...)
	var doc struct {
		Schema string
		Images []leveling
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.Schema != "fpuimg.level/1" || len(doc.Images) != 1 || code != want {
		t.Fatalf("exit %d, %v\n%.500s\n%.500s", code, err, out, errs)
	}
	return doc.Images[0]
}

// TestLevel levels a python into a new directory, in place, and in an archive; each is the
// same, and has nothing left to be levelled.
func TestLevel(t *testing.T) {
	images, root := corpus.Images(t, "py-1"), "--root="+corpus.Root(t, "py-1")
	host := "--host=" + filepath.Join(corpus.Dir(t), "profiles", "Haswell", "2.36.diag.txt")
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if img := levelled(t, 0, "--dry-run", host, root, images); !img.Changed || img.Output != nil || img.Verified {
		t.Errorf("a dry run: %+v", img)
	}
	img := levelled(t, 0, "-o", out, host, root, images)
	if !img.Changed || !img.Verified || img.Output == nil || *img.Output != out || len(img.Refusals) != 0 || len(img.Tasks) != 1 || len(img.Threads) != 1 {
		t.Errorf("%+v", img)
	}
	for _, w := range img.Tasks[0].Words {
		if pointer := w.What == "irelative" || w.What == "got" || w.What == "copy"; pointer != (w.SymbolFrom != nil && w.SymbolTo != nil) && w.What != "trampoline" {
			t.Errorf("a word %s: %+v", w.What, w)
		}
		if w.Size < 4 || w.From == w.To || !strings.HasPrefix(w.Address, "0x") {
			t.Errorf("a word %+v", w)
		}
	}
	if img := levelled(t, 0, host, root, out); img.Changed || img.Output != nil || len(img.Tasks[0].Words) != 0 {
		t.Errorf("a second run: %+v", img)
	}
	if code, _, errs := fpuimg(t, "level", host, root, out); code != 0 || !strings.Contains(errs, "nothing to do") {
		t.Errorf("a second run: exit %d, %s", code, errs)
	}
	pages := func(dir string) string {
		b, err := os.ReadFile(filepath.Join(dir, "pages-1.img"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	inPlace := filepath.Join(dir, "in-place")
	if err := os.CopyFS(inPlace, os.DirFS(images)); err != nil {
		t.Fatal(err)
	}
	levelled(t, 0, "--in-place", host, root, inPlace)
	if pages(inPlace) != pages(out) {
		t.Error("in place it is another")
	}
	archive := filepath.Join(dir, "py.tar.zst")
	testimg.Pack(t, archive, images)
	made := levelled(t, 0, host, root, archive)
	if !made.Verified || made.Output == nil {
		t.Fatalf("%+v", made)
	}
	f, err := os.Open(*made.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "pages-1.img" {
			b := make([]byte, h.Size)
			for n := 0; n < len(b); {
				m, err := tr.Read(b[n:])
				if n += m; m == 0 && err != nil {
					t.Fatal(err)
				}
			}
			if string(b) != pages(out) {
				t.Error("in an archive it is another")
			}
			break
		}
	}
}

// TestLevelRefused: what is refused is named, exits with 1, and nothing is written.
func TestLevelRefused(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string][]string{"sb-3": {"thread-in-code", "state-live"}, "gp-lp6": {"pages-elsewhere"}, "spin-ymm": {"compiled-isa"}} {
		args := []string{"-o", filepath.Join(dir, "out"), "--host=x86-64-v3", "--root=" + corpus.Root(t, name), corpus.Images(t, name)}
		img := levelled(t, 1, args...)
		for _, refusal := range want {
			i := slices.IndexFunc(img.Refusals, func(r refusalDoc) bool { return string(r.Name) == refusal })
			if i < 0 || img.Refusals[i].PID == 0 || img.Changed || img.Output != nil {
				t.Errorf("%s: %s is not among %+v", name, refusal, img.Refusals)
			}
		}
		if _, _, errs := fpuimg(t, append([]string{"level"}, args...)...); !strings.Contains(errs, want[0]+": ") {
			t.Errorf("%s: %s", name, errs)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestCheckAdvisesLevel: check names the command, unless it knows that it would be refused.
func TestCheckAdvisesLevel(t *testing.T) {
	for name, want := range map[string]bool{"py-1": true, "sb-3": false, "spin-ymm": false} {
		_, out, _ := fpuimg(t, "check", "--host=x86-64-v3", "--root="+corpus.Root(t, name), corpus.Images(t, name))
		if got := strings.Contains(out, "fpuimg level --host=x86-64-v3 --root="); got != want {
			t.Errorf("%s: names the command: %v\n%s", name, got, out)
		}
	}
}
