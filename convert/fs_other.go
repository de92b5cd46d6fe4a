//go:build !linux

package convert

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

const (
	noFollow = 0
	onlyDir  = 0
)

// lock and lockShared do nothing: conversions are kept apart on Linux only.
func lock(*os.File) error       { return nil }
func lockShared(*os.File) error { return nil }

func renameNoReplace(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return existsError(to)
	}
	return os.Rename(from, to)
}

// syncTree makes the files of a directory durable, one after the other.
func syncTree(d *os.File) error {
	return fs.WalkDir(os.DirFS(d.Name()), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() && !e.IsDir() {
			return err
		}
		f, err := os.Open(d.Name() + "/" + path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

type fileID struct{}

// linkID knows of no hard links here: each name becomes a file of its own.
func linkID(fs.FileInfo) (fileID, bool) { return fileID{}, false }

func cloneFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// copyMeta keeps mode and times; owners and extended attributes are kept on Linux
// only.
func copyMeta(dst, src string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if err := os.Chmod(dst, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(dst, info.ModTime(), info.ModTime())
}

func copyLinkMeta(dst, src string) error { return nil }
