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
	return len(named(path, "pagemap-*.img")) > 0
}

// openPacked opens a directory whose images are compressed one by one. The result is nil
// if it has no such core image.
func openPacked(path string) (*Checkpoint, error) {
	names, err := codec.Dir(path).Names()
	if err != nil {
		return nil, nil
	}
	h := &held{map[string][]byte{}, func(name string) string { return filepath.Join(path, name) }, map[string]bool{}}
	b := new(budget)
	cores := false
	for _, name := range names {
		base := strings.TrimSuffix(name, filepath.Ext(name))
		if isImage(name) {
			base = name
		}
		if !isImage(base) {
			h.leave(base)
			h.leave(name)
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
func openDirs(path string, o Options) ([]Found, error) {
	c, err := OpenDir(path)
	if err == nil {
		c.Container = dirContainer(filepath.Clean(path))
		return found(c, nil)
	}
	if layout, lerr := openLayout(path, o); layout != nil || lerr != nil {
		return layout, lerr
	}
	// Podman and runc have the images in checkpoint/ or userdata/checkpoint/, Docker in
	// checkpoints/NAME/, Incus in state/final/.
	var all []Found
	for _, dir := range below(path) {
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

// below returns the directories in one that hold images, and those in directories that
// hold none. No link is followed.
func below(path string) []string {
	var near, far []string
	for _, dir := range subdirs(path) {
		if holdsImages(dir) {
			near = append(near, dir)
		} else {
			far = append(far, subdirs(dir)...)
		}
	}
	slices.Sort(far)
	return append(near, slices.DeleteFunc(far, func(dir string) bool { return !holdsImages(dir) })...)
}

// subdirs returns the directories in one, in order.
func subdirs(path string) []string {
	entries, _ := os.ReadDir(path)
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(path, e.Name()))
		}
	}
	return dirs
}

// named returns the names in a directory that match a pattern, in order.
func named(dir, pattern string) []string {
	names, _ := codec.Dir(dir).Names()
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool {
		ok, _ := filepath.Match(pattern, name)
		return !ok
	})
}

// maxCores is how many ELF cores of a directory are read.
const maxCores = 1000

// openCores opens the ELF cores in a directory, such as the store of systemd-coredump: the
// files that are named core*, and are.
func openCores(path string) []Found {
	var all []Found
	for _, name := range named(path, "core*") {
		name = filepath.Join(path, name)
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() || len(all) == maxCores {
			continue
		}
		s, err := openStream(name)
		if err != nil {
			continue
		}
		found, _, err := s.open(name, Options{}, new(budget), true)
		s.file.Close()
		if err == nil && len(found) == 1 && found[0].Checkpoint.Kind == KindELFCore {
			all = append(all, found...)
		}
	}
	return all
}

// holdsImages reports whether a directory has a pstree.img or a core image.
func holdsImages(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, "pstree.img")); err == nil {
		return true
	}
	return len(named(dir, "core-*.img")) > 0
}
