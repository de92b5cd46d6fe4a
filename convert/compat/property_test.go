package compat_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// randomState returns a state as a core image could hold it, most of them whole.
func randomState(r *rand.Rand) *xstate.State {
	s := xstate.NewState(xstate.Format(r.IntN(3)))
	s.Compat = r.IntN(8) == 0
	if s.Format == xstate.FormatNone {
		return s
	}
	fill := func(b []byte) {
		for range r.IntN(4) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
	}
	fill(s.FX.STSpace())
	fill(s.FX.XMMSpace())
	if r.IntN(2) == 0 {
		s.FX.SetFCW(uint16(r.Uint32()))
	}
	mask := []uint32{0, 0xffff, 0x2ffff}[r.IntN(3)]
	s.FX.SetMXCSRMask(mask)
	if r.IntN(2) == 0 {
		s.FX.SetMXCSR(r.Uint32() & max(mask, 0xffbf))
	}
	switch r.IntN(16) {
	case 0:
		s.STLen = r.IntN(140)
	case 1:
		s.FX.SetMXCSR(r.Uint32())
	case 2:
		s.Wide = []string{"fcw"}
	}
	if s.Format != xstate.FormatXSave {
		return s
	}
	for f := range codec.Storable.All() {
		switch r.IntN(4) {
		case 0, 1:
			data := make([]byte, f.Component().Size)
			fill(data)
			if r.IntN(40) == 0 {
				data = data[:r.IntN(len(data))]
			}
			s.SetData(f, data)
			if r.IntN(3) > 0 {
				s.BV |= f.Mask()
			}
		case 2:
			if r.IntN(20) == 0 {
				s.BV |= f.Mask() // lost
			}
		}
	}
	if r.IntN(10) == 0 {
		s.BV |= 1 << r.IntN(64)
	}
	if r.IntN(8) == 0 {
		zeroed(s.BV &^ (xstate.Features(r.Uint64N(8))))(s)
	}
	if r.IntN(3) == 0 {
		s.ShadowStack = &xstate.ShadowStack{Status: r.Uint64N(4), SSP: r.Uint64()}
	}
	return s
}

// randomTarget returns a target: a format, a host or both.
func randomTarget(r *rand.Rand) compat.Target {
	var t compat.Target
	kind := r.IntN(4)
	if kind != 0 {
		t = to(xstate.Format(r.IntN(3)))
		if *t.Format == xstate.FormatXSave && r.IntN(2) == 0 {
			set := xstate.Features(r.Uint64N(1 << 20))
			t.Features = &set
		}
	}
	if kind < 2 {
		hosts := []*xstate.CPU{haswell, wide, plain, masked, bare, blank,
			machine(xstate.Features(r.Uint64N(1<<20)) | xstate.Legacy)}
		t.Host = hosts[r.IntN(len(hosts))]
	}
	return t
}

func describe(s *xstate.State, t compat.Target) string {
	target := ""
	if t.Format != nil {
		target = "to " + t.Format.String()
	}
	if t.Features != nil {
		target += " features " + t.Features.String()
	}
	if t.Host != nil {
		target += " host " + t.Host.Name
		if t.Host.XFeatures != nil {
			target += " " + t.Host.XFeatures.String()
		}
	}
	return fmt.Sprintf("state %v bv %v recorded %v mxcsr %#x mask %#x shadow stack %+v, %s", s.Format, s.BV, s.Recorded(),
		s.FX.MXCSR(), s.FX.MXCSRMask(), s.ShadowStack, target)
}

// checkDecision states what holds of every decision and of the state that it makes.
func checkDecision(t *testing.T, s *xstate.State, target compat.Target, force bool) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s, force %t: %s", describe(s, target), force, fmt.Sprintf(format, args...))
	}
	before := s.Clone()
	policy := compat.Policy{Force: force}
	r := compat.Decide(s, target, policy)
	if again := compat.Decide(s, target, policy); !reflect.DeepEqual(r, again) {
		fail("decided twice, and differently")
	}
	if !reflect.DeepEqual(s, before) {
		fail("Decide changed the state")
	}

	whole := mended(s, r)
	// The verdict and the losses say the same.
	if (len(r.Lost) > 0) != (r.Verdict == compat.DowngradeLossy) && r.Verdict != compat.Damaged {
		fail("verdict %v, lost %v", r.Verdict, r.Lost)
	}
	if r.Verdict != compat.Damaged && r.Refused != (!force && r.Verdict != compat.Compatible) {
		fail("verdict %v, refused %t", r.Verdict, r.Refused)
	}
	for _, l := range r.Lost {
		want := whole.Used(l.Component)
		switch {
		case l.Component == xstate.CETUser:
			want = []string{"ssp"}
		case l.Component == xstate.SSE && r.To != xstate.FormatNone:
			want = []string{"mxcsr"}
		}
		if !slices.Equal(l.Registers, want) || len(want) == 0 {
			fail("%v loses %v, want %v", l.Component, l.Registers, want)
		}
	}
	if r.Refused {
		return
	}

	out := r.Apply(s)
	if !reflect.DeepEqual(s, before) {
		fail("Apply changed the state")
	}
	if changed := !sameRecord(s, out); changed != r.Changed {
		fail("report says changed %t, the record says %t", r.Changed, changed)
	}
	// What is gone was named, and what was named is gone.
	for f := range xstate.Known.All() {
		named := slices.ContainsFunc(r.Lost, func(l compat.Loss) bool { return l.Component == f })
		if before, after := whole.Used(f), out.Used(f); !named && !slices.Equal(before, after) {
			if f == xstate.PKRU && defaultPKRU(s) {
				continue
			}
			fail("%v had %v in use and now %v, and no loss is named", f, before, after)
		} else if named && f != xstate.SSE && f != xstate.CETUser && len(after) > 0 {
			fail("%v is lost by name and still has %v", f, after)
		}
	}
	// There is nothing left to do.
	second := compat.Decide(out, target, policy)
	if second.Verdict != compat.Compatible || second.Changed || second.Refused || len(second.Lost) > 0 {
		fail("a second decision: %s", summary(second))
	}
	for _, d := range second.Decisions {
		if d.Action != compat.Keep {
			fail("a second decision would %v %v", d.Action, d.Component)
		}
	}
	if careful := compat.Decide(out, target, compat.Policy{}); careful.Refused || careful.Changed {
		fail("a second decision without force: %s", summary(careful))
	}
}

// mended returns the state with INIT in the words that the report finds zeroed.
func mended(s *xstate.State, r *compat.Report) *xstate.State {
	s = s.Clone()
	for _, f := range r.Findings {
		if f.Rule == compat.InitZeroed && slices.Contains(f.Components, "x87") {
			s.FX.SetFCW(xstate.InitFCW)
		}
		if f.Rule == compat.InitZeroed && slices.Contains(f.Components, "SSE") {
			s.FX.SetMXCSR(xstate.InitMXCSR)
		}
	}
	return s
}

func defaultPKRU(s *xstate.State) bool {
	v := s.View(xstate.PKRU)
	return bytes.Equal(v[:4], []byte{0x54, 0x55, 0x55, 0x55}) || bytes.Equal(v[:4], []byte{0, 0, 0, 0})
}

// sameRecord reports whether two states make the same FPU record.
func sameRecord(a, b *xstate.State) bool {
	if a.Format != b.Format || a.BV != b.BV || !reflect.DeepEqual(a.ShadowStack, b.ShadowStack) {
		return false
	}
	if a.Format != xstate.FormatNone && (a.FX != b.FX || a.STLen != b.STLen || a.XMMLen != b.XMMLen) {
		return false
	}
	for f := range (xstate.Known &^ xstate.Legacy).All() {
		if !bytes.Equal(a.Data(f), b.Data(f)) {
			return false
		}
	}
	return true
}

// convertTo applies a forced conversion.
func convertTo(t *testing.T, s *xstate.State, target compat.Target) (*compat.Report, *xstate.State) {
	t.Helper()
	r := compat.Decide(s, target, compat.Policy{Force: true})
	if r.Refused {
		t.Fatalf("%s: a forced conversion is refused: %s", describe(s, target), summary(r))
	}
	return r, r.Apply(s)
}

// checkRoundTrips states what holds of ways there and back.
func checkRoundTrips(t *testing.T, s *xstate.State) {
	t.Helper()
	r, down := convertTo(t, s, to(xstate.FormatFXSave))
	if _, again := convertTo(t, down, to(xstate.FormatFXSave)); !reflect.DeepEqual(down, again) {
		t.Errorf("%s: down twice is not down once", describe(s, compat.Target{}))
	}
	_, up := convertTo(t, down, to(xstate.FormatXSave))
	if s.Format != xstate.FormatNone && up.FX != mended(s, r).FX {
		t.Errorf("%s: down and up changed the legacy area", describe(s, compat.Target{}))
	}
	if _, back := convertTo(t, up, to(xstate.FormatFXSave)); !reflect.DeepEqual(back, down) {
		t.Errorf("%s: up and down is not where it began", describe(down, compat.Target{}))
	}
	if s.Format == xstate.FormatFXSave && (r.Changed || !reflect.DeepEqual(down, s)) {
		t.Errorf("%s: fxsave to fxsave changed it", describe(s, compat.Target{}))
	}
	if s.Format == xstate.FormatNone {
		_, up := convertTo(t, s, to(xstate.FormatXSave))
		if _, back := convertTo(t, up, to(xstate.FormatNone)); !reflect.DeepEqual(back, s) {
			t.Errorf("none, up and down, is not none")
		}
		if up.FX != xstate.InitFXArea() {
			t.Errorf("none, up, is not INIT")
		}
	}
}

// TestProperties checks decisions about 5000 random states, or one in [testcmd.Step] of so
// many. The seed is logged.
func TestProperties(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	damaged, lossy := 0, 0
	n := 5000 / testcmd.Step
	for range n {
		s, target, force := randomState(r), randomTarget(r), r.IntN(2) == 0
		checkDecision(t, s, target, force)
		switch report := compat.Decide(s, target, compat.Policy{Force: true}); {
		case report.Verdict == compat.Damaged:
			damaged++
		case report.Verdict == compat.DowngradeLossy:
			lossy++
		}
		if whole := compat.Decide(s, compat.Target{}, compat.Policy{Force: true}); !whole.Refused {
			checkRoundTrips(t, s)
		}
		if t.Failed() {
			t.FailNow() // one state says enough
		}
	}
	// The generator must reach both.
	if damaged < n/100 || lossy < n/20 {
		t.Errorf("of %d states %d were damaged and %d lossy", n, damaged, lossy)
	}
}

// FuzzApply decides about whatever core image the bytes make.
func FuzzApply(f *testing.F) {
	for _, seed := range coreSeeds(f) {
		f.Add(seed, byte(1), uint32(7), true)
		f.Add(seed, byte(5), uint32(0x2ff), false)
	}
	f.Fuzz(func(t *testing.T, image []byte, format byte, set uint32, force bool) {
		core, err := codec.ParseCore("core.img", image)
		if err != nil || core.Dead {
			return
		}
		target := to(xstate.Format(format % 3))
		switch format / 3 % 4 {
		case 1:
			features := xstate.Features(set)
			target.Format, target.Features = new(xstate.FormatXSave), &features
		case 2:
			target = onHost(machine(xstate.Features(set) | xstate.Legacy))
		case 3:
			target.Host = plain
		}
		checkDecision(t, &core.State, target, force)
		r := compat.Decide(&core.State, target, compat.Policy{Force: force})
		if r.Refused {
			return
		}
		want := r.Apply(&core.State)
		b, err := core.Encode(want)
		if err != nil {
			t.Fatalf("an applied state cannot be encoded: %v", err)
		}
		got, err := codec.ParseCore("core.img", b)
		if err != nil {
			t.Fatalf("an encoded state cannot be parsed: %v", err)
		}
		if !sameRecord(&got.State, want) {
			t.Errorf("encoded and parsed: %s, want %s", describe(&got.State, target), describe(want, target))
		}
		if !r.Changed && !bytes.Equal(b, image) {
			t.Error("nothing to change, and the image differs")
		}
	})
}

// coreSeeds returns some real core images, whole and damaged.
func coreSeeds(f *testing.F) [][]byte {
	var seeds [][]byte
	for _, name := range []string{"h-avx512", "h-amx", "h-init", "old-nofpregs", "old-x87zeroed", "old-ymmonly", "g-max-criu42-pkru4", "s-host-sse", "bad"} {
		paths := testimg.Glob(f, name+"/*.img")
		for _, path := range paths {
			if base := filepath.Base(path); name == "bad" || strings.HasPrefix(base, "core-") {
				seeds = append(seeds, testimg.Read(f, testimg.Name(f, path)))
			}
		}
	}
	return seeds
}
