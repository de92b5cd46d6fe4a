//go:build !linux

package convert

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const nonBlock = 0

// Conversions are kept apart on Linux only.
func lock(*os.File) error       { return nil }
func lockShared(*os.File) error { return nil }
func unlock(*os.File)           {}

func renameNoReplace(from *os.File, old string, to *os.File, name, out string) error {
	if _, err := os.Lstat(out); err == nil {
		return existsError(out)
	}
	return os.Rename(filepath.Join(from.Name(), old), filepath.Join(to.Name(), name))
}

func rmdir(d *os.File, name string) error { return os.Remove(filepath.Join(d.Name(), name)) }

func movable(*os.File, string, string) error { return nil }

func appendOnly(*os.File) bool { return false }

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

// Owners are known on Linux only.
func owner(fs.FileInfo) uint32 { return 0 }
func self() uint32             { return 0 }

func clone(dst, src *os.File) error {
	_, err := io.Copy(dst, src)
	return err
}

func dropACL(*os.File) error { return nil }

// copyMeta keeps mode and times; owners and extended attributes are kept on Linux
// only.
func copyMeta(dst, src *os.File, _ bool) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(dst.Name(), info.ModTime(), info.ModTime())
}

func copyLinkMeta(*os.Root, string, fs.FileInfo) error { return nil }
