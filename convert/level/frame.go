package level

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// frames plans the signal frames that handlers will return to.
func (t *task) frames() {
	for _, th := range t.Process.Threads {
		for _, f := range th.Frames {
			if f.Live {
				t.frame(th.TID, f)
			}
		}
	}
}

// frame makes a signal frame one that the host's kernel takes: it reads the legacy area
// alone of one that is larger than its own (arch/x86/kernel/fpu/signal.c).
func (t *task) frame(tid int, f facts.Frame) {
	host := t.plan.options.Host
	if missing := t.plan.lacks(f.Needs); len(missing) > 0 {
		t.refuseThread(tid, ThreadInCode, nil, "what a signal handler of it interrupted, at %#x, has code on its way that needs %s", f.IP, strings.Join(missing, " "))
		return
	}
	holds := host.Possible()
	size, sized := compat.UserSize(host)
	format, known := host.Format()
	xsave := known && format == xstate.FormatXSave
	if xsave && f.Features&^holds == 0 && f.BV&^holds == 0 && (!sized || f.Size <= size) {
		return
	}
	area := make([]byte, f.Size+4)
	if _, err := t.mem.ReadAt(area, f.Address); err != nil {
		t.refuseThread(tid, FrameLive, nil, "its signal frame at %#x: %v", f.Address, err)
		return
	}
	// What is kept lies where every CPU has it; the places of the rest differ by vendor.
	const common = xstate.Legacy | 1<<xstate.AVX
	keep := f.Features & common & holds
	if !xsave {
		keep &= xstate.Legacy
	}
	gone := f.BV &^ keep &^ f.Dead
	end := xstate.IntelLayout(common).End(keep)
	if end > f.Size {
		t.refuseThread(tid, FrameLive, nil, "the signal frame at %#x has %d bytes, and %s takes %d", f.Address, f.Size, strings.Join(keep.Names(), ", "), end)
		return
	}
	if gone != 0 && !empty(area, gone, f) {
		t.refuseThread(tid, FrameLive, nil, "the signal frame at %#x holds %s, which goes on where the handler returns, and the host lacks it", f.Address, strings.Join(gone.Names(), ", "))
		return
	}
	put := func(at int, from, to []byte) { t.word(Frame, f.Address+uint64(at), from, to) }
	u32 := func(at int, v uint32) {
		put(at, area[at:at+4], binary.LittleEndian.AppendUint32(nil, v))
	}
	if !xsave {
		return // such a kernel does not look at what lies behind the legacy area
	}
	put(xstate.AreaBVOffset, area[xstate.AreaBVOffset:][:8], le64(uint64(f.BV&keep)))
	put(xstate.FrameFeatures, area[xstate.FrameFeatures:][:8], le64(uint64(keep)))
	u32(xstate.FrameSize, uint32(end))
	u32(xstate.FrameExtended, uint32(end+4))
	u32(end, xstate.FrameEnd)
	if f.Size > end+4 {
		u32(f.Size, 0)
	}
}

// empty reports whether components of a frame hold nothing but INIT, by the layout that
// its size tells.
func empty(area []byte, set xstate.Features, f facts.Frame) bool {
	l := xstate.GuessLayout(f.Features, f.Size)
	for c := range set.All() {
		p, ok := l.Find(c)
		if !ok || p.Offset+p.Size > f.Size || slices.ContainsFunc(area[p.Offset:p.Offset+p.Size], func(b byte) bool { return b != 0 }) {
			return false
		}
	}
	return l != nil
}
