package bench

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	core_x86 "github.com/checkpoint-restore/go-criu/v8/crit/images/core-x86"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/cpuinfo"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	"google.golang.org/protobuf/proto"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

const images = "../testdata/images"

func read(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func glob(tb testing.TB, pattern string) []string {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(images, pattern))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("nothing matches %s: %v", pattern, err)
	}
	return paths
}

// entries cuts an image file into the protobuf messages that it holds.
func entries(tb testing.TB, path string) [][]byte {
	tb.Helper()
	b := read(tb, path)
	if binary.LittleEndian.Uint32(b) == 0x54564319 { // the common magic of CRIU 1.6 and later
		b = b[4:]
	}
	var out [][]byte
	for b = b[4:]; len(b) > 0; {
		n := binary.LittleEndian.Uint32(b)
		out = append(out, b[4:][:n])
		b = b[4+n:]
	}
	return out
}

func words(v []uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func quads(v []uint64) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// state builds the model's state from go-criu's message.
func state(fp *core_x86.UserX86FpregsEntry) *xstate.State {
	if fp == nil {
		return new(xstate.State)
	}
	s := &xstate.State{Format: xstate.FormatFXSave}
	s.FX.SetFCW(uint16(fp.GetCwd()))
	s.FX.SetFSW(uint16(fp.GetSwd()))
	s.FX.SetFTWRaw(uint16(fp.GetTwd()))
	s.FX.SetFOP(uint16(fp.GetFop()))
	s.FX.SetFIP(fp.GetRip())
	s.FX.SetFDP(fp.GetRdp())
	s.FX.SetMXCSR(fp.GetMxcsr())
	s.FX.SetMXCSRMask(fp.GetMxcsrMask())
	st, xmm := words(fp.GetStSpace()), words(fp.GetXmmSpace())
	s.STLen, s.XMMLen = len(st), len(xmm)
	copy(s.FX.STSpace(), st)
	copy(s.FX.XMMSpace(), xmm)
	x := fp.GetXsave()
	if x == nil {
		return s
	}
	s.Format = xstate.FormatXSave
	s.BV = xstate.Features(x.GetXstateBv())
	s.SetData(xstate.AVX, words(x.GetYmmhSpace()))
	s.SetData(xstate.BNDREGS, quads(x.GetBndregState()))
	s.SetData(xstate.BNDCSR, quads(x.GetBndcsrState()))
	s.SetData(xstate.Opmask, quads(x.GetOpmaskReg()))
	s.SetData(xstate.ZMMHi256, quads(x.GetZmmUpper()))
	s.SetData(xstate.Hi16ZMM, quads(x.GetHi16Zmm()))
	s.SetData(xstate.PKRU, words(x.GetPkru()))
	if cet := x.GetCet(); cet != nil {
		s.ShadowStack = &xstate.ShadowStack{Status: cet.GetCet(), SSP: cet.GetSsp()}
	}
	return s
}

// TestSameCore decodes every real core image with codec and with go-criu.
func TestSameCore(t *testing.T) {
	for _, path := range glob(t, "*/core-*.img") {
		c, err := codec.ParseCore(path, read(t, path))
		if err != nil {
			t.Error(err)
			continue
		}
		var e criu_core.CoreEntry
		// A required field may be missing: the record of an old image.
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(entries(t, path)[0], &e); err != nil {
			t.Errorf("%s: go-criu: %v", path, err)
			continue
		}
		want := state(e.GetThreadInfo().GetFpregs())
		want.Compat = e.GetThreadInfo().GetGpregs().GetMode() == core_x86.UserX86RegsMode_COMPAT
		if got := &c.State; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: codec has\n%+v, go-criu\n%+v", path, got, want)
		}
		comm := e.GetTc().GetComm()
		if tc := e.GetThreadCore(); tc.GetComm() != "" {
			comm = tc.GetComm()
		}
		if c.Comm != comm {
			t.Errorf("%s: comm = %q, go-criu has %q", path, c.Comm, comm)
		}
		if got, want := c.Leader, e.GetTc() != nil; got != want {
			t.Errorf("%s: leader = %v, go-criu says %v", path, got, want)
		}
	}
}

// TestSameCPUInfo does the same with the cpuinfo.img files.
func TestSameCPUInfo(t *testing.T) {
	for _, path := range glob(t, "*/cpuinfo.img") {
		c, err := codec.ParseCPUInfo(path, read(t, path))
		if err != nil {
			t.Error(err)
			continue
		}
		var e cpuinfo.CpuinfoEntry
		if err := proto.Unmarshal(entries(t, path)[0], &e); err != nil {
			t.Errorf("%s: go-criu: %v", path, err)
			continue
		}
		x := e.GetX86Entry()[0]
		got := []any{c.VendorID, c.Family, c.Model, c.Stepping, c.Version, c.Capability, c.ModelID,
			c.XFeaturesMask, c.XSaveSize, c.XSaveSizeMax}
		want := []any{uint32(x.GetVendorId()), x.GetCpuFamily(), x.GetModel(), x.GetStepping(), x.GetCapabilityVer(),
			x.GetCapability(), x.GetModelId(), x.XfeaturesMask, x.XsaveSize, x.XsaveSizeMax}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: codec has\n%v, go-criu\n%v", path, got, want)
		}
	}
}

// TestSamePstree compares the threads that codec lists with go-criu's pstree.img.
func TestSamePstree(t *testing.T) {
	for _, path := range glob(t, "*/pstree.img") {
		c, err := checkpoint.OpenDir(filepath.Dir(path))
		if err != nil {
			t.Error(err)
			continue
		}
		var got, want [][2]int
		for th, err := range c.Threads() {
			if err != nil {
				t.Error(err)
			}
			got = append(got, [2]int{th.PID, th.TID})
		}
		for _, b := range entries(t, path) {
			var e pstree.PstreeEntry
			if err := proto.Unmarshal(b, &e); err != nil {
				t.Fatalf("%s: go-criu: %v", path, err)
			}
			for _, tid := range e.GetThreads() {
				want = append(want, [2]int{int(e.GetPid()), int(tid)})
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: codec has threads %v, go-criu %v", path, got, want)
		}
	}
}

// TestArchNames compares the names of architectures.
func TestArchNames(t *testing.T) {
	b := read(t, filepath.Join(images, "h-avx512/core-20000.img"))
	for v, name := range criu_core.CoreEntryMarch_name {
		if v == int32(criu_core.CoreEntry_X86_64) {
			continue
		}
		img := slices.Clone(b)
		img[13] = byte(v) // the value of mtype, the first field
		_, err := codec.ParseCore("core.img", img)
		if want := "core image of architecture " + strings.ToLower(name) + ", not x86"; err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("march %d: %v, want %q", v, err, want)
		}
	}
}

// BenchmarkCore decodes one AVX-512 core image with codec and with go-criu, in
// turns, so that both meet the same noise. "faster" is the median of the ratios.
func BenchmarkCore(b *testing.B) {
	path := filepath.Join(images, "h-avx512/core-20000.img")
	file, payload := read(b, path), entries(b, path)[0]
	parse := func() {
		if _, err := codec.ParseCore(path, file); err != nil {
			b.Fatal(err)
		}
	}
	unmarshal := func() {
		if err := proto.Unmarshal(payload, new(criu_core.CoreEntry)); err != nil {
			b.Fatal(err)
		}
	}
	const batch = 50
	times := func(f func()) time.Duration {
		start := time.Now()
		for range batch {
			f()
		}
		return time.Since(start)
	}
	var ours, theirs []time.Duration
	var ratios []float64
	for b.Loop() {
		p, u := times(parse), times(unmarshal)
		ours, theirs = append(ours, p), append(theirs, u)
		ratios = append(ratios, float64(u)/float64(p))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours[len(ours)/2])/batch, "codec-ns")
	b.ReportMetric(testing.AllocsPerRun(100, parse), "codec-allocs")
	b.ReportMetric(float64(theirs[len(theirs)/2])/batch, "proto-ns")
	b.ReportMetric(testing.AllocsPerRun(100, unmarshal), "proto-allocs")
	b.ReportMetric(ratios[len(ratios)/2], "faster")
}
