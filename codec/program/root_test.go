package program

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOpenIn(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	top := filepath.Join(dir, "root")
	for _, d := range []string{"usr/lib", "etc", "dir"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{outside: "outside", filepath.Join(top, "usr/lib/libx.so.1"): "inside", filepath.Join(top, "outside"): "root's own"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"lib":          "usr/lib",
		"etc/absolute": "/usr/lib/libx.so.1",
		"etc/chain":    "/etc/absolute",
		"etc/up":       "../../../../outside",
		"etc/host":     outside,
		"etc/loop":     "/etc/loop2",
		"etc/loop2":    "/etc/loop",
		"etc/through":  "/lib/../lib/libx.so.1",
	} {
		if err := os.Symlink(target, filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	huge, err := os.Create(filepath.Join(top, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	if err := huge.Truncate(maxObject + 1); err != nil {
		t.Fatal(err)
	}
	huge.Close()
	root, err := os.OpenRoot(top)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, tt := range []struct {
		name, content string
		err           error
	}{
		{"/usr/lib/libx.so.1", "inside", nil},
		{"usr/lib/libx.so.1", "inside", nil},
		{"/lib/libx.so.1", "inside", nil},
		{"/etc/absolute", "inside", nil},
		{"/etc/chain", "inside", nil},
		{"/etc/through", "inside", nil},
		{"/etc/up", "root's own", nil}, // as in a process whose root it is
		{"/../../outside", "root's own", nil},
		{"/etc/host", "", fs.ErrNotExist},
		{"/etc/loop", "", syscall.ELOOP},
		{"/none", "", fs.ErrNotExist},
		{"/dir", "", errIrregular},
		{"/", "", errIrregular},
		{"", "", errIrregular},
		{"/huge", "", errTooLarge},
	} {
		f, size, err := openIn(root, tt.name)
		if !errors.Is(err, tt.err) {
			t.Errorf("%q: %v, want %v", tt.name, err, tt.err)
		}
		if err != nil {
			continue
		}
		b := make([]byte, size)
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != tt.content {
			t.Errorf("%q: %q, %v; want %q", tt.name, b, err, tt.content)
		}
		f.Close()
	}
}
