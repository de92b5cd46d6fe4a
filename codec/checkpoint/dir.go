package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/internal/rawtar"
)

// OpenDir opens a CRIU images directory. The core images are not read before
// [Checkpoint.Threads] asks for them.
func OpenDir(path string) (*Checkpoint, error) {
	c, err := newCheckpoint(path, KindCRIU, codec.Dir(path))
	if err != nil || !leads(path, c) {
		packed, perr := openPacked(path)
		if packed != nil || perr != nil {
			return packed, perr
		}
	}
	if err != nil {
		if errors.Is(err, ErrNoImages) && isPreDump(path) {
			err = &fs.PathError{Op: "open", Path: path, Err: ErrPreDump}
		}
		return nil, err
	}
	if err := interrupted(path); err != nil {
		c.Problems = codec.AppendFault([]error{err}, c.Problems...)
	}
	return c, nil
}

// leads reports whether the core image of the first task is there.
func leads(path string, c *Checkpoint) bool {
	if len(c.tasks) == 0 {
		return true
	}
	_, err := os.Lstat(filepath.Join(path, codec.CoreName(c.tasks[0].PID)))
	return err == nil
}

// isPreDump reports whether criu pre-dump wrote a directory: it has the images of memory,
// and none of tasks.
func isPreDump(path string) bool {
	if _, err := os.Lstat(filepath.Join(path, "inventory.img")); err != nil {
		return false
	}
	maps, _ := filepath.Glob(filepath.Join(escapeGlob(path), "pagemap-*.img"))
	return len(maps) > 0
}

// openPacked opens a directory whose images are compressed one by one. The result is nil
// if it has no such core image.
func openPacked(path string) (*Checkpoint, error) {
	names, err := codec.Dir(path).Names()
	if err != nil {
		return nil, nil
	}
	h := &held{map[string][]byte{}, func(name string) string { return filepath.Join(path, name) }}
	b := new(budget)
	cores := false
	for _, name := range names {
		base := strings.TrimSuffix(name, filepath.Ext(name))
		if isImage(name) {
			base = name
		}
		if !isImage(base) {
			continue
		}
		raw, err := codec.ReadImage(codec.Dir(path), name)
		if err != nil {
			return nil, err
		}
		if base != name {
			c, ok := rawtar.Detect(raw)
			if !ok || c == rawtar.None {
				continue // a backup
			}
			if raw, err = unpack(filepath.Join(path, name), raw, c, b); err != nil {
				return nil, err
			}
			_, core := codec.CoreTID(base)
			cores = cores || core
		}
		if !b.hold(int64(len(raw)) + fileHeld) {
			return nil, &codec.FormatError{Path: path, Field: "directory", Err: errTooMuch}
		}
		h.files[base] = raw
	}
	if !cores {
		return nil, nil
	}
	c, err := newCheckpoint(path, KindCRIU, h)
	if c != nil {
		c.ReadOnly = "its images are compressed; decompress them first"
	}
	return c, err
}

// unpack decompresses an image.
func unpack(path string, raw []byte, c rawtar.Compression, b *budget) ([]byte, error) {
	dec, err := rawtar.NewDecoder(b.Count(bytes.NewReader(raw)), c, &b.Budget)
	if err == nil {
		defer dec.Close()
		raw, err = io.ReadAll(io.LimitReader(dec, codec.MaxImage+1))
	}
	switch {
	case err != nil:
		return nil, &CompressionError{path, string(c), err}
	case len(raw) > codec.MaxImage:
		return nil, &codec.FormatError{Path: path, Offset: codec.MaxImage, Field: "file", Err: codec.ErrTooLarge}
	}
	return raw, nil
}

// interrupted returns a [*codec.InterruptedError] if the directory has a commit record.
func interrupted(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, codec.RedoName)); err == nil {
		return &codec.InterruptedError{Dir: dir}
	}
	return nil
}

// openDirs opens an images directory, or those below one.
func openDirs(path string) ([]Found, error) {
	c, err := OpenDir(path)
	if err == nil {
		c.Container = dirContainer(filepath.Clean(path))
		return found(c, nil)
	}
	if layout, lerr := openLayout(path); layout != nil || lerr != nil {
		return layout, lerr
	}
	// Podman and runc have the images in checkpoint/ or userdata/checkpoint/, Docker in
	// checkpoints/NAME/, Incus in state/final/.
	var all []Found
	for _, dir := range append(below(path, "*"), below(path, "*/*")...) {
		c, derr := OpenDir(dir)
		if derr != nil {
			return nil, derr
		}
		c.Container = dirContainer(dir)
		all = append(all, Found{Path: c.Path, Checkpoint: c})
	}
	if len(all) == 0 {
		all = openCores(path)
	}
	if len(all) == 0 {
		return nil, err
	}
	return all, nil
}

// below returns the directories below one that hold images and no link leads to.
func below(path, pattern string) []string {
	dirs, _ := filepath.Glob(filepath.Join(escapeGlob(path), filepath.FromSlash(pattern)))
	slices.Sort(dirs)
	return slices.DeleteFunc(dirs, func(dir string) bool {
		return !holdsImages(dir) || isLink(filepath.Dir(dir)) && filepath.Dir(dir) != filepath.Clean(path)
	})
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// maxCores is how many ELF cores of a directory are read.
const maxCores = 1000

// openCores opens the ELF cores in a directory, such as the store of systemd-coredump: the
// files that are named core*, and are.
func openCores(path string) []Found {
	names, _ := filepath.Glob(filepath.Join(escapeGlob(path), "core*"))
	var all []Found
	for _, name := range names {
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() || len(all) == maxCores {
			continue
		}
		found, err := OpenAll(name, Options{})
		if err == nil && len(found) == 1 && found[0].Checkpoint.Kind == KindELFCore {
			all = append(all, found...)
		}
	}
	return all
}

// escapeGlob makes a path a pattern that matches it alone.
func escapeGlob(path string) string {
	if filepath.Separator == '\\' {
		return path // there is no escape there
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// holdsImages reports whether a directory, which no link leads to, has a pstree.img
// or a core image.
func holdsImages(dir string) bool {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return false
	}
	if _, err := os.Lstat(filepath.Join(dir, "pstree.img")); err == nil {
		return true
	}
	cores, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "core-*.img"))
	return len(cores) > 0
}
