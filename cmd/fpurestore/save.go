package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
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
type saveError struct{ error }

func (e *saveError) Unwrap() error { return e.error }

// save does the work that needs stopped threads, and keeps what they held before it in a
// new directory. That it can be made is seen before; it is filled when the threads run
// again, whatever has become of the restore. The error is that of the work, or a
// [*saveError] before it; j.unsaved is why nothing is kept.
func (j *job) save(work func() error) (err error) {
	if _, err := os.Lstat(j.o.save); err == nil {
		return &saveError{fmt.Errorf("%s: exists already", j.o.save)}
	}
	failed := convert.NewDir(j.o.save, func(dir *os.Root) error {
		if err = work(); j.saved == nil || err != nil && !j.o.restore {
			j.saved = nil
			return err
		}
		return j.fill(dir)
	})
	if j.kept = failed == nil; !j.kept && (err == nil || j.saved != nil) {
		j.unsaved = &saveError{failed}
	}
	return err
}

// fill writes a small images directory.
func (j *job) fill(dir *os.Root) error {
	write := func(name string, b []byte) error {
		err := dir.WriteFile(name, b, 0o600)
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			e.Path = filepath.Join(j.o.save, name) // where it is to be
		}
		return err
	}
	for i := range j.saved {
		if err := j.saved[i].write(write, j.cpu.Layout); err != nil {
			return err
		}
	}
	if err := write("pstree.img", codec.MarshalPstree(j.tasks)); err != nil {
		return err
	}
	return write("inventory.img", codec.MarshalInventory())
}

func (t *savedThread) write(write func(name string, b []byte) error, layout xstate.Layout) error {
	parse := xstate.ParseFXArea
	if t.xsave {
		parse = func(b []byte) (*xstate.State, error) { return xstate.ParseArea(b, layout) }
	}
	s, err := parse(t.area)
	if err != nil {
		return fmt.Errorf("thread %d: %w", t.tid, err)
	}
	s.Compat = t.compat
	if t.ssp != nil {
		s.ShadowStack = &xstate.ShadowStack{Status: 1, SSP: *t.ssp}
	}
	core, err := codec.MarshalCore(codec.Thread{PID: t.pid, TID: t.tid, Comm: t.comm, GPRegs: &t.gp, State: s})
	if err != nil {
		return fmt.Errorf("thread %d: %w", t.tid, err)
	}
	if err := write(fmt.Sprintf("core-%d.img", t.tid), core); err != nil || s.BV&^(codec.Storable|xstate.Legacy) == 0 {
		return err
	}
	return write(rawName(t.tid), t.area)
}
