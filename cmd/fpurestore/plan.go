package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// loadError is what is wrong with the images, all of it.
type loadError []error

func (e loadError) Error() string   { return errors.Join(e...).Error() }
func (e loadError) Unwrap() []error { return e }

// loadImages reads the threads of the checkpoint or of the named core images, and gives
// each to take with its state, which take does not keep. The error is a loadError.
func loadImages(o *options, take func(imageThread, *xstate.State)) error {
	var errs loadError
	load := func(path string) {
		info, statErr := os.Stat(path)
		ckpt, err := checkpoint.Open(path)
		if err != nil {
			errs = codec.AppendFault(errs, err)
			return
		}
		errs = codec.AppendFault(errs, ckpt.Problems...)
		for th, err := range ckpt.Scan() {
			if err == nil {
				err = addRaw(th)
			}
			if err != nil {
				errs = codec.AppendFault(errs, err)
				continue
			}
			take(imageThread{pid: th.PID, tid: th.TID, comm: th.Comm, named: statErr == nil && !info.IsDir()}, th.State)
		}
	}
	if len(o.files) == 0 {
		load(o.dir)
	}
	for _, f := range o.files {
		load(f)
	}
	if errs != nil {
		return errs
	}
	return nil
}

func rawName(tid int) string { return fmt.Sprintf("xstate-%d.bin", tid) }

// addRaw fills the components that a core image says are in use and has no field
// for from the register set that --save has kept beside it. The image decides
// everything else: it may have been converted since.
func addRaw(th codec.Thread) error {
	state := th.State
	lost := state.With(xstate.Lost) &^ codec.Storable
	if lost == 0 || th.Image == nil {
		return nil
	}
	path := filepath.Join(filepath.Dir(th.Image.Path), rawName(th.TID))
	b, err := codec.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	layout := xstate.GuessLayout(xstate.AreaXCR0(b), len(b))
	if layout == nil {
		return &codec.FormatError{Path: path, Field: "register set",
			Err: fmt.Errorf("no CPU has %d bytes for the components %v", len(b), xstate.AreaXCR0(b))}
	}
	raw, err := xstate.ParseArea(b, layout)
	var area *xstate.AreaError
	if errors.As(err, &area) {
		return &codec.FormatError{Path: path, Offset: int64(area.Offset), Field: area.Field, Err: errors.New(area.Reason)}
	}
	if err != nil {
		return err
	}
	for f := range (lost & raw.BV).All() {
		state.SetData(f, raw.Data(f))
	}
	return nil
}

// decision is what an image means on this machine, whichever thread gets it.
type decision struct {
	*compat.Report
	compat bool            // the image is of a 32-bit task
	keep   xstate.Features // what the live thread keeps
	built  []byte          // the area for this machine without that; without XSAVE the FXSAVE area
	err    error           // why none could be built
}

// decide asks the policy what this machine means for the state of an image, and builds
// all that needs no live thread: no process has to wait for this. Components without a
// value in the image become INIT, but for PKRU: INIT would open every key.
func decide(s *xstate.State, host *xstate.CPU, o *options) *decision {
	d := &decision{Report: compat.Decide(s, compat.Target{Host: host}, compat.Policy{Force: o.force}), compat: s.Compat}
	if st := s.Status(xstate.PKRU); st == xstate.Absent || st == xstate.Unknown {
		d.keep = xstate.PKRU.Mask()
	}
	if d.Refused {
		return d
	}
	if d.Changed {
		s = d.Apply(s)
	}
	if !*host.XSave {
		d.built = bytes.Clone(s.FX[:])
		return d
	}
	if s.Format == xstate.FormatFXSave {
		s = new(*s)
		s.Format, s.BV = xstate.FormatXSave, xstate.Legacy
	}
	d.built, d.err = s.MarshalArea(host.Layout, int(*host.XSaveSize))
	return d
}

// planned is what one thread is to get.
type planned struct {
	match
	*decision
}

func plan(pairs []match) []planned {
	out := make([]planned, len(pairs))
	for i, p := range pairs {
		out[i] = planned{p, p.image.decision}
	}
	return out
}

// unbuilt returns an error if the image has no area on this machine.
func (p *planned) unbuilt() error {
	if p.err == nil {
		return nil
	}
	return fmt.Errorf("thread %d: image %d: %w", p.live.tid, p.image.tid, p.err)
}

// area completes what was built with the live thread's part, from the register set
// that it has now: the size, which is the kernel's, the mask of MXCSR, which is
// the CPU's, and what is kept. The error says what the kernel would not take, which it
// would tell by a bare EINVAL.
func (p *planned) area(old []byte, layout xstate.Layout) ([]byte, error) {
	if len(old) < xstate.MinArea {
		return nil, fmt.Errorf("thread %d: a register set of %d bytes", p.live.tid, len(old))
	}
	if len(old) != len(p.built) {
		if end := layout.End(xstate.AreaBV(p.built)); end > len(old) {
			return nil, fmt.Errorf("thread %d: image %d: it takes %d bytes, and the register set has %d", p.live.tid, p.image.tid, end, len(old))
		}
		built := make([]byte, len(old))
		copy(built, p.built)
		p.built = built
	}
	layout.Keep(p.built, old, p.keep)
	// The kernel takes tiles only for a thread that has used them: its buffer is
	// enlarged at the first tile instruction (arch/x86/kernel/fpu/xstate.c,
	// __xfd_enable_feature).
	if xstate.AreaBV(p.built).Has(xstate.TileData) && !xstate.AreaBV(old).Has(xstate.TileData) {
		return nil, fmt.Errorf("thread %d: image %d holds AMX tiles, and the thread has not used any yet: "+
			"the kernel takes tiles only for a thread that has executed a tile instruction", p.live.tid, p.image.tid)
	}
	return p.built, nil
}
