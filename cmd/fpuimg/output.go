package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// jsonStream writes a document whose long lists are not in memory. Its bytes are
// those of [cli.IO.WriteJSON].
type jsonStream struct {
	s    *cli.IO
	full []bool // the lists that are open, outermost first: does it have an element?
}

// open writes the fields of an object up to a list, empty in v, and leaves the list
// open for the elements that follow.
func (w *jsonStream) open(v any) error {
	b, err := w.encode(v)
	if err != nil {
		return err
	}
	at := bytes.LastIndex(b, []byte("[]"))
	w.full = append(w.full, false)
	_, err = w.s.Out.Write(b[:at+1])
	return err
}

// element writes an element of the innermost list.
func (w *jsonStream) element(v any) error {
	b, err := w.encode(v)
	if err == nil {
		_, err = w.s.Out.Write(b)
	}
	return err
}

// encode spells a value, after what separates it from its place's last element.
func (w *jsonStream) encode(v any) ([]byte, error) {
	column := 4 * len(w.full)
	b, err := cli.EncodeJSON(v, column)
	if len(w.full) == 0 || err != nil {
		return b, err
	}
	start := "\n" + strings.Repeat(" ", column)
	if last := len(w.full) - 1; w.full[last] {
		start = "," + start
	} else {
		w.full[last] = true
	}
	return append([]byte(start), b...), nil
}

// close ends the innermost list and its object. rest are the fields of the object that
// follow the list, nil if there are none.
func (w *jsonStream) close(rest any) error {
	last := len(w.full) - 1
	column := 4 * last
	indent := "\n" + strings.Repeat(" ", column)
	var end []byte
	if w.full[last] {
		end = append(end, indent+"  "...)
	}
	end = append(end, ']')
	if rest != nil {
		b, err := cli.EncodeJSON(rest, column)
		if err != nil {
			return err
		}
		end = append(append(end, ','), bytes.TrimPrefix(b, []byte("{"))...)
	} else {
		end = append(end, indent+"}"...)
	}
	if last == 0 {
		end = append(end, '\n')
	}
	w.full = w.full[:last]
	_, err := w.s.Out.Write(end)
	return err
}

// profileJSON returns the profile document of a CPU, null for an unknown one.
func profileJSON(c *xstate.CPU) (json.RawMessage, error) {
	if c == nil {
		return json.RawMessage("null"), nil
	}
	return json.Marshal(cpuid.NewProfile(c))
}

// writeNew writes a file that must not exist, named by an option; a failure leaves
// none.
func writeNew(path, option string, b []byte) error {
	err := inDir(path, func(dir *os.Root, name string) error { return create(dir, name, b) })
	if errors.Is(err, fs.ErrExist) {
		return cli.Hinted(err, takenHint(err, option))
	}
	return err
}

// replaceFile writes a file in the place of the one of that name, if there is one: who
// reads it meanwhile has the old one or the new one. Until then it has a hidden name. It
// is not synced, for it is made anew after a crash.
func replaceFile(path string, b []byte) error {
	return inDir(path, func(dir *os.Root, name string) error {
		draft := "." + name + ".new"
		if err := dir.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // one that a run left that was killed
		}
		if err := create(dir, draft, b); err != nil {
			return err
		}
		err := dir.Rename(draft, name)
		if link, ok := errors.AsType[*os.LinkError](err); ok {
			err = errors.Join(&fs.PathError{Err: link.Err}, dir.Remove(draft))
		}
		return err
	})
}

// inDir calls do with the directory of a path and the name in it. The directory is looked
// up once: another user may change what the path names.
func inDir(path string, do func(dir *os.Root, name string) error) error {
	place, base := filepath.Split(path)
	dir, err := os.OpenRoot(place + ".")
	if err == nil && base == "" {
		err = &fs.PathError{Err: syscall.EISDIR}
	} else if err == nil {
		defer dir.Close()
		err = do(dir, base)
	}
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		file.Op, file.Path = "open", path
	}
	return err
}

// create makes a file with a content, or none.
func create(dir *os.Root, name string, b []byte) error {
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, dir.Remove(name))
	}
	return err
}

// takenHint is for an output that is there already, named by an option. A device, a
// pipe or a link is nothing to remove; who names /dev/stdout means "-".
func takenHint(err error, option string) string {
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		if info, err := os.Lstat(file.Path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
			return "name a new output with " + option + "; - is standard output"
		}
	}
	return "remove it, or name another output with " + option
}
