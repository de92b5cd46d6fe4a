package ptrace

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// faulty makes chosen calls fail, and can do something before one.
type faulty struct {
	Backend
	calls  int
	fail   func(call int, name string) error
	before func(call int, name string)
	names  []string
}

func (f *faulty) call(name string) error {
	f.calls++
	f.names = append(f.names, name)
	if f.before != nil {
		f.before(f.calls, name)
	}
	if f.fail != nil {
		return f.fail(f.calls, name)
	}
	return nil
}

func (f *faulty) Open(pid int) (Status, error) {
	if err := f.call("Open"); err != nil {
		return Status{}, err
	}
	return f.Backend.Open(pid)
}

func (f *faulty) Alive(pid int) error {
	if err := f.call("Alive"); err != nil {
		return err
	}
	return f.Backend.Alive(pid)
}

func (f *faulty) Tasks(pid int) ([]int, error) {
	if err := f.call("Tasks"); err != nil {
		return nil, err
	}
	return f.Backend.Tasks(pid)
}

func (f *faulty) Only(pid int, tids []int) bool {
	return f.call("Only") == nil && f.Backend.Only(pid, tids)
}

func (f *faulty) Status(pid, tid int) (Status, error) {
	if err := f.call("Status"); err != nil {
		return Status{}, err
	}
	return f.Backend.Status(pid, tid)
}

func (f *faulty) Seize(tid int) error {
	if err := f.call("Seize"); err != nil {
		return err
	}
	return f.Backend.Seize(tid)
}

func (f *faulty) Interrupt(tid int) error {
	if err := f.call("Interrupt"); err != nil {
		return err
	}
	return f.Backend.Interrupt(tid)
}

func (f *faulty) Poll(tid int) (unix.WaitStatus, bool, error) {
	// Counted only when it would tell something, or the number of calls would
	// depend on how fast the threads stop.
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, tid, &info, unix.WEXITED|unix.WSTOPPED|unix.WALL|unix.WNOHANG|unix.WNOWAIT, nil)
	if err == nil && info.Signo == 0 {
		return 0, false, nil
	}
	if err := f.call("Poll"); err != nil {
		return 0, false, err
	}
	return f.Backend.Poll(tid)
}

func (f *faulty) NewThread(tid int) (int, error) {
	if err := f.call("NewThread"); err != nil {
		return 0, err
	}
	return f.Backend.NewThread(tid)
}

func (f *faulty) GetRegset(tid, nt int, buf []byte) (int, error) {
	if err := f.call("GetRegset"); err != nil {
		return 0, err
	}
	return f.Backend.GetRegset(tid, nt, buf)
}

func (f *faulty) SetRegset(tid, nt int, buf []byte) error {
	if err := f.call("SetRegset"); err != nil {
		return err
	}
	return f.Backend.SetRegset(tid, nt, buf)
}

func (f *faulty) Detach(tid, sig int) error {
	if err := f.call("Detach"); err != nil {
		return err
	}
	return f.Backend.Detach(tid, sig)
}

// restore is a whole restore as a caller does it; it flips every thread.
func restore(b Backend, patience time.Duration, tids []int, pids ...int) (swapped bool, err error) {
	t, err := OpenBackend(b, pids...)
	if err != nil {
		return false, err
	}
	defer func() {
		err = errors.Join(err, t.Close())
		if t.left || len(t.threads) > 0 {
			err = errors.Join(err, fmt.Errorf("left attached: %d", len(t.threads)))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t.Reserve(4 << 10) // for some of the threads
	if err := t.Stop(ctx); err != nil {
		return false, err
	}
	areas := make(map[int]Area)
	for _, tid := range tids {
		a, err := t.Read(tid)
		if err != nil {
			return false, err
		}
		areas[tid] = Area{a.Set, flip(a.Data)}
	}
	if err := t.Swap(areas); err != nil {
		return false, err
	}
	return true, t.detach()
}

// TestFaults fails the calls that [testcmd.Points] picks, another quarter with each error.
// Afterwards, whatever the error was, every thread has its old state, or every one its new
// state if Swap had succeeded, and nothing is attached.
func TestFaults(t *testing.T) {
	t.Parallel()
	g := start(t, config{threads: 5, mode: "yield", full: true})
	tids := g.tids()
	want := make(map[int][]byte)
	for tid, b := range g.given() {
		want[tid] = b
	}
	probe := &faulty{Backend: NewSystem()}
	if ok, err := restore(probe, patience, tids, g.PID); !ok || err != nil {
		t.Fatal(err)
	}
	for tid := range want {
		want[tid] = flip(want[tid])
	}
	g.expect(want)
	for turn, errno := range []unix.Errno{unix.EIO, unix.ESRCH, unix.EPERM, unix.ECHILD} {
		failed := make(map[string]int)
		for at := range testcmd.Points(probe.calls, turn) {
			f := &faulty{Backend: NewSystem()}
			var name string
			f.fail = func(call int, n string) error {
				if call == at {
					name = n
					return errno
				}
				return nil
			}
			var swapped bool
			var err error
			apart(t, func() { swapped, err = restore(f, 100*time.Millisecond, tids, g.PID) })
			failed[name]++
			var re *RestoreError
			if errors.As(err, &re) {
				t.Fatalf("%v at call %d (%s): %v", errno, at, name, err)
			}
			if swapped {
				for tid := range want {
					want[tid] = flip(want[tid])
				}
			}
			if g.untraced(); !t.Failed() {
				g.expect(want)
			}
			if t.Failed() {
				t.Fatalf("%v at call %d (%s): %v", errno, at, name, err)
			}
		}
		t.Logf("%v: %v", errno, failed)
	}
}

// TestBroken fails every register access from some call on: what cannot be put
// back is named, and everything else has its old state.
func TestBroken(t *testing.T) {
	g := start(t, config{threads: 5, mode: "yield", full: true})
	tids := g.tids()
	for _, errno := range []unix.Errno{unix.EIO, unix.ESRCH} {
		for at := 1; at <= 5*4+2; at++ {
			tr, err := OpenBackend(NewSystem(), g.PID)
			if err != nil {
				t.Fatal(err)
			}
			stop(t, tr)
			old := readAll(t, tr, tids)
			f := &faulty{Backend: tr.b}
			f.fail = func(call int, name string) error {
				if name == "SetRegset" && call >= 5+at {
					return errno
				}
				return nil
			}
			tr.b = f
			areas := make(map[int]Area)
			for tid, b := range old {
				areas[tid] = Area{XState, flip(b)}
			}
			err = tr.Swap(areas)
			tr.b = f.Backend
			var re *RestoreError
			now := readAll(t, tr, tids)
			switch {
			case errors.As(err, &re):
				if len(re.Broken) == 0 || !slices.IsSorted(re.Broken) || !errors.Is(err, errno) {
					t.Errorf("%v", err)
				}
			case err == nil:
				old = make(map[int][]byte)
				for tid, a := range areas {
					old[tid] = a.Data
				}
			}
			for tid, b := range now {
				if err := diffXState(old[tid], b); err != nil && (re == nil || !slices.Contains(re.Broken, tid)) {
					t.Errorf("%v from call %d: thread %d: %v", errno, at, tid, err)
				}
			}
			if err := tr.Close(); err != nil {
				t.Fatal(err)
			}
			g.expect(now)
		}
	}
}

// lying takes every write and forgets some of it, as some kernels do with PKRU.
type lying struct {
	Backend
	tid  int
	left int
}

func (l *lying) SetRegset(tid, nt int, buf []byte) error {
	if tid == l.tid && l.left > 0 {
		l.left--
		buf = slices.Clone(buf)
		buf[offXMM+17] ^= 1
	}
	return l.Backend.SetRegset(tid, nt, buf)
}

func TestReadBackDiffers(t *testing.T) {
	g := start(t, config{threads: 3, full: true})
	l := &lying{Backend: NewSystem(), tid: g.tids()[1]}
	tr := open(t, l, g.PID)
	old := readAll(t, tr, g.tids())
	areas := make(map[int]Area)
	for tid, b := range old {
		areas[tid] = Area{XState, flip(b)}
	}
	l.left = 1
	err := tr.Swap(areas)
	var rb *ReadbackError
	var re *RestoreError
	if !errors.As(err, &rb) || rb.Register != "xmm1" || errors.As(err, &re) {
		t.Errorf("Swap = %v", err)
	}
	for tid, b := range readAll(t, tr, g.tids()) {
		if err := diffXState(old[tid], b); err != nil {
			t.Errorf("thread %d: %v", tid, err)
		}
	}
	l.left = 100
	err = tr.Swap(areas)
	if !errors.As(err, &re) || !slices.Equal(re.Broken, []int{l.tid}) || !errors.As(err, &rb) {
		t.Errorf("Swap = %v", err)
	}
	l.left = 0
	if err := tr.Swap(areas); err != nil {
		t.Fatal(err)
	}
}

// TestKilledMidway kills one of two processes before each register access in
// turn: the other gets its old state back.
func TestKilledMidway(t *testing.T) {
	t.Run("first", func(t *testing.T) { killMidway(t, true) })
	t.Run("last", func(t *testing.T) { killMidway(t, false) })
}

// killMidway kills the process that is written first or last.
func killMidway(t *testing.T, first bool) {
	for at := 1; ; at++ {
		a, b := start(t, config{threads: 3, mode: "futex", full: true}), start(t, config{threads: 3, mode: "futex", full: true})
		if first {
			a, b = b, a
		}
		want := a.given()
		f := &faulty{Backend: NewSystem()}
		tr, err := OpenBackend(f, a.PID, b.PID)
		if err != nil {
			t.Fatal(err)
		}
		stop(t, tr)
		areas := make(map[int]Area)
		for _, tid := range append(a.tids(), b.tids()...) {
			area, err := tr.Read(tid)
			if err != nil {
				t.Fatal(err)
			}
			areas[tid] = Area{area.Set, flip(area.Data)}
		}
		accesses, writes := 0, 0 // writes: since it was killed
		f.before = func(_ int, name string) {
			if name != "GetRegset" && name != "SetRegset" {
				return
			}
			if accesses++; accesses == at {
				kill(t, b.PID, unix.SIGKILL)
			}
			if accesses >= at && name == "SetRegset" {
				writes++
			}
		}
		err = tr.Swap(areas)
		f.before = nil
		killed := accesses >= at
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		switch {
		case err == nil && writes > 0:
			t.Errorf("access %d: killed before the last write, and nobody noticed", at)
		case err == nil:
			// Killed after the last look at it, or not at all.
			for tid := range want {
				want[tid] = flip(want[tid])
			}
		case !errors.Is(err, ErrExited):
			t.Errorf("access %d: %v", at, err)
		}
		var re *RestoreError
		if errors.As(err, &re) {
			t.Errorf("access %d: %v", at, err)
		}
		a.untraced()
		a.expect(want)
		a.end()
		b.end()
		if t.Failed() {
			t.FailNow()
		}
		if !killed {
			t.Logf("%d register accesses", accesses)
			break
		}
	}
}

// TestKilledWhileStopping: the process ends in the middle of Stop.
func TestKilledWhileStopping(t *testing.T) {
	a := start(t, config{threads: 3, mode: "futex", full: true})
	for at := 1; ; at++ {
		b := start(t, config{threads: 3, mode: "futex", churn: 8})
		f := &faulty{Backend: NewSystem()}
		tr, err := OpenBackend(f, b.PID, a.PID)
		if err != nil {
			t.Fatal(err)
		}
		f.calls = 0
		f.before = func(call int, name string) {
			if call == at {
				kill(t, b.PID, unix.SIGKILL)
			}
		}
		err = stopErr(tr)
		killed := f.calls >= at
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if err != nil && !errors.Is(err, ErrExited) {
			t.Errorf("call %d: %v", at, err)
		}
		a.untraced()
		a.expect(a.given())
		if killed {
			// All reaped, or the parent would never learn of the end.
			eventually(t, "gone", func() bool {
				_, err := ReadStatus(b.PID, b.PID)
				return errors.Is(err, ErrNotFound) || len(b.tracees(t, tr.osTID)) == 0
			})
		}
		b.end()
		if t.Failed() || !killed {
			break
		}
	}
}

func TestCompare(t *testing.T) {
	const unknown = xstate.Feature(40) // to the table
	layout := func() xstate.Layout {
		return append(xstate.AMDLayout(xstate.AVX.Mask()|xstate.PKRU.Mask()), xstate.Placement{Feature: unknown, Offset: 832, Size: 64})
	}
	base := make([]byte, layout().End(^xstate.Features(0)))
	r := rand.New(rand.NewPCG(1, 1))
	for i := range base {
		base[i] = byte(r.Uint32())
	}
	clear(base[offBV:offHeaderEnd])
	const pkru = 2432
	tests := []struct {
		name   string
		bits   uint64
		offset int
		differ string
	}{
		{"FCW", 7, 0, "fcw"}, {"FSW", 7, 3, "fsw"}, {"FTW", 7, 4, "ftw"}, {"after FTW", 7, 5, ""},
		{"FOP", 7, 6, "fop"}, {"FIP", 7, 15, "fip"}, {"FDP", 7, 23, "fdp"},
		{"MXCSR", 7, 25, "mxcsr"}, {"MXCSR_MASK", 7, 28, ""},
		{"ST0", 7, 32, "st0"}, {"ST7", 7, 32 + 112 + 9, "st7"}, {"ST7 padding", 7, 32 + 112 + 10, ""},
		{"XMM0", 7, 160, "xmm0"}, {"XMM15", 7, 415, "xmm15"},
		{"reserved", 7, 416, ""}, {"sw_reserved", 7, 464, ""}, {"sw_reserved end", 7, 511, ""},
		{"YMM0", 7, 576, "ymm0"}, {"YMM15", 7, 576 + 255, "ymm15"},
		{"x87 in INIT", 6, 0, ""}, {"ST0 in INIT", 6, 32, ""},
		{"SSE in INIT", 5, 160, ""}, {"MXCSR with AVX alone", 5, 25, "mxcsr"}, {"MXCSR in INIT", 1, 25, ""},
		{"AVX in INIT", 3, 576, ""},
		{"PKRU", 1<<9 | 3, pkru, "pkru"}, {"PKRU padding", 1<<9 | 3, pkru + 4, ""}, {"PKRU in INIT", 3, pkru, ""},
		{"unknown", 1<<unknown | 3, 832, "bit 40"}, {"unknown in INIT", 3, 832, ""},
		{"no place", 1<<41 | 3, 0, "fcw"}, {"no place, padding", 1<<41 | 3, 5, "bit 41"},
	}
	differ := func(err error) string {
		var rb *ReadbackError
		if errors.As(err, &rb) {
			return rb.Register
		}
		return fmt.Sprint(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := slices.Clone(base)
			setBV(a, tt.bits)
			b := slices.Clone(a)
			b[tt.offset] ^= 0x10
			want := cmp.Or(tt.differ, "<nil>")
			if got := differ(compare(XState, a, b, layout)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if tt.bits == 7 && tt.offset < fxsaveSize {
				if got := differ(compare(FP, a[:fxsaveSize], b[:fxsaveSize], nil)); got != want {
					t.Errorf("FXSAVE area: got %s, want %s", got, want)
				}
			}
		})
	}
	a, b := slices.Clone(base), slices.Clone(base)
	setBV(a, 7)
	setBV(b, 3)
	if got := differ(compare(XState, a, b, layout)); got != "xstate_bv" {
		t.Errorf("another XSTATE_BV: %s", got)
	}
	// The kernel keeps PKRU elsewhere: its bit says nothing, its value does.
	clear(a[pkru:][:8])
	setBV(a, 1<<9|3)
	if got := differ(compare(XState, a, b, layout)); got != "<nil>" {
		t.Errorf("a PKRU of 0 and one in INIT: %s", got)
	}
	for n := range offHeaderEnd {
		if compare(XState, base[:n], base[:n], layout) == nil {
			t.Fatalf("%d bytes are taken for an area", n)
		}
	}
}

// TestInitStays gives each thread one of the sets of components that the CPU can have
// in use, and has it report what it holds at once and again later: a component that
// went to INIT stays so. What reads back is no proof, for it shows INIT whatever the
// kernel's buffer holds under a clear bit (copy_xstate_to_uabi_buf), and a CPU may
// bring that back. The old registers are in the buffer under a set bit, or already
// under a clear one.
func TestInitStays(t *testing.T) {
	for _, mode := range []string{"spin", "yield", "nanosleep"} {
		t.Run(mode, func(t *testing.T) {
			g := start(t, config{threads: 1000, mode: mode, full: true})
			tr := open(t, NewSystem(), g.PID)
			old := readAll(t, tr, g.tids())
			initStays(t, g, tr, old, "in use")
			stop(t, tr)
			for _, keep := range []uint64{g.Mask, 1 << bitPKRU} {
				areas := make(map[int]Area)
				for tid, b := range old {
					b = slices.Clone(b)
					setBV(b, bv(b)&keep)
					areas[tid] = Area{XState, b}
				}
				if err := tr.Swap(areas); err != nil {
					t.Fatal(err)
				}
			}
			initStays(t, g, tr, old, "INIT")
		})
	}
}

// initStays writes the sets, lets the threads go, and looks at what they hold.
func initStays(t *testing.T, g *target, tr *Tracer, old map[int][]byte, before string) {
	t.Helper()
	sets := subsets(g.Mask &^ (1 << bitPKRU))
	areas, want := make(map[int]Area), make(map[int][]byte)
	for i, tid := range g.tids() {
		b := scramble(rand.New(rand.NewPCG(1, uint64(tid))), old[tid], g.Mask)
		setBV(b, sets[i%len(sets)]|bv(b)&(1<<bitPKRU))
		if ambiguous(Area{XState, b}) {
			binary.LittleEndian.PutUint32(b[offMXCSR:], initMXCSR)
		}
		areas[tid], want[tid] = Area{XState, b}, b
	}
	if err := tr.Swap(areas); err != nil {
		t.Fatal(err)
	}
	detach(t, tr)
	for look := range 3 {
		if look > 0 {
			time.Sleep(200 * time.Millisecond)
		}
		wrong := make(map[string]int)
		for _, th := range g.snap().Threads {
			if diffHeld(want[th.TID], th.Held) != nil {
				wrong[fmt.Sprintf("%#x", bv(want[th.TID]))]++
			}
		}
		if len(wrong) > 0 {
			t.Errorf("%s before, look %d: threads with other registers, by XSTATE_BV: %v", before, look, wrong)
		}
	}
}

// subsets gives all sets of the bits of mask.
func subsets(mask uint64) []uint64 {
	sets := []uint64{mask}
	for s := mask; s != 0; {
		s = (s - 1) & mask
		sets = append(sets, s)
	}
	return sets
}

// buffer is a thread's state as the kernel keeps it: of what is written it takes the
// components in use, and leaves the bytes of the others (copy_uabi_to_xstate).
type buffer struct {
	Backend
	layout xstate.Layout
	area   []byte
	writes int
	fail   bool // the next read
}

func (k *buffer) SetRegset(_, _ int, b []byte) error {
	k.writes++
	k.take(k.area, b)
	copy(k.area[offBV:offHeaderEnd], b[offBV:])
	return nil
}

func (k *buffer) GetRegset(_, _ int, b []byte) (int, error) {
	if k.fail {
		k.fail = false
		return 0, unix.EIO
	}
	clear(b[:len(k.area)])
	l := legacy(b, 0)
	copy(b, l[:])
	copy(b[offBV:offHeaderEnd], k.area[offBV:])
	k.take(b, k.area)
	return len(k.area), nil
}

// take copies what is in use.
func (k *buffer) take(to, from []byte) {
	l := legacy(from, bv(from))
	if bv(from)&(1<<bitX87) != 0 {
		copy(to, l[:offMXCSR])
		copy(to[offST:], l[offST:offXMM])
	}
	if bv(from)&(1<<bitSSE|1<<bitAVX) != 0 {
		copy(to[offMXCSR:], l[offMXCSR:offMXCSRMask])
	}
	if bv(from)&(1<<bitSSE) != 0 {
		copy(to[offXMM:], l[offXMM:])
	}
	for _, p := range k.layout {
		if xstate.AreaBV(from).Has(p.Feature) {
			copy(to[p.Offset:][:p.Size], from[p.Offset:])
		}
	}
}

// TestStaleBytes: no old bytes of a part of the registers stay in the kernel's buffer
// below a part that is in use, whether the bit of the old ones was set or clear, and
// whether the state is a new one or is put back. Any other set takes one write.
func TestStaleBytes(t *testing.T) {
	const mask = 1<<bitX87 | 1<<bitSSE | 1<<bitAVX | 1<<5 | 1<<bitZMMHi256 | 1<<7
	layout := xstate.AMDLayout(mask)
	avx, _ := layout.Find(xstate.AVX)
	for _, set := range subsets(mask) {
		for _, before := range []uint64{mask, 0, set} {
			k := &buffer{layout: layout, area: bytes.Repeat([]byte{0xaa}, layout.End(mask))}
			clear(k.area[offBV:offHeaderEnd])
			setBV(k.area, before)
			binary.LittleEndian.PutUint32(k.area[offMXCSR:], initMXCSR)
			tr := &Tracer{b: k, layout: func() xstate.Layout { return layout }, threads: map[int]*thread{1: {tid: 1, stopped: true}}, scratch: make([]byte, 64<<10)}
			area := bytes.Repeat([]byte{0x55}, len(k.area))
			clear(area[offBV:offHeaderEnd])
			setBV(area, set)
			binary.LittleEndian.PutUint32(area[offMXCSR:], initMXCSR)
			if before == set { // it is put back
				if _, err := tr.Read(1); err != nil {
					t.Fatal(err)
				}
				setBV(area, mask)
				k.fail = true
				if err := tr.Swap(map[int]Area{1: {XState, area}}); err == nil || bv(k.area) != set {
					t.Fatalf("Swap = %v, and the thread has %#x, want an error and %#x", err, bv(k.area), set)
				}
				k.writes--
			} else if err := tr.Swap(map[int]Area{1: {XState, area}}); err != nil {
				t.Fatal(err)
			}
			wantWrites := 1
			stale := func(part, above uint64, b []byte) {
				if set&part != 0 || set&above == 0 {
					return
				}
				wantWrites = 2
				if !bytes.Equal(b, make([]byte, len(b))) {
					t.Errorf("from %#x to %#x: old bytes of %#x", before, set, part)
				}
			}
			stale(1<<bitSSE, 1<<bitAVX|1<<bitZMMHi256, k.area[offXMM:offXMMEnd])
			stale(1<<bitAVX, 1<<bitZMMHi256, k.area[avx.Offset:][:avx.Size])
			if set&(1<<bitX87|1<<bitSSE|1<<bitAVX) == 0 {
				wantWrites = 2 // for MXCSR
			}
			if k.writes != wantWrites {
				t.Errorf("from %#x to %#x: %d writes, want %d", before, set, k.writes, wantWrites)
			}
		}
	}
}
