package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
)

// What a checkpoint cannot be copied for.
var (
	ErrInside  = errors.New("the output lies inside the checkpoint")
	ErrSpecial = errors.New("neither a file nor a directory nor a link")
)

// WriteFile writes the one core image of the plan to out, which must not exist. The
// errors are from the file system, a [*BusyError], a [*ChangedError] or [ErrStage].
func (p *Plan) WriteFile(out string) error {
	content, err := p.Bytes()
	if err != nil {
		return err
	}
	return build(out, func(s *stage) error {
		f, err := create(s.dir, result)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(content); err != nil {
			return err
		}
		if p.Checkpoint.Path != "-" {
			src, err := openPath(p.Checkpoint.Path)
			if err != nil {
				return err
			}
			defer src.Close()
			if _, err := p.check(src, p.Checkpoint.Image); err != nil {
				return err
			}
			if err := copyMeta(f, src, p.Changed()); err != nil {
				return err
			}
		}
		return f.Sync()
	})
}

// Bytes returns the one core image of the plan, converted; or as it was, if the
// plan changes nothing.
func (p *Plan) Bytes() ([]byte, error) {
	name := p.Checkpoint.Image
	if name == "" {
		return nil, fmt.Errorf("%s: a directory, not one core image", p.Checkpoint.Path)
	}
	b, err := codec.ReadImage(p.Checkpoint.Files, name)
	if err != nil {
		return nil, err
	}
	c := p.files[name]
	if c.whole() {
		if hash(b) != p.read[name] {
			return nil, &ChangedError{p.Checkpoint.Files.Label(name)}
		}
		return c.apply(name, b)
	}
	return io.ReadAll(&editor{r: bytes.NewReader(b), file: name, edits: c.edits})
}

// check returns the content of a file, or a [*ChangedError] if it is not the one from
// which the plan was made.
func (p *Plan) check(f *os.File, name string) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(info.Size(), codec.MaxImage)+1) // one more shows that it grew
	n, err := io.ReadFull(f, b)
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
		if hash(b[:n]) != p.read[name] {
			err = &ChangedError{filepath.Clean(f.Name())}
		}
	}
	return b[:n], err
}

// stale returns a [*ChangedError] if one of the files that the plan was made from, but
// does not change, has another content in the directory.
func (p *Plan) stale(dir *os.Root) error {
	for name := range p.read {
		if _, changes := p.files[name]; changes {
			continue // it is compared where it is rewritten
		}
		f, err := lookAndOpen(dir, name)
		if err != nil {
			return err
		}
		_, err = p.check(f, name)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
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
// that nothing is left.
//
// Set-id bits and file capabilities are not kept where the owner cannot be, nor where
// they had no effect (nosuid); a group that cannot be kept leaves the new one what
// others had.
//
// The errors are from the file system, a [*BusyError], a [*ChangedError], [ErrInside],
// [ErrSpecial] or [ErrStage].
func (p *Plan) WriteDir(out string, o DirOptions) error {
	src, err := openDir(p.Checkpoint.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	lock, err := lockDir(src, lockShared)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := committed(src); err != nil {
		return err
	}
	c := &cloner{plan: p, opts: o, links: map[fileID]string{}, rewritten: map[string]fs.FileInfo{}}
	if c.from, err = realPath(p.Checkpoint.Path); err != nil {
		return err
	}
	parent, err := realPath(filepath.Dir(filepath.Clean(out)))
	if err != nil {
		return err
	}
	c.final = filepath.Join(parent, filepath.Base(out))
	if within(parent, c.from) {
		return fmt.Errorf("%s: %w %s", out, ErrInside, p.Checkpoint.Path)
	}
	return build(out, func(s *stage) error {
		c.stage = s
		defer c.made.close()
		if c.to, err = s.mkdir(); err != nil {
			return err
		}
		defer c.to.Close()
		if err := c.tree(src, "."); err != nil {
			return err
		}
		if len(c.rewritten) < len(p.files) {
			return &ChangedError{p.Checkpoint.Path} // not all were met, as files
		}
		// The disk writes while the result is read anew, of which nothing writes.
		synced := make(chan error, 1)
		go func() { synced <- c.made.sync(s.lock.File) }()
		err := p.verify(staged{c.to, func(name string) string { return name }})
		if err := errors.Join(err, <-synced); err != nil {
			return err
		}
		for name, was := range c.rewritten {
			if now, err := src.Lstat(name); err != nil || !same(was, now) {
				return &ChangedError{filepath.Join(p.Checkpoint.Path, name)}
			}
		}
		return p.stale(src)
	})
}

// realPath is an absolute path without links.
func realPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(real)
}

// within reports whether a path is a directory or lies in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// cloner copies a checkpoint directory, with the plan's files in place of the old
// ones.
type cloner struct {
	plan        *Plan
	from, final string // the checkpoint, and the place of the copy; for links alone
	stage       *stage
	to          *os.Root // the copy, in the stage
	opts        DirOptions
	links       map[fileID]string // hard links: a copied name of each file with several
	rewritten   map[string]fs.FileInfo
	made        unsynced
	done        int64
}

// tree copies one directory, then gives it the metadata of the original.
func (c *cloner) tree(from *os.Root, rel string) error {
	src, err := from.Open(".")
	if err != nil {
		return named(from, err)
	}
	defer src.Close()
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if rel == "." && isLeftover(name) {
			continue
		}
		if err := c.entry(from, name, path.Join(rel, name)); err != nil {
			return err
		}
	}
	dst, err := c.to.Open(rel)
	if err != nil {
		return named(c.to, err)
	}
	return errors.Join(copyMeta(dst, src, false), c.made.add(dst))
}

func (c *cloner) entry(from *os.Root, name, rel string) error {
	info, err := from.Lstat(name)
	if err != nil {
		return named(from, err)
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if c.stage.lock.is(info) {
			return fmt.Errorf("%s: %w %s", c.stage.out, ErrInside, c.plan.Checkpoint.Path)
		}
		sub, err := openSub(from, name, info)
		if err != nil {
			return err
		}
		defer sub.Close()
		if err := c.to.Mkdir(rel, 0o700); err != nil {
			return named(c.to, err)
		}
		return c.tree(sub, rel)
	case fs.ModeSymlink:
		return c.symlink(from, name, rel, info)
	case 0:
		return c.file(from, name, rel, info)
	}
	return &fs.PathError{Op: "copy", Path: filepath.Join(from.Name(), name), Err: ErrSpecial}
}

func (c *cloner) file(from *os.Root, name, rel string, info fs.FileInfo) error {
	src, err := openFile(from, name, info)
	if err != nil {
		return err
	}
	defer src.Close()
	change, changed := c.plan.files[rel]
	if changed {
		c.rewritten[rel] = info
	}
	// Names of one file stay names of one file, unless only one is converted.
	if id, many := linkID(info); many {
		if first, ok := c.links[id]; ok && reflect.DeepEqual(c.plan.files[first], change) {
			return named(c.to, c.to.Link(first, rel))
		}
		c.links[id] = rel
	}
	dst, err := create(c.to, rel)
	if err != nil {
		return err
	}
	if changed {
		err = c.plan.rewrite(dst, src, rel)
	} else if err = clone(dst, src); err == nil {
		err = copyMeta(dst, src, false)
	}
	err = errors.Join(err, c.made.add(dst))
	c.done += info.Size()
	if c.opts.Progress != nil {
		c.opts.Progress(c.done)
	}
	return err
}

// rewrite fills a file with what the plan makes of src, and gives it the metadata of
// src.
func (p *Plan) rewrite(dst, src *os.File, name string) error {
	var err error
	if c := p.files[name]; c.whole() {
		var b []byte
		if b, err = p.check(src, name); err == nil {
			b, err = c.apply(name, b)
		}
		if err == nil {
			_, err = dst.Write(b)
		}
	} else {
		err = copyEdited(dst, src, c.edits)
	}
	if err != nil {
		return err
	}
	return copyMeta(dst, src, true)
}

// copyEdited copies a file and edits the copy.
func copyEdited(dst, src *os.File, edits []Edit) error {
	was, err := src.Stat()
	if err != nil {
		return err
	}
	if err := clone(dst, src); err != nil {
		return err
	}
	if now, err := src.Stat(); err != nil || !same(was, now) {
		return &ChangedError{filepath.Clean(src.Name())}
	}
	return edit(dst, filepath.Clean(src.Name()), edits)
}

// same reports whether a file is the same, and was not written meanwhile.
func same(was, now fs.FileInfo) bool {
	return os.SameFile(was, now) && was.Size() == now.Size() && was.ModTime().Equal(now.ModTime())
}

// symlink copies a link. A relative one that would lead elsewhere from the new
// place, as CRIU's parent may, is rewritten to lead to the same place.
func (c *cloner) symlink(from *os.Root, name, rel string, info fs.FileInfo) error {
	target, err := from.Readlink(name)
	if err != nil {
		return named(from, err)
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
	if err := c.to.Symlink(target, rel); err != nil {
		return named(c.to, err)
	}
	return copyLinkMeta(c.to, rel, info)
}

// relink returns what a relative link must read in the final place. Links that
// stay inside the checkpoint are kept as they are.
func (c *cloner) relink(rel, target string) (string, error) {
	dir := filepath.Dir(filepath.FromSlash(rel))
	if filepath.IsLocal(filepath.Join(dir, target)) {
		return target, nil
	}
	to, leads := filepath.Join(c.final, dir), filepath.Join(c.from, dir, target)
	if filepath.Join(to, target) == leads {
		return target, nil
	}
	return filepath.Rel(to, leads)
}
