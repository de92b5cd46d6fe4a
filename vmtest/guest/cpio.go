package guest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// File types in a cpio mode, as in stat(2).
const (
	cpioDir     = 0o040000
	cpioRegular = 0o100000
	cpioSymlink = 0o120000
)

// cpioWriter writes a "newc" archive, the one format of the kernel's
// initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
// Everything in it belongs to root.
type cpioWriter struct {
	w    io.Writer
	n    int64           // bytes written, for the padding
	ino  int             // last inode number
	dirs map[string]bool // directories written, so that each comes once
}

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, dirs: map[string]bool{".": true}}
}

func (c *cpioWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// pad fills up to a multiple of n.
func (c *cpioWriter) pad(n int64) error {
	if rest := c.n % n; rest != 0 {
		_, err := c.Write(make([]byte, n-rest))
		return err
	}
	return nil
}

func (c *cpioWriter) header(name string, mode uint32, mtime time.Time, size int64) error {
	if size > 1<<32-1 {
		return fmt.Errorf("cpio: %s: %d bytes, the format ends at 4 GiB", name, size)
	}
	var sec int64
	if !mtime.IsZero() {
		sec = mtime.Unix()
	}
	c.ino++
	// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	if _, err := fmt.Fprintf(c, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.ino, mode, 0, 0, 1, uint32(sec), size, 0, 0, 0, 0, len(name)+1, 0, name); err != nil {
		return err
	}
	return c.pad(4)
}

// parents writes the directories above name that are not there yet.
func (c *cpioWriter) parents(name string) error {
	if dir := path.Dir(name); !c.dirs[dir] {
		return c.dir(dir, 0o755)
	}
	return nil
}

func (c *cpioWriter) dir(name string, perm fs.FileMode) error {
	name = cpioName(name)
	if c.dirs[name] {
		return nil
	}
	if err := c.parents(name); err != nil {
		return err
	}
	c.dirs[name] = true
	return c.header(name, cpioDir|uint32(perm.Perm()), time.Time{}, 0)
}

func (c *cpioWriter) symlink(name, target string) error {
	name = cpioName(name)
	if err := c.parents(name); err != nil {
		return err
	}
	if err := c.header(name, cpioSymlink|0o777, time.Time{}, int64(len(target))); err != nil {
		return err
	}
	if _, err := io.WriteString(c, target); err != nil {
		return err
	}
	return c.pad(4)
}

func (c *cpioWriter) file(name string, perm fs.FileMode, mtime time.Time, r io.Reader, size int64) error {
	name = cpioName(name)
	if err := c.parents(name); err != nil {
		return err
	}
	if err := c.header(name, cpioRegular|uint32(perm.Perm()), mtime, size); err != nil {
		return err
	}
	if _, err := io.CopyN(c, r, size); err != nil {
		return fmt.Errorf("cpio: %s: %w", name, err)
	}
	return c.pad(4)
}

func (c *cpioWriter) bytes(name string, perm fs.FileMode, data []byte) error {
	return c.file(name, perm, time.Time{}, bytes.NewReader(data), int64(len(data)))
}

// tree writes the file or directory at the host path root as name, with
// modes, times and symbolic links as they are. A symbolic link as root is
// followed.
func (c *cpioWriter) tree(name, root string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(rel))
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		switch {
		case fi.IsDir():
			return c.dir(to, fi.Mode())
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return c.symlink(to, target)
		case fi.Mode().IsRegular():
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			return c.file(to, fi.Mode(), fi.ModTime(), f, fi.Size())
		}
		return fmt.Errorf("cpio: %s: cannot send a file of type %s", p, fi.Mode().Type())
	})
}

// close ends the archive. The kernel accepts further archives behind it.
func (c *cpioWriter) close() error {
	if err := c.header("TRAILER!!!", 0, time.Time{}, 0); err != nil {
		return err
	}
	return c.pad(512)
}

func cpioName(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }
