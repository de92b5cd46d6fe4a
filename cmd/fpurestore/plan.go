package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// loadError is what is wrong with the images, all of it.
type loadError []error

func (e loadError) Error() string   { return errors.Join(e...).Error() }
func (e loadError) Unwrap() []error { return e }

// loadImages reads the threads of the checkpoint or of the named core images. The
// error is a loadError.
func loadImages(o *options) ([]imageThread, error) {
	var out []imageThread
	var errs loadError
	load := func(path string) {
		info, statErr := os.Stat(path)
		ckpt, err := checkpoint.Open(path)
		if err != nil {
			errs = codec.AppendFault(errs, err)
			return
		}
		errs = codec.AppendFault(errs, ckpt.Problems...)
		for th, err := range ckpt.Threads() {
			if err == nil {
				err = addRaw(th)
			}
			if err != nil {
				errs = codec.AppendFault(errs, err)
				continue
			}
			out = append(out, imageThread{pid: th.PID, tid: th.TID, comm: th.Comm,
				named: statErr == nil && !info.IsDir(), state: th.State})
		}
	}
	if len(o.files) == 0 {
		load(o.dir)
	}
	for _, f := range o.files {
		load(f)
	}
	if errs != nil {
		return nil, errs
	}
	return out, nil
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
	state *xstate.State // the state to put in, the image's if nothing of it changes
	built []byte        // its area for this machine, without the live thread's part
	err   error         // why none could be built
}

// decide asks the policy what this machine means for each image, and builds all that
// needs no live thread: no process has to wait for this. Many are shared out among the
// CPUs.
func decide(images []imageThread, host *xstate.CPU, o *options) {
	const share = 64
	var wg sync.WaitGroup
	for some := range slices.Chunk(images, max(share, (len(images)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))) {
		work := func() {
			for i := range some {
				some[i].decide(host, o)
			}
		}
		if len(some) == len(images) {
			work()
		} else {
			wg.Go(work)
		}
	}
	wg.Wait()
}

func (t *imageThread) decide(host *xstate.CPU, o *options) {
	r := compat.Decide(t.state, compat.Target{Host: host}, compat.Policy{Force: o.force})
	t.decision = &decision{Report: r, state: t.state}
	if r.Changed {
		t.decision.state = r.Apply(t.state)
	}
	if *host.XSave && !r.Refused {
		t.decision.build(host.Layout, int(*host.XSaveSize))
	}
}

// build makes the NT_X86_XSTATE register set of size bytes, by this machine's
// layout. Components without a value in the image become INIT.
func (d *decision) build(layout xstate.Layout, size int) {
	s := d.state
	if s.Format == xstate.FormatFXSave {
		s = new(*s)
		s.Format, s.BV = xstate.FormatXSave, xstate.Legacy
	}
	d.built, d.err = s.MarshalArea(layout, size)
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
// the CPU's, and PKRU where the image has none, since INIT would open every key.
// The error says what the kernel would not take, which it would tell by a bare
// EINVAL.
func (p *planned) area(old []byte, layout xstate.Layout) ([]byte, error) {
	if len(old) < xstate.MinArea {
		return nil, fmt.Errorf("thread %d: a register set of %d bytes", p.live.tid, len(old))
	}
	if len(old) != len(p.built) {
		p.build(layout, len(old))
		if err := p.unbuilt(); err != nil {
			return nil, err
		}
	}
	var keep xstate.Features
	if st := p.image.state.Status(xstate.PKRU); st == xstate.Absent || st == xstate.Unknown {
		keep = xstate.PKRU.Mask()
	}
	layout.Keep(p.built, old, keep)
	// The kernel takes tiles only for a thread that has used them: its buffer is
	// enlarged at the first tile instruction (arch/x86/kernel/fpu/xstate.c,
	// __xfd_enable_feature).
	if xstate.AreaBV(p.built).Has(xstate.TileData) && !xstate.AreaBV(old).Has(xstate.TileData) {
		return nil, fmt.Errorf("thread %d: image %d holds AMX tiles, and the thread has not used any yet: "+
			"the kernel takes tiles only for a thread that has executed a tile instruction", p.live.tid, p.image.tid)
	}
	return p.built, nil
}

// fxArea builds the FXSAVE area of a host without XSAVE.
func (p *planned) fxArea() []byte {
	fx := p.state.FX
	return fx[:]
}
