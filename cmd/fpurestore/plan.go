package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// loadImages reads the threads of the checkpoint or of the named core images.
func loadImages(o *options) ([]imageThread, error) {
	var out []imageThread
	var errs []error
	load := func(path string) {
		ckpt, err := codec.Open(path)
		if err != nil {
			errs = append(errs, err)
			return
		}
		errs = append(errs, ckpt.Problems...)
		for th, err := range ckpt.Threads() {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			state := &th.Core.State
			raw, err := rawState(th)
			if err != nil {
				errs = append(errs, err)
			}
			if raw != nil {
				raw.Compat, raw.ShadowStack = state.Compat, state.ShadowStack
				state = raw
			}
			out = append(out, imageThread{th.PID, th.TID, th.Core.Comm, state})
		}
	}
	if len(o.files) == 0 {
		load(o.dir)
	}
	for _, f := range o.files {
		load(f)
	}
	return out, errors.Join(errs...)
}

func rawName(tid int) string { return fmt.Sprintf("xstate-%d.bin", tid) }

// rawState reads the register set that --save has kept beside a core image, for
// what the image has no field for. It returns nil if there is none.
func rawState(th codec.Thread) (*xstate.State, error) {
	path := filepath.Join(filepath.Dir(th.Core.Path), rawName(th.TID))
	b, err := codec.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	layout := xstate.GuessLayout(xstate.AreaXCR0(b), len(b))
	if layout == nil {
		return nil, &codec.FormatError{Path: path, Field: "register set",
			Err: fmt.Errorf("no CPU has %d bytes for the components %v", len(b), xstate.AreaXCR0(b))}
	}
	s, err := xstate.ParseArea(b, layout)
	var area *xstate.AreaError
	if errors.As(err, &area) {
		return nil, &codec.FormatError{Path: path, Offset: int64(area.Offset), Field: area.Field, Err: errors.New(area.Reason)}
	}
	return s, err
}

// planned is what one thread is to get.
type planned struct {
	match
	*compat.Report
	state *xstate.State // the state to put in
}

// plan asks the policy what this machine means for each image.
func plan(pairs []match, host *xstate.CPU, o *options, command string) []planned {
	out := make([]planned, len(pairs))
	for i, p := range pairs {
		r := compat.Decide(p.image.state, compat.Target{Host: host, Command: command}, compat.Policy{Force: o.force})
		out[i] = planned{match: p, Report: r, state: r.Apply(p.image.state)}
	}
	return out
}

// area builds the NT_X86_XSTATE register set for a thread from its new state and
// the set that it has now. The size is the kernel's, the layout this machine's.
//
// Components without a value in the image become INIT, except PKRU: INIT would open
// every key, so it keeps its live value. The error says what the kernel would not
// take, which it would tell by a bare EINVAL.
func (p *planned) area(old []byte, layout xstate.Layout) ([]byte, error) {
	s := p.state.Clone()
	if s.Format == xstate.FormatFXSave {
		s.Format, s.BV = xstate.FormatXSave, xstate.Legacy
	}
	live, err := xstate.ParseArea(old, layout)
	if err != nil {
		return nil, fmt.Errorf("the live register set: %w", err)
	}
	// Data without its bit is INIT, and needs no place.
	for f := range (s.Recorded() &^ s.BV).All() {
		s.SetData(f, nil)
	}
	if p.image.state.Status(xstate.PKRU) == xstate.Absent {
		s.BV &^= xstate.PKRU.Mask()
		s.SetData(xstate.PKRU, live.Data(xstate.PKRU))
		s.BV |= live.BV & xstate.PKRU.Mask()
	}
	// The kernel takes tiles only for a thread that has used them: its buffer is
	// enlarged at the first tile instruction (arch/x86/kernel/fpu/xstate.c,
	// __xfd_enable_feature).
	if s.BV.Has(xstate.TileData) && !live.BV.Has(xstate.TileData) {
		return nil, errors.New("the image holds AMX tiles, and the thread has not used any yet: " +
			"the kernel takes tiles only for a thread that has executed a tile instruction")
	}
	return s.MarshalArea(layout, len(old))
}

// fxArea builds the FXSAVE area of a host without XSAVE.
func (p *planned) fxArea() []byte {
	fx := p.state.FX
	return fx[:]
}

// saved is the live state of one thread, for --save.
type saved struct {
	liveThread
	gp     [27]uint64
	area   []byte // NT_X86_XSTATE, or the FXSAVE area
	xsave  bool
	compat bool
	ssp    *uint64
}

// writeSave writes a small images directory. It is built under a hidden name and
// appears by one rename.
func writeSave(dir string, tasks []codec.SavedTask, threads []saved, layout xstate.Layout) error {
	if _, err := os.Lstat(dir); err == nil {
		return &fs.PathError{Op: "create", Path: dir, Err: fs.ErrExist}
	}
	stage, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".fpurestore-")
	if err != nil {
		return err
	}
	err = fillSave(stage, tasks, threads, layout)
	if err == nil {
		err = os.Rename(stage, dir)
	}
	if err != nil {
		os.RemoveAll(stage)
	}
	return err
}

func fillSave(dir string, tasks []codec.SavedTask, threads []saved, layout xstate.Layout) error {
	for _, t := range threads {
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
		core, err := codec.MarshalCore(codec.SavedThread{PID: t.pid, TID: t.tid, Comm: t.comm, GPRegs: t.gp, State: s})
		if err != nil {
			return fmt.Errorf("thread %d: %w", t.tid, err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("core-%d.img", t.tid)), core, 0o600); err != nil {
			return err
		}
		if s.BV&^(codec.Storable|xstate.Legacy) != 0 {
			if err := os.WriteFile(filepath.Join(dir, rawName(t.tid)), t.area, 0o600); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "pstree.img"), codec.MarshalPstree(tasks), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "inventory.img"), codec.MarshalInventory(), 0o600)
}

// userRegs decodes NT_PRSTATUS of a 64-bit thread, 27 words, or of a 32-bit one, 17
// words of 32 bits in another order (arch/x86/include/asm/user_32.h).
func userRegs(b []byte) (gp [27]uint64) {
	if len(b) >= 27*8 {
		for i := range gp {
			gp[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		return gp
	}
	// bx cx dx si di bp ax ds es fs gs orig_ax ip cs flags sp ss
	order := [17]int{5, 11, 12, 13, 14, 4, 10, 23, 24, 25, 26, 15, 16, 17, 18, 19, 20}
	for i, to := range order {
		if len(b) >= 4*i+4 {
			gp[to] = uint64(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	return gp
}
