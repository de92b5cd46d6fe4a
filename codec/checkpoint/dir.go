package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
)

// OpenDir opens a CRIU images directory. The core images are not read before
// [Checkpoint.Threads] asks for them.
func OpenDir(path string) (*Checkpoint, error) {
	c, err := newCheckpoint(path, KindCRIU, codec.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := interrupted(path); err != nil {
		c.Problems = codec.AppendFault([]error{err}, c.Problems...)
	}
	return c, nil
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
	// Podman and runc have the images in checkpoint/, Docker in checkpoints/NAME/,
	// Incus in state/final/.
	var all []Found
	for _, pattern := range []string{"*", "checkpoints/*", "state/*"} {
		below, _ := filepath.Glob(filepath.Join(escapeGlob(path), filepath.FromSlash(pattern)))
		slices.Sort(below)
		for _, dir := range below {
			if !holdsImages(dir) {
				continue
			}
			c, derr := OpenDir(dir)
			if derr != nil {
				return nil, derr
			}
			c.Container = dirContainer(dir)
			all = append(all, Found{Path: c.Path, Checkpoint: c})
		}
	}
	if len(all) == 0 {
		return nil, err
	}
	return all, nil
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
