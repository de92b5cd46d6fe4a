package convert

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// stageSuffix ends the hidden name under which an output is built.
const stageSuffix = ".fpuimg-stage"

// stageName is the same each time, so that the next run finds what a killed one has
// left. Where an output's name fits, its stage's does.
func stageName(out string) string {
	dir, base := filepath.Split(out)
	const long = 64
	if len(base) > long {
		sum := fnv.New64a()
		sum.Write([]byte(base))
		base = fmt.Sprintf("%s-%016x", strings.ToValidUTF8(base[:long-17], ""), sum.Sum64())
	}
	return filepath.Join(dir, "."+base+stageSuffix)
}

// free returns an error if an output is there already, or cannot be.
func free(out string) error {
	switch _, err := os.Lstat(out); {
	case err == nil:
		return existsError(out)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// existsError refuses an output that is there already.
func existsError(out string) error {
	return &fs.PathError{Op: "create", Path: out, Err: fs.ErrExist}
}

// What a checkpoint cannot be copied for.
var (
	ErrInside  = errors.New("the output lies inside the checkpoint")
	ErrSpecial = errors.New("neither a file nor a directory nor a link")
)

// BusyError is a checkpoint or an output that another conversion is working on.
type BusyError struct{ Path string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s: another conversion is at work on it", e.Path)
}

// WriteFile writes the one core image of the plan to out, which must not exist.
// The errors are from the file system.
func (p *Plan) WriteFile(out string) error {
	content, err := p.Bytes()
	if err != nil {
		return err
	}
	out = filepath.Clean(out)
	if err := free(out); err != nil {
		return err
	}
	stage := stageName(out)
	f, err := createLocked(stage)
	if err != nil {
		return err
	}
	err = writeDurable(f, content, p.Checkpoint.Path)
	if err == nil {
		err = renameNoReplace(stage, out)
	}
	if err != nil {
		os.Remove(stage)
		return err
	}
	return syncDir(filepath.Dir(out))
}

// Bytes returns the one core image of the plan, converted; or as it was, if the
// plan changes nothing.
func (p *Plan) Bytes() ([]byte, error) {
	core := p.Checkpoint.Single()
	if core == nil {
		return nil, fmt.Errorf("%s: a directory, not one core image", p.Checkpoint.Path)
	}
	if b, ok := p.files[filepath.Base(core.Path)]; ok {
		return b, nil
	}
	return core.Raw(), nil
}

// createLocked makes a staging file and locks it. One that a killed conversion
// left behind is not locked, and is removed; it may be read-only already.
func createLocked(path string) (*os.File, error) {
	if left, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0); err == nil {
		err = lock(left)
		if err == nil {
			err = os.Remove(path)
		}
		if err = errors.Join(err, left.Close()); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// writeDurable fills a file, gives it the metadata of like, which may be "-" for
// none, makes it durable and closes it.
func writeDurable(f *os.File, content []byte, like string) error {
	err := f.Truncate(0)
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil && like != "-" {
		err = copyMeta(f.Name(), like)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// DirOptions are the choices of [Plan.WriteDir].
type DirOptions struct {
	// Progress is called with the bytes copied so far; nil is none.
	Progress func(done int64)
	// Note is called with what the user should know, such as a rewritten link.
	Note func(text string)
}

// WriteDir writes the converted checkpoint to the new directory out, which must not
// exist. It appears by one rename once all of it is durable; on any failure before
// that nothing is left. The errors are from the file system, a [*BusyError],
// [ErrInside] or [ErrSpecial].
func (p *Plan) WriteDir(out string, o DirOptions) error {
	out = filepath.Clean(out)
	// The directory itself, not a link to it, has the metadata to keep.
	src, err := filepath.EvalSymlinks(p.Checkpoint.Path)
	if err != nil {
		return err
	}
	if err := outside(src, out); err != nil {
		return err
	}
	if err := free(out); err != nil {
		return err
	}
	from, err := lockSource(src)
	if err != nil {
		return err
	}
	defer from.Close()
	stage := stageName(out)
	dir, err := claimStage(stage)
	if err != nil {
		return err
	}
	defer dir.Close()
	c := &cloner{plan: p, from: src, to: stage, final: out, opts: o, links: map[fileID]string{}}
	err = c.tree(".")
	if err == nil {
		err = syncTree(dir)
	}
	if err == nil {
		err = p.stale()
	}
	if err == nil {
		err = renameNoReplace(stage, out)
	}
	if err != nil {
		removeTree(stage)
		return err
	}
	return syncDir(filepath.Dir(out))
}

// lockSource keeps conversions in place away from a checkpoint while it is copied.
func lockSource(src string) (*os.File, error) {
	d, err := os.Open(src)
	if err != nil {
		return nil, err
	}
	if err = lockShared(d); err == nil {
		err = committed(src)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// outside refuses an output inside the checkpoint, which would hold itself.
func outside(src, out string) error {
	a, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	b, err := filepath.EvalSymlinks(filepath.Dir(out))
	if err != nil {
		return err
	}
	a, err = filepath.Abs(a)
	if err != nil {
		return err
	}
	b, err = filepath.Abs(b)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(a, b); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return fmt.Errorf("%s: %w %s", out, ErrInside, src)
	}
	return nil
}

// claimStage makes the staging directory and locks it, after it has removed one
// that a killed conversion left behind.
func claimStage(stage string) (*os.File, error) {
	err := os.Mkdir(stage, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	left := err != nil
	f, err := os.OpenFile(stage, os.O_RDONLY|noFollow|onlyDir, 0)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	if left {
		if err := emptyDir(f, stage); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

func emptyDir(f *os.File, path string) error {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	if err := f.Chmod(0o700); err != nil {
		return err
	}
	for _, name := range names {
		if err := removeTree(filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// removeTree is os.RemoveAll for what a conversion made, where a directory may
// have the mode of a read-only original.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	return os.RemoveAll(path)
}

// cloner copies a checkpoint directory, with the plan's files in place of the old
// ones.
type cloner struct {
	plan     *Plan
	from, to string
	final    string // where to will be in the end
	opts     DirOptions
	links    map[fileID]string // hard links: a copied name of each file with several
	done     int64
}

// tree copies one directory, then gives it the metadata of the original.
func (c *cloner) tree(rel string) error {
	entries, err := os.ReadDir(filepath.Join(c.from, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if rel == "." && isLeftover(e.Name()) {
			continue
		}
		if err := c.entry(filepath.Join(rel, e.Name())); err != nil {
			return err
		}
	}
	return copyMeta(filepath.Join(c.to, rel), filepath.Join(c.from, rel))
}

func (c *cloner) entry(rel string) error {
	src, dst := filepath.Join(c.from, rel), filepath.Join(c.to, rel)
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := os.Mkdir(dst, 0o700); err != nil {
			return err
		}
		return c.tree(rel)
	case fs.ModeSymlink:
		return c.symlink(rel, src, dst)
	case 0:
		return c.file(rel, src, dst, info)
	}
	return &fs.PathError{Op: "copy", Path: src, Err: ErrSpecial}
}

func (c *cloner) file(rel, src, dst string, info fs.FileInfo) error {
	content, changed := c.plan.files[rel]
	// Names of one file stay names of one file, unless only one is converted.
	if id, many := linkID(info); many {
		if first, ok := c.links[id]; ok && bytes.Equal(c.plan.files[first], content) {
			return os.Link(filepath.Join(c.to, first), dst)
		}
		c.links[id] = rel
	}
	if changed {
		return writeLike(dst, content, src)
	}
	if err := cloneFile(dst, src); err != nil {
		return err
	}
	c.done += info.Size()
	if c.opts.Progress != nil {
		c.opts.Progress(c.done)
	}
	return copyMeta(dst, src)
}

// symlink copies a link. A relative one that would lead elsewhere from the new
// place, as CRIU's parent may, is rewritten to lead to the same place.
func (c *cloner) symlink(rel, src, dst string) error {
	target, err := os.Readlink(src)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(target) {
		moved, err := c.relink(rel, target)
		if err != nil {
			return err
		}
		if moved != target && c.opts.Note != nil {
			c.opts.Note(fmt.Sprintf("%s: the link now reads %s, to lead to the same place as before (%s)", rel, moved, target))
		}
		target = moved
	}
	if err := os.Symlink(target, dst); err != nil {
		return err
	}
	return copyLinkMeta(dst, src)
}

// relink returns what a relative link must read in the final place. Links that
// stay inside the checkpoint are kept as they are.
func (c *cloner) relink(rel, target string) (string, error) {
	from, err := realDir(filepath.Join(c.from, filepath.Dir(rel)))
	if err != nil {
		return "", err
	}
	if filepath.IsLocal(filepath.Join(filepath.Dir(rel), target)) {
		return target, nil
	}
	place := filepath.Join(from, target)
	parent, err := realDir(filepath.Dir(c.final))
	if err != nil {
		return "", err
	}
	to := filepath.Join(parent, filepath.Base(c.final), filepath.Dir(rel))
	if filepath.Join(to, target) == place {
		return target, nil
	}
	return filepath.Rel(to, place)
}

func realDir(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(real)
}

// sortedNames returns the names of the plan's files.
func (p *Plan) sortedNames() []string {
	names := make([]string, 0, len(p.files))
	for name := range p.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
