package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// writeAll writes files into a directory that is made.
func writeAll(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		write(t, dir, name, b)
	}
}

// TestDirectoriesBelow finds checkpoints one and two levels down, where no link leads.
func TestDirectoriesBelow(t *testing.T) {
	for _, below := range []string{"checkpoint", "userdata/checkpoint", "checkpoints/one", "state/final"} {
		dir := t.TempDir()
		writeAll(t, filepath.Join(dir, below), threads8(t))
		c, err := checkpoint.Open(dir)
		if err != nil || countThreads(t, c) != 8 {
			t.Errorf("%s: %v", below, err)
		}
	}
	dir, other := t.TempDir(), t.TempDir()
	writeAll(t, filepath.Join(other, "checkpoint"), threads8(t))
	if err := os.Symlink(other, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Open(dir); !errors.Is(err, checkpoint.ErrNoImages) {
		t.Errorf("through a link: %v", err)
	}
}

// TestPreDump opens an iterative dump: the pre-dump has no registers, and says so.
func TestPreDump(t *testing.T) {
	dir := t.TempDir()
	writeAll(t, filepath.Join(dir, "pre1"), map[string][]byte{"inventory.img": threads8(t)["inventory.img"], "pagemap-1.img": nil, "pages-1.img": nil})
	if _, err := checkpoint.Open(filepath.Join(dir, "pre1")); !errors.Is(err, checkpoint.ErrPreDump) {
		t.Errorf("error %v, want that it is a pre-dump", err)
	}
	writeAll(t, filepath.Join(dir, "final"), threads8(t))
	if err := os.Symlink("../pre1", filepath.Join(dir, "final", "parent")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "final")} {
		c, err := checkpoint.Open(path)
		if err != nil || countThreads(t, c) != 8 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestPackedImages opens a directory whose images are compressed one by one.
func TestPackedImages(t *testing.T) {
	for _, plain := range []string{"", "pstree.img", "inventory.img"} {
		dir := t.TempDir()
		for name, b := range threads8(t) {
			if name != plain {
				name, b = name+".gz", gz(b)
			}
			write(t, dir, name, b)
		}
		c, err := checkpoint.Open(dir)
		if err != nil || countThreads(t, c) != 8 || len(c.Problems) > 0 || c.ReadOnly == "" {
			t.Errorf("%q plain: %v", plain, err)
		}
	}
}

// TestCores opens the ELF cores of a directory.
func TestCores(t *testing.T) {
	dir := t.TempDir()
	core := testimg.Read(t, "core-kernel", "core.27620")
	writeAll(t, dir, map[string][]byte{"core.1": core, "core.web.0.2.gz": gz(core), "core.txt": []byte("text"), "notes": []byte("text")})
	all, err := found(checkpoint.OpenAll(dir, checkpoint.Options{}))
	if err != nil || len(all) != 2 || all[0].Kind != checkpoint.KindELFCore || all[1].Path != filepath.Join(dir, "core.web.0.2.gz") {
		t.Errorf("%v, %v", all, err)
	}
}

// TestSkopeoDir opens what skopeo copy writes as dir:.
func TestSkopeoDir(t *testing.T) {
	dir := t.TempDir()
	layer := gz(imagesTar(t, "checkpoint/"))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"sha256:%s"}]}`, digest(layer))
	writeAll(t, dir, map[string][]byte{"version": []byte("Directory Transport Version: 1.1\n"), "manifest.json": []byte(manifest), digest(layer): layer})
	c, err := checkpoint.Open(dir)
	if err != nil || c.Path != dir || countThreads(t, c) != 8 || len(c.Problems) > 0 {
		t.Errorf("%v", err)
	}
	write(t, dir, digest(layer), bytes.Repeat(gz(imagesTar(t, "checkpoint/")), 2))
	if c, err := checkpoint.Open(dir); err == nil && len(c.Problems) == 0 {
		t.Error("a layer of another digest is taken")
	}
}
