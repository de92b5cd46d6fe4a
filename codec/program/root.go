package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// Roots are the directories that the ELF files of a checkpoint are looked for in, in
// turn. A path of the checkpoint names a file below each: what links say is resolved in
// the root, as the process that was dumped saw it, and never leads out of it.
type Roots struct{ dirs []*os.Root }

// OpenRoots opens the directories. The error is that of the first that cannot be opened.
func OpenRoots(dirs ...string) (*Roots, error) {
	r := &Roots{}
	for _, dir := range dirs {
		root, err := os.OpenRoot(dir)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.dirs = append(r.dirs, root)
	}
	return r, nil
}

// Close closes the directories.
func (r *Roots) Close() error {
	var errs []error
	for _, root := range r.dirs {
		errs = append(errs, root.Close())
	}
	return errors.Join(errs...)
}

// maxObject bounds an ELF file. None is read whole; those of browsers with debugging
// data come near to this.
const maxObject = 8 << 30

var (
	errIrregular = errors.New("not a regular file")
	errTooLarge  = fmt.Errorf("larger than %d GiB, which no program is", maxObject>>30)
)

// openIn opens a regular file by the absolute path that it has below the root. It waits
// for no FIFO and opens no device.
func openIn(root *os.Root, name string) (*os.File, int64, error) {
	rel := strings.TrimPrefix(path.Clean("/"+name), "/")
	info, err := root.Stat(rel)
	if err != nil { // perhaps an absolute link, which os.Root does not follow
		if rel, err = resolve(root, rel); err != nil {
			return nil, 0, err
		}
		if info, err = root.Stat(rel); err != nil {
			return nil, 0, err
		}
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: errIrregular}
	}
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err = f.Stat() // another file may have come in its place
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = &fs.PathError{Op: "open", Path: name, Err: errIrregular}
	case info.Size() > maxObject:
		err = &fs.PathError{Op: "open", Path: name, Err: errTooLarge}
	default:
		return f, info.Size(), nil
	}
	f.Close()
	return nil, 0, err
}

const maxLinks = 40 // as Linux, path_resolution(7)

// resolve follows the links of a path below root as a process does whose root directory
// it is: an absolute link begins there, and .. stays in it.
func resolve(root *os.Root, rel string) (string, error) {
	at, links := ".", 0
	for todo := strings.Split(rel, "/"); len(todo) > 0; {
		elem := todo[0]
		todo = todo[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, elem)
		info, err := root.Lstat(next)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := root.Readlink(next)
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: rel, Err: syscall.ELOOP}
		}
		if strings.HasPrefix(target, "/") {
			at = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, nil
}
