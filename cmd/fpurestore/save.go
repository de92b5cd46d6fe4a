package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// savedThread is the live state of one thread, for --save.
type savedThread struct {
	liveThread
	gp     [27]uint64
	area   []byte // NT_X86_XSTATE, or the FXSAVE area
	xsave  bool
	compat bool
	ssp    *uint64
}

// doc tells what a save that restores nothing did with the thread.
func (t *savedThread) doc() threadDoc {
	f := xstate.FormatFXSave
	if t.xsave {
		f = xstate.FormatXSave
	}
	return threadDoc{ImageTID: t.tid, TID: t.tid, From: f.String(), To: f.String(), Actions: []view.ActionDoc{}, Lost: []view.LossDoc{}}
}

// saveError is a directory of --save that cannot be made.
type saveError struct {
	path string
	err  error
}

func (e *saveError) Error() string { return e.path + ": " + e.err.Error() }
func (e *saveError) Unwrap() error { return e.err }

var (
	errThere     = errors.New("exists already")
	errExchanged = errors.New("somebody has put another directory in its place")
)

// saveDir is a directory of --save on its way: it is built under a hidden name beside
// its place and appears there by one rename. The place may be another user's: what
// is written goes below open directories, only into new files, and only into a
// directory that nobody else can write.
type saveDir struct {
	path        string
	parent, dir *os.Root
	base, stage string
	names       []string // of the files in it
}

// newSaveDir makes the directory, under its hidden name. The error is a [*saveError].
func newSaveDir(path string) (*saveDir, error) {
	d := &saveDir{path: path, base: filepath.Base(path), stage: ".fpurestore-" + rand.Text()}
	if _, err := os.Lstat(path); err == nil {
		return nil, d.failed(errThere)
	}
	var err error
	// The dot takes a directory alone: nobody waits for who opens a FIFO.
	if d.parent, err = os.OpenRoot(filepath.Dir(path) + "/."); err != nil {
		return nil, d.failed(err)
	}
	if err = d.parent.Mkdir(d.stage, 0o700); err == nil {
		if d.dir, err = openOwn(d.parent, d.stage); err == nil {
			return d, nil
		}
	}
	d.discard()
	return nil, d.failed(err)
}

// openOwn opens a directory that is this user's and that nobody else can write.
func openOwn(parent *os.Root, name string) (*os.Root, error) {
	dir, err := parent.OpenRoot(name + "/.")
	if err != nil {
		return nil, err
	}
	if info, err := dir.Stat("."); err != nil || !isOwn(info) {
		dir.Close()
		if err == nil {
			err = errExchanged
		}
		return nil, err
	}
	return dir, nil
}

func (d *saveDir) failed(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // its path is a name that nobody has given
	}
	return &saveError{d.path, err}
}

// fill writes a small images directory, which is there as a whole or not at all. The
// error is a [*saveError].
func (d *saveDir) fill(tasks []codec.SavedTask, threads []savedThread, layout xstate.Layout) error {
	for i := range threads {
		if err := d.thread(&threads[i], layout); err != nil {
			return err
		}
	}
	if err := d.write("pstree.img", codec.MarshalPstree(tasks)); err != nil {
		return err
	}
	if err := d.write("inventory.img", codec.MarshalInventory()); err != nil {
		return err
	}
	if err := renameNew(d.parent, d.stage, d.base); err != nil {
		return d.failed(err)
	}
	is, err := d.parent.Lstat(d.base)
	was, err2 := d.dir.Stat(".")
	if err != nil || err2 != nil || !os.SameFile(is, was) {
		return d.failed(errExchanged)
	}
	d.names, d.stage = nil, ""
	return nil
}

func (d *saveDir) thread(t *savedThread, layout xstate.Layout) error {
	parse := xstate.ParseFXArea
	if t.xsave {
		parse = func(b []byte) (*xstate.State, error) { return xstate.ParseArea(b, layout) }
	}
	s, err := parse(t.area)
	if err != nil {
		return d.failed(fmt.Errorf("thread %d: %w", t.tid, err))
	}
	s.Compat = t.compat
	if t.ssp != nil {
		s.ShadowStack = &xstate.ShadowStack{Status: 1, SSP: *t.ssp}
	}
	core, err := codec.MarshalCore(codec.SavedThread{PID: t.pid, TID: t.tid, Comm: t.comm, GPRegs: t.gp, State: s})
	if err != nil {
		return d.failed(fmt.Errorf("thread %d: %w", t.tid, err))
	}
	if err := d.write(fmt.Sprintf("core-%d.img", t.tid), core); err != nil {
		return err
	}
	if s.BV&^(codec.Storable|xstate.Legacy) == 0 {
		return nil
	}
	return d.write(rawName(t.tid), t.area)
}

// write makes a new file.
func (d *saveDir) write(name string, b []byte) error {
	f, err := d.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d.failed(err)
	}
	d.names = append(d.names, name)
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return d.failed(err)
	}
	return nil
}

// discard removes the directory, unless it is in its place, and nothing but what was
// made here.
func (d *saveDir) discard() {
	for _, name := range d.names {
		d.dir.Remove(name)
	}
	if d.dir != nil {
		d.dir.Close()
	}
	if d.stage != "" {
		d.parent.Remove(d.stage)
	}
	d.parent.Close()
}

// renameIfNew renames where nothing of the new name is, as far as can be seen.
func renameIfNew(dir *os.Root, from, to string) error {
	if _, err := dir.Lstat(to); err == nil {
		return errThere
	}
	return dir.Rename(from, to)
}
