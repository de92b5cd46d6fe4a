// Package corpus gives tests the checkpoints with pages, ELF files and what their
// processes said of themselves that lie in shared/memory beside the project. A test that
// asks for them is skipped where that folder is absent: ELF files of others are not
// committed.
package corpus

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// dir finds shared/memory in a directory above the package under test.
var dir = sync.OnceValue(func() string {
	at, err := os.Getwd()
	for err == nil {
		found := filepath.Join(at, "shared", "memory")
		if _, err := os.Stat(filepath.Join(found, "outcomes.tsv")); err == nil {
			return found
		}
		up := filepath.Dir(at)
		if up == at {
			break
		}
		at = up
	}
	return ""
})

// Dir is the folder.
func Dir(tb testing.TB) string {
	tb.Helper()
	if dir() == "" {
		tb.Skip("no shared/memory beside the project")
	}
	return dir()
}

// Names lists the entries that have a truth.
func Names(tb testing.TB) []string {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(Dir(tb), "*", "truth.json*"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no entry in %s: %v", Dir(tb), err)
	}
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	slices.Sort(names)
	return names
}

// Read reads a file of the folder, whole; one that is compressed is unpacked.
func Read(tb testing.TB, elem ...string) []byte {
	tb.Helper()
	path := filepath.Join(append([]string{Dir(tb)}, elem...)...)
	for _, suffix := range []string{"", ".gz", ".xz"} {
		b, err := os.ReadFile(path + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			switch suffix {
			case ".gz":
				var z io.Reader
				if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
					b, err = io.ReadAll(z)
				}
			case ".xz":
				var z io.Reader
				if z, err = xz.NewReader(bytes.NewReader(b), 0); err == nil {
					b, err = io.ReadAll(z)
				}
			}
		}
		if err != nil {
			tb.Fatalf("%s: %v", path+suffix, err)
		}
		return b
	}
	tb.Fatalf("%s: no such file", path)
	return nil
}

// Images is the images directory of an entry, unpacked if need be. Do not write to it.
func Images(tb testing.TB, name string) string {
	tb.Helper()
	dir := filepath.Join(Dir(tb), name, "img")
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	out := unpacked(tb, name+".img", func(out string) error {
		return untar(filepath.Join(Dir(tb), name, "images.tar.zst"), out)
	})
	for _, in := range []string{"img", "."} { // beside parents, if there are any
		if _, err := os.Stat(filepath.Join(out, in, "inventory.img")); err == nil {
			return filepath.Join(out, in)
		}
	}
	tb.Fatalf("%s: no inventory.img in images.tar.zst", name)
	return ""
}

// Root is a directory with the ELF files that the entry's processes mapped, by path,
// as far as the folder has them. Do not write to it.
func Root(tb testing.TB, name string) string {
	tb.Helper()
	return unpacked(tb, name+".root", func(out string) error {
		if err := untar(filepath.Join(Dir(tb), name, "rootfs.tar.zst"), out); err != nil {
			return err
		}
		r := csv.NewReader(bytes.NewReader(Read(tb, name, "files.tsv")))
		r.Comma, r.LazyQuotes = '\t', true
		rows, err := r.ReadAll()
		if err != nil {
			return err
		}
		for _, row := range rows[1:] {
			path, id := row[0], row[2]
			if _, err := os.Stat(filepath.Join(Dir(tb), "objects", id+".xz")); id == "" || err != nil {
				continue
			}
			to := filepath.Join(out, path)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			os.Remove(to)
			if err := os.Link(Object(tb, id), to); err != nil {
				return err
			}
		}
		return nil
	})
}

// Object is the path of an ELF file by its build-id. Do not write to it.
func Object(tb testing.TB, id string) string {
	tb.Helper()
	return filepath.Join(unpacked(tb, id, func(out string) error {
		return os.WriteFile(filepath.Join(out, "elf"), Read(tb, "objects", id), 0o644)
	}), "elf")
}

// unpacked is a directory that fill fills once for all runs.
func unpacked(tb testing.TB, name string, fill func(dir string) error) string {
	tb.Helper()
	cache := filepath.Join(os.TempDir(), fmt.Sprintf("fpuimg-corpus-%d", os.Getuid()))
	out := filepath.Join(cache, name)
	if _, err := os.Stat(out); err == nil {
		return out
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		tb.Fatal(err)
	}
	tmp, err := os.MkdirTemp(cache, ".tmp-")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	if err := os.Rename(tmp, out); err != nil && !errors.Is(err, os.ErrExist) {
		tb.Fatal(err)
	}
	return out
}

// untar unpacks what regular files and directories an archive has, links to others of it
// included.
func untar(path, out string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := os.OpenRoot(out)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.Trim(filepath.Clean("/"+h.Name), "/")
		if name == "" {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeReg:
			var w *os.File
			if w, err = root.Create(name); err == nil {
				_, err = io.Copy(w, r)
				err = errors.Join(err, w.Close())
			}
		}
		if err != nil {
			return err
		}
	}
}

// Truth is a truth.json: what the processes and the system said before the dump.
type Truth struct {
	Entry       string      `json:"entry"`
	Processes   []Process   `json:"processes"`
	Diagnostics Diagnostics `json:"ld_so_list_diagnostics"`
	IFuncs      []IFunc     `json:"ifunc_by_dlsym"`
}

// IFunc is what another program got from dlsym of the same libc on the same CPU. Value and
// Impl are as in [Slot].
type IFunc struct {
	Object string `json:"object"`
	Symbol string `json:"symbol"`
	Value  string `json:"value"`
	Impl   string `json:"impl"`
}

// Diagnostics is what ld.so --list-diagnostics of that glibc printed; numbers are text, in
// base 0. Empty before glibc 2.33, which knows no such option.
type Diagnostics map[string]string

// UnmarshalJSON takes a remark for nothing.
func (d *Diagnostics) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return nil
	}
	return json.Unmarshal(b, (*map[string]string)(d))
}

// Process is one process of a [Truth].
type Process struct {
	PID        int               `json:"pid"`
	Exe        string            `json:"exe"`
	Auxv       map[string]string `json:"auxv"`
	AuxvHex    string            `json:"auxv_hex"` // all of it
	Threads    []Thread          `json:"threads"`
	Slots      []Slot            `json:"slots"`
	Trampoline []Trampoline      `json:"trampoline"`
	Objects    []Mapped          `json:"objects"`
}

// Thread is one thread of a [Process].
type Thread struct {
	TID         int    `json:"tid"`
	Blocked     bool   `json:"blocked"`
	ProcSyscall string `json:"proc_syscall"` // /proc/PID/task/TID/syscall
	PCObject    string `json:"pc_object"`
	PCSymbol    string `json:"pc_symbol"`
	Snap        struct {
		XStateBV string `json:"xstate_bv"`
	} `json:"snap_before_dump"` // by ptrace, a second before the dump; empty if there was none
}

// Slot is a word that belongs to an IFUNC symbol. Value is a place in an object,
// "libc.so.6+0x165b40", Impl the name of what is there.
type Slot struct {
	Object string `json:"object"`
	Slot   string `json:"slot"`
	Type   string `json:"type"`
	Symbol string `json:"symbol"`
	Value  string `json:"value"`
	Impl   string `json:"impl"`
}

// Trampoline is .got.plt[2] of an object.
type Trampoline struct {
	Object  string `json:"object"`
	GotPLT2 string `json:"gotplt2"`
	Symbol  string `json:"symbol"`
	BindNow bool   `json:"bind_now"`
}

// Mapped is a mapped ELF file.
type Mapped struct {
	Path    string `json:"path"`
	Bias    string `json:"bias"`
	BuildID string `json:"build_id"`
}

// Load reads the truth of an entry.
func Load(tb testing.TB, name string) (t Truth) {
	tb.Helper()
	if err := json.Unmarshal(Read(tb, name, "truth.json"), &t); err != nil {
		tb.Fatalf("%s: truth.json: %v", name, err)
	}
	return t
}
