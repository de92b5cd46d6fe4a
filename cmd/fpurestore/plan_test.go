package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

const (
	offMXCSRMask = 28
	offXCR0      = 464
	offXStateBV  = 512
	avx512       = xstate.Features(1<<xstate.AVX) | xstate.AVX512
)

// cpuWith is one that places components as Intel or AMD does.
func cpuWith(set xstate.Features, layout xstate.Layout) *xstate.CPU {
	set |= xstate.Legacy
	return &xstate.CPU{Name: "test", FXSave: new(true), XSave: new(true), XFeatures: &set, Layout: layout,
		XSaveSize: new(uint32(layout.End(set))), MXCSRMask: new(uint32(0xffff)), Flags: []string{}}
}

// filled is a state that has every byte of the given components set.
func filled(set xstate.Features) *xstate.State {
	s := xstate.NewState(xstate.FormatXSave)
	for f := range (set &^ xstate.Legacy).All() {
		s.SetData(f, bytes.Repeat([]byte{0x40 + byte(f)}, f.Component().Size))
		s.BV |= f.Mask()
	}
	return s
}

// oldArea is the register set of a live thread.
func oldArea(t *testing.T, cpu *xstate.CPU, s *xstate.State) []byte {
	t.Helper()
	b, err := s.MarshalArea(cpu.Layout, int(*cpu.XSaveSize))
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint64(b[offXCR0:], uint64(*cpu.XFeatures))
	binary.LittleEndian.PutUint32(b[offMXCSRMask:], 0x2ffff)
	return b
}

// plannedFor plans image 7 for thread 9.
func plannedFor(cpu *xstate.CPU, image *xstate.State, force bool) *planned {
	image7 := imageThread{tid: 7, decision: decide(image, cpu, &options{force: force})}
	return &plan([]match{{image7, liveThread{tid: 9}}})[0]
}

// areaFor plans an image for a machine and builds what the live thread would get.
func areaFor(t *testing.T, cpu *xstate.CPU, image, live *xstate.State, force bool) ([]byte, error) {
	t.Helper()
	p := plannedFor(cpu, image, force)
	if p.Refused {
		return nil, p.Err()
	}
	if err := p.unbuilt(); err != nil {
		return nil, err
	}
	return p.area(oldArea(t, cpu, live), cpu.Layout)
}

// TestAreaLayout builds by the target's places, whatever the source's were.
func TestAreaLayout(t *testing.T) {
	set := avx512 | xstate.PKRU.Mask()
	places := map[string]map[xstate.Feature]int{
		"intel": {xstate.AVX: 576, xstate.Opmask: 1088, xstate.ZMMHi256: 1152, xstate.Hi16ZMM: 1664, xstate.PKRU: 2688},
		"amd":   {xstate.AVX: 576, xstate.Opmask: 832, xstate.ZMMHi256: 896, xstate.Hi16ZMM: 1408, xstate.PKRU: 2432},
	}
	for name, layout := range map[string]xstate.Layout{"intel": xstate.IntelLayout(set), "amd": xstate.AMDLayout(set)} {
		cpu := cpuWith(set, layout)
		image := filled(set)
		image.FX.SetMXCSR(0x1fa0)
		b, err := areaFor(t, cpu, image, xstate.NewState(xstate.FormatXSave), false)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != int(*cpu.XSaveSize) {
			t.Errorf("%s: %d bytes", name, len(b))
		}
		for f, at := range places[name] {
			if want := image.Data(f); !bytes.Equal(b[at:][:len(want)], want) {
				t.Errorf("%s: %v is not at %d", name, f, at)
			}
		}
		if bv := xstate.Features(binary.LittleEndian.Uint64(b[offXStateBV:])); bv != set|xstate.Legacy {
			t.Errorf("%s: XSTATE_BV %v", name, bv)
		}
		if !bytes.Equal(b[520:576], make([]byte, 56)) || !bytes.Equal(b[416:512], make([]byte, 96)) {
			t.Errorf("%s: header or software bytes are not zero", name)
		}
		if v := binary.LittleEndian.Uint32(b[24:]); v != 0x1fa0 {
			t.Errorf("%s: MXCSR %#x", name, v)
		}
		if v := binary.LittleEndian.Uint32(b[offMXCSRMask:]); v != 0x2ffff {
			t.Errorf("%s: the mask of MXCSR is %#x, not the live thread's", name, v)
		}
	}
}

// TestAreaZeroed has INIT put in where the image holds zeros for it, and a word that a
// thread had loaded stays.
func TestAreaZeroed(t *testing.T) {
	cpu := cpuWith(avx512, xstate.IntelLayout(avx512))
	for name, tt := range map[string]struct {
		bv         xstate.Features
		fcw, mxcsr uint32
	}{
		"both":     {0, xstate.InitFCW, xstate.InitMXCSR},
		"x87":      {xstate.SSE.Mask(), xstate.InitFCW, 0},
		"x87, AVX": {xstate.AVX.Mask(), xstate.InitFCW, 0},
		"SSE":      {xstate.X87.Mask(), 0, xstate.InitMXCSR},
		"neither":  {xstate.Legacy, 0, 0},
	} {
		image := filled(tt.bv)
		image.BV = tt.bv
		image.FX.SetFCW(0)
		image.FX.SetMXCSR(0)
		b, err := areaFor(t, cpu, image, filled(avx512), false)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if fcw, mxcsr := uint32(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint32(b[24:]); fcw != tt.fcw || mxcsr != tt.mxcsr {
			t.Errorf("%s: fcw %#x mxcsr %#x, want %#x %#x", name, fcw, mxcsr, tt.fcw, tt.mxcsr)
		}
		if bv := xstate.AreaBV(b); !bv.Has(xstate.X87) || !bv.Has(xstate.SSE) {
			t.Errorf("%s: XSTATE_BV %v leaves the words unread", name, bv)
		}
	}
}

// TestAreaInit has components that the image lacks become INIT, but not PKRU.
func TestAreaInit(t *testing.T) {
	set := avx512 | xstate.PKRU.Mask()
	cpu := cpuWith(set, xstate.AMDLayout(set))
	live := filled(set)
	unrecorded := xstate.NewState(xstate.FormatFXSave) // an ELF core's
	unrecorded.Unknown = xstate.User() &^ xstate.Legacy
	if _, err := areaFor(t, cpu, unrecorded, live, false); err == nil {
		t.Error("what is unknown is restored")
	}
	for name, image := range map[string]*xstate.State{
		"fxsave": xstate.NewState(xstate.FormatFXSave), "none": {}, "xsave": xstate.NewState(xstate.FormatXSave), "unknown": unrecorded,
		"data without bits": func() *xstate.State { s := filled(avx512); s.BV = xstate.Legacy; return s }(),
	} {
		b, err := areaFor(t, cpu, image, live, image.Unknown != 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, err := xstate.ParseArea(b, cpu.Layout)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.BV != xstate.Legacy|xstate.PKRU.Mask() {
			t.Errorf("%s: XSTATE_BV %v", name, s.BV)
		}
		if !bytes.Equal(s.Data(xstate.PKRU), live.Data(xstate.PKRU)) {
			t.Errorf("%s: PKRU %x, want the live %x", name, s.Data(xstate.PKRU), live.Data(xstate.PKRU))
		}
		if s.FX.FCW() != xstate.InitFCW || s.FX.MXCSR() != xstate.InitMXCSR {
			t.Errorf("%s: fcw %#x mxcsr %#x", name, s.FX.FCW(), s.FX.MXCSR())
		}
	}
	// The image's PKRU wins, INIT too where it says so.
	zero := xstate.NewState(xstate.FormatXSave)
	zero.SetData(xstate.PKRU, make([]byte, 8))
	for name, image := range map[string]*xstate.State{"init": zero, "in use": filled(xstate.PKRU.Mask())} {
		b, err := areaFor(t, cpu, image, filled(avx512|xstate.PKRU.Mask()), false)
		if err != nil {
			t.Fatal(err)
		}
		s, err := xstate.ParseArea(b, cpu.Layout)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.Value(xstate.PKRU), image.Value(xstate.PKRU)) {
			t.Errorf("%s: PKRU %x, want the image's %x", name, s.Value(xstate.PKRU), image.Value(xstate.PKRU))
		}
	}
	// A live PKRU of 0 has no bit, and gets none.
	b, err := areaFor(t, cpu, xstate.NewState(xstate.FormatFXSave), xstate.NewState(xstate.FormatXSave), false)
	if err != nil || xstate.Features(binary.LittleEndian.Uint64(b[offXStateBV:])) != xstate.Legacy {
		t.Errorf("%x, %v", b[offXStateBV:][:8], err)
	}
}

// TestAreaRefused finds what the kernel would not take.
func TestAreaRefused(t *testing.T) {
	set := avx512
	cpu := cpuWith(set, xstate.AMDLayout(set))
	withTiles := cpuWith(set|tileSet, xstate.IntelLayout(set|tileSet))
	mxcsr := xstate.NewState(xstate.FormatXSave)
	mxcsr.FX.SetMXCSR(0x21f80)
	mxcsr.FX.SetMXCSRMask(0x2ffff)
	unknown := xstate.NewState(xstate.FormatXSave)
	unknown.BV |= 1 << 40
	for _, tt := range []struct {
		name        string
		cpu         *xstate.CPU
		image, live *xstate.State
		force       bool
		want        string // "" if it is taken
	}{
		{"component that the machine lacks", cpu, filled(xstate.PKRU.Mask()), &xstate.State{}, false, "PKRU"},
		{"stripped", cpu, filled(xstate.PKRU.Mask()), &xstate.State{}, true, ""},
		{"MXCSR bit that the machine lacks", cpu, mxcsr, &xstate.State{}, false, "MXCSR"},
		{"MXCSR bit, stripped", cpu, mxcsr, &xstate.State{}, true, ""},
		{"tiles, unused", withTiles, filled(tileSet), filled(1 << xstate.TileCfg), false, "thread 9: image 7 holds AMX tiles"},
		{"tiles, used", withTiles, filled(tileSet), filled(tileSet), false, ""},
		{"tiles, taken away", withTiles, filled(xstate.AVX.Mask()), filled(tileSet), false, ""},
		{"unknown bits", cpu, unknown, &xstate.State{}, false, ""},
	} {
		live := tt.live
		if live.Format == xstate.FormatNone {
			live = xstate.NewState(xstate.FormatXSave)
		}
		b, err := areaFor(t, tt.cpu, tt.image, live, tt.force)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		case err == nil:
			if extra := xstate.Features(binary.LittleEndian.Uint64(b[offXStateBV:])) &^ *tt.cpu.XFeatures; extra != 0 {
				t.Errorf("%s: XSTATE_BV has %v", tt.name, extra)
			}
			if m := binary.LittleEndian.Uint32(b[24:]) &^ *tt.cpu.MXCSRMask; m != 0 {
				t.Errorf("%s: MXCSR has %#x", tt.name, m)
			}
		}
	}
	p := plannedFor(cpu, filled(0), false)
	if _, err := p.area(make([]byte, 100), cpu.Layout); err == nil || !strings.Contains(err.Error(), "100 bytes") {
		t.Errorf("a short register set: %v", err)
	}
	// A kernel whose register set is larger than CPUID says.
	if b, err := p.area(make([]byte, 4096), cpu.Layout); err != nil || len(b) != 4096 {
		t.Errorf("a long register set: %d bytes, %v", len(b), err)
	}
}

const tileSet = xstate.Features(1<<xstate.TileCfg | 1<<xstate.TileData)

// TestSaveRaw keeps what a core image has no field for, until the image is
// converted.
func TestSaveRaw(t *testing.T) {
	set := avx512 | tileSet
	cpu := cpuWith(set, xstate.IntelLayout(set))
	state := filled(set)
	dir := filepath.Join(t.TempDir(), "saved")
	j := &job{o: &options{save: dir}, cpu: cpu, tasks: []codec.SavedTask{{PID: 9, TIDs: []int{9}}},
		saved: []savedThread{{liveThread: liveThread{pid: 9, tid: 9, comm: "a\xff b"}, area: oldArea(t, cpu, state), xsave: true}}}
	if err := j.save(func() error { return nil }); err != nil || j.unsaved != nil {
		t.Fatal(err, j.unsaved)
	}
	var loaded []*xstate.State
	keep := func(_ imageThread, s *xstate.State) { loaded = append(loaded, s.Clone()) }
	load := func() *xstate.State {
		t.Helper()
		loaded = nil
		if err := loadImages(&options{dir: dir}, keep); err != nil || len(loaded) != 1 {
			t.Fatal(loaded, err)
		}
		return loaded[0]
	}
	s := load()
	for f := range set.All() {
		if s.Status(f) != xstate.InUse || !bytes.Equal(s.Data(f), state.Data(f)) {
			t.Errorf("%v is %v", f, s.Status(f))
		}
	}
	raw := filepath.Join(dir, rawName(9))
	whole, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	// Damage is told, with the file's name.
	for _, b := range [][]byte{whole[:600], append(bytes.Clone(whole[:530]), append([]byte{1}, whole[531:]...)...)} {
		if err := os.WriteFile(raw, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var format *codec.FormatError
		if err := loadImages(&options{dir: dir}, keep); !errors.As(err, &format) || format.Path != raw {
			t.Errorf("damaged: %v", err)
		}
	}
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	if s := load(); s.Status(xstate.TileData) != xstate.Lost {
		t.Errorf("without the raw register set: %v", s.Status(xstate.TileData))
	}
	// A converted image no longer asks for it.
	if err := os.WriteFile(raw, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	ckpt, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for thread, err := range ckpt.Threads() {
		if err != nil {
			t.Fatal(err)
		}
		fx := thread.State.Clone()
		for f := range fx.Recorded().All() {
			fx.SetData(f, nil)
		}
		fx.Format, fx.BV = xstate.FormatFXSave, 0
		b, err := thread.Image.Encode(fx)
		if err == nil {
			err = os.WriteFile(thread.Image.Path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := load(); s.Format != xstate.FormatFXSave || s.Data(xstate.TileData) != nil || s.Data(xstate.AVX) != nil {
		t.Errorf("converted: %v with %v", s.Format, s.Recorded())
	}
}

// TestDamaged: what force can lift of one image, it cannot of another, and then
// nothing proposes it.
func TestDamaged(t *testing.T) {
	cpu := cpuWith(avx512, xstate.IntelLayout(avx512))
	lost := xstate.NewState(xstate.FormatXSave)
	lost.BV |= xstate.AVX.Mask()
	short := filled(avx512)
	short.SetData(xstate.AVX, make([]byte, 8))
	for _, tt := range []struct {
		states []*xstate.State
		force  bool
	}{{[]*xstate.State{lost}, true}, {[]*xstate.State{lost, short}, false}, {[]*xstate.State{short, lost}, false}} {
		j := &job{o: &options{restore: true}, cpu: cpu}
		for i, s := range tt.states {
			j.images = append(j.images, imageThread{tid: 7 + i, decision: decide(s, cpu, j.o)})
			j.threads = append(j.threads, liveThread{tid: 7 + i, nsTID: 7 + i})
		}
		err := j.match()
		if damaged, ok := errors.AsType[*damagedError](err); exitCode(err) != cli.Damaged || !ok || damaged.force != tt.force {
			t.Errorf("%d images: exit %d, %+v, want force %t", len(tt.states), exitCode(err), err, tt.force)
		}
		for _, th := range j.judged.Threads {
			for _, f := range th.Findings {
				if propose := slices.ContainsFunc(f.Remedies, func(r compat.Remedy) bool { return r.Kind == compat.ClearBits }); propose != tt.force {
					t.Errorf("%d images: thread %d: %+v", len(tt.states), th.TID, f)
				}
			}
		}
	}
}
