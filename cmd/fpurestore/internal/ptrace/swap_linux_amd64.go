package ptrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Read reads the whole state: NT_X86_XSTATE, or the FXSAVE area on a host
// without XSAVE. The tracer keeps the bytes too, to put them back: they are not
// to be modified. Where SSE is not in use but AVX is, the MXCSR in it may be one of
// long ago: where the kernel keeps the state in compacted form, the register is
// 0x1F80 then. The error is a [*ThreadError]; it wraps [ErrExited] if the thread was
// killed.
func (t *Tracer) Read(tid int) (Area, error) {
	th, err := t.thread(tid, "read")
	if err != nil {
		return Area{}, err
	}
	return t.current(th)
}

// prstatusCompat is the size of struct elf_prstatus's register part for a
// 32-bit thread: 17 registers of 4 bytes. A 64-bit one has 27 of 8 bytes
// (arch/x86/kernel/ptrace.c: task_user_regset_view).
const prstatusCompat = 17 * 4

// Compat tells whether a thread runs 32-bit code. The error is a [*ThreadError].
func (t *Tracer) Compat(tid int) (bool, error) {
	th, err := t.thread(tid, "read NT_PRSTATUS")
	if err != nil {
		return false, err
	}
	return t.compat(th)
}

func (t *Tracer) compat(th *thread) (bool, error) {
	if th.compat == nil {
		// No more than it takes: the kernel looks for some registers in other places.
		n, err := t.b.GetRegset(th.tid, unix.NT_PRSTATUS, t.scratch[:prstatusCompat+4])
		if err != nil {
			return false, t.threadError(th, "read NT_PRSTATUS", err)
		}
		th.compat = new(n == prstatusCompat)
	}
	return *th.compat, nil
}

// ReadShadowStack reads the shadow stack pointer. It is not ok if the thread
// has no shadow stack or the kernel does not know them. The error is a
// [*ThreadError].
func (t *Tracer) ReadShadowStack(tid int) (ssp uint64, ok bool, err error) {
	const op = "read NT_X86_SHSTK"
	th, err := t.thread(tid, op)
	if err != nil {
		return 0, false, err
	}
	n, err := t.b.GetRegset(tid, unix.NT_X86_SHSTK, t.scratch[:8])
	switch {
	case err == unix.ENODEV: // CPU without, or not active in this thread: arch/x86/kernel/fpu/regset.c: ssp_get
		return 0, false, nil
	case err == unix.EINVAL: // kernel without CONFIG_X86_USER_SHADOW_STACK: no such set
		return 0, false, nil
	case err != nil:
		return 0, false, t.threadError(th, op, err)
	case n != 8:
		return 0, false, &ThreadError{PID: th.pid, TID: tid, Op: op, Err: fmt.Errorf("got %d bytes, want 8", n)}
	}
	return binary.LittleEndian.Uint64(t.scratch), true, nil
}

// Swap gives each thread in areas its new state: it reads the old state of
// all, writes the new state of each, reads it back and compares.
// Two states are equal if every register is: the padding of ST0-7, MXCSR_MASK,
// bytes 416-511 and gaps do not count, a component whose XSTATE_BV bit is
// clear counts as INIT whatever its bytes, and XSTATE_BV itself counts.
//
// An area with AVX in use, SSE not, and MXCSR other than 0x1F80 is refused with
// [ErrAmbiguous] before anything is written: it would read back as written, but
// many kernels load 0x1F80. For that MXCSR, set the SSE bit, with XMM0-15 zero.
//
// If anything fails, every thread gets its old state back. The error is a
// [*RestoreError] if a living thread could not be put back, else a
// [*ThreadError], and everything is as before; it wraps [ErrExited] if the
// cause was that the thread was killed, a [*ReadbackError] if the kernel took
// the state but gave back another. All threads stay stopped.
func (t *Tracer) Swap(areas map[int]Area) error {
	tids := slices.Sorted(maps.Keys(areas))
	threads := make([]*thread, len(tids))
	old := make([]Area, len(tids))
	for i, tid := range tids {
		var err error
		if threads[i], err = t.thread(tid, "write"); err != nil {
			return err
		}
		if a := areas[tid]; len(a.Data) == 0 || a.Set == FP && len(a.Data) != len(xstate.FXArea{}) {
			return &ThreadError{PID: threads[i].pid, TID: tid, Op: "write " + a.Set.String(), Err: unix.EINVAL}
		}
		if ambiguous(areas[tid]) {
			return &ThreadError{PID: threads[i].pid, TID: tid, Op: "write " + XState.String(), Err: ErrAmbiguous}
		}
		if old[i], err = t.current(threads[i]); err != nil {
			return err
		}
	}
	one := make(map[int]*thread) // of each process
	for i, th := range threads {
		err := t.write(th, areas[th.tid])
		if err == nil {
			err = t.verify(th, areas[th.tid])
		}
		if err != nil {
			// A refused write changes nothing, but then a write that went
			// wrong in another way might have.
			return t.putBack(threads[:i+1], old, err)
		}
		one[th.pid] = th
	}
	// A look at each process after the last write: one killed in between fails the whole.
	// SIGKILL takes all threads of a process out of their stop at once, and nothing takes
	// out a single one (kernel/signal.c: complete_signal).
	for _, pid := range t.pids {
		th := one[pid]
		if th == nil {
			continue
		}
		if err := t.verify(th, areas[th.tid]); err != nil {
			return t.putBack(threads, old, err)
		}
	}
	return nil
}

// vectors are what is in use where XSAVE stores MXCSR.
const vectors = 1<<xstate.SSE | xstate.Features(1)<<xstate.AVX

// ambiguous tells whether an area leaves open which MXCSR it means. The kernel
// takes MXCSR from the area if SSE or AVX is in use, and reads it back so. But
// if it keeps the state in compacted form, XRSTOR looks at the SSE bit alone,
// and without it loads 0x1F80 (SDM vol. 1, 13.8.2); in standard form it loads
// what the area says (13.8.1). No interface tells the form.
func ambiguous(a Area) bool {
	return a.Set == XState && xstate.AreaBV(a.Data)&vectors == xstate.AVX.Mask() &&
		fx(a.Data).MXCSR() != xstate.InitMXCSR
}

// putBack restores the old state of threads after cause.
func (t *Tracer) putBack(threads []*thread, old []Area, cause error) error {
	var broken []int
	for i := len(threads) - 1; i >= 0; i-- {
		var err error
		// More than once: the kernel needs memory for a write (xstateregs_set),
		// and what is at stake is a thread with the wrong registers.
		for range 3 {
			if err = t.write(threads[i], old[i]); err == nil {
				err = t.verify(threads[i], old[i])
			}
			if err == nil || errors.Is(err, ErrExited) {
				break
			}
		}
		if err != nil && !errors.Is(err, ErrExited) {
			broken = append(broken, threads[i].tid)
		}
	}
	if broken != nil {
		slices.Sort(broken)
		return &RestoreError{Broken: broken, Err: cause}
	}
	return cause
}

func (t *Tracer) verify(th *thread, a Area) error {
	got, err := t.read(th, a.Set)
	if err != nil {
		return err
	}
	if err := compare(a.Set, a.Data, got, t.layout); err != nil {
		return &ThreadError{PID: th.pid, TID: th.tid, Op: "write " + a.Set.String(), Err: err}
	}
	return nil
}

// current gives the whole state, not to be modified. A stopped thread's changes
// by a write only, so what the caller has read is not read again.
func (t *Tracer) current(th *thread) (Area, error) {
	if th.known == nil {
		b, err := t.read(th, XState)
		if errors.Is(err, ErrNoXSave) {
			b, err = t.read(th, FP)
			return Area{FP, slices.Clone(b)}, err
		}
		if err != nil {
			return Area{}, err
		}
		th.known = t.keep(b)
	}
	return Area{XState, th.known}, nil
}

// Reserve makes memory ready for n bytes of what Read and Swap keep, so that no thread
// waits for the kernel to find it.
func (t *Tracer) Reserve(n int) {
	t.reserved = make([]byte, n)
	unix.Madvise(t.reserved, unix.MADV_POPULATE_WRITE) // it may fail, as before Linux 5.14
}

// keep returns a copy.
func (t *Tracer) keep(b []byte) []byte {
	if len(b) > len(t.reserved) {
		return slices.Clone(b)
	}
	out := t.reserved[:len(b):len(b)]
	t.reserved = t.reserved[copy(out, b):]
	return out
}

// read gives a register set in t.scratch.
func (t *Tracer) read(th *thread, set Set) ([]byte, error) {
	nt, err := t.noteType(th, set)
	if err != nil {
		return nil, err
	}
	n, err := t.b.GetRegset(th.tid, nt, t.scratch)
	if err == unix.ENODEV && set == XState { // arch/x86/kernel/fpu/regset.c: xstateregs_get
		err = ErrNoXSave
	}
	if err == nil && (n == 0 || n >= len(t.scratch) || set == FP && n != len(xstate.FXArea{})) {
		err = fmt.Errorf("register set of %d bytes", n)
	}
	if err != nil {
		return nil, t.threadError(th, "read "+set.String(), err)
	}
	return t.scratch[:n], nil
}

func (t *Tracer) write(th *thread, a Area) error {
	nt, err := t.noteType(th, a.Set)
	if err != nil {
		return err
	}
	th.known = nil
	steps := [][]byte{a.Data}
	if a.Set == XState {
		steps = writesFor(a.Data, t.layout)
	}
	for _, data := range steps {
		err = t.b.SetRegset(th.tid, nt, data)
		if err == unix.ENODEV && a.Set == XState {
			err = ErrNoXSave
		}
		if err != nil {
			return t.threadError(th, "write "+a.Set.String(), err)
		}
	}
	return nil
}

// writesFor gives the writes that it takes to put an area into a thread. A component
// whose bit is clear is INIT, but the kernel leaves its bytes as they were
// (copy_uabi_to_xstate), and reads back INIT all the same. Where these bytes could come
// to count, a first write has the bit set and the INIT value for data:
//
//   - AVX, and ZMM_Hi256 in use: both are parts of ZMM0-15. No instruction but XRSTOR
//     has the upper part in use without the lower, and a CPU may track them together:
//     XSAVES then sets the bit of AVX and writes no bytes, for they were not modified,
//     and the thread goes on with the old ones. Seen on AMD Zen 4.
//   - SSE, and AVX or ZMM_Hi256 in use: likewise.
//   - MXCSR, and none of x87, SSE and AVX in use. It is to be 0x1F80 without SSE. A
//     kernel that keeps the state in standard form, however, leaves it to XRSTOR, which
//     loads MXCSR from memory whatever the bits say (SDM vol. 1, 13.8.1), and changes
//     that memory only if one of the three is in use.
//
// Any other component in INIT can be so beside any other in use, while a program runs:
// the CPU has to tell them apart. Which bits the thread has now does not matter: bytes
// under a clear one can be older still.
func writesFor(data []byte, layout func() xstate.Layout) [][]byte {
	if len(data) < xstate.MinArea {
		return [][]byte{data} // for the kernel to refuse
	}
	bv := xstate.AreaBV(data)
	if bv&vectors == 0 { // else what is in use says which MXCSR: see ambiguous
		data = slices.Clone(data)
		fx(data).SetMXCSR(xstate.InitMXCSR)
	}
	var first xstate.Features
	if bv.Has(xstate.ZMMHi256) {
		first = vectors
	}
	if bv.Has(xstate.AVX) || bv&(xstate.Legacy|vectors) == 0 {
		first |= xstate.SSE.Mask()
	}
	if first &^= bv; first == 0 {
		return [][]byte{data}
	}
	zeros := slices.Clone(data)
	xstate.SetAreaBV(zeros, bv|first)
	if first.Has(xstate.SSE) {
		clear(fx(zeros).XMMSpace())
	}
	if first.Has(xstate.AVX) {
		if p, ok := layout().Find(xstate.AVX); ok && p.Offset+p.Size <= len(data) {
			clear(zeros[p.Offset:][:p.Size])
		}
	}
	return [][]byte{zeros, data}
}

func (t *Tracer) noteType(th *thread, set Set) (int, error) {
	switch set {
	case XState:
		return unix.NT_X86_XSTATE, nil
	case FP:
		compat, err := t.compat(th)
		if err != nil {
			return 0, err
		}
		if compat {
			// NT_PRFPREG of a 32-bit thread is the 108-byte FSAVE form, which
			// has no SSE.
			return unix.NT_PRXFPREG, nil
		}
		return unix.NT_PRFPREG, nil
	}
	return 0, &ThreadError{PID: th.pid, TID: th.tid, Op: set.String(), Err: unix.EINVAL}
}

// thread finds a stopped thread for an exported method.
func (t *Tracer) thread(tid int, op string) (*thread, error) {
	th := t.threads[tid]
	if th == nil || !th.stopped {
		return nil, &ThreadError{TID: tid, Op: op, Err: ErrNotStopped}
	}
	return th, nil
}

// threadError wraps the failure of a request about a stopped thread. ESRCH
// means that it was killed, if it is no longer in its stop.
func (t *Tracer) threadError(th *thread, op string, err error) error {
	if err == unix.ESRCH {
		// Asked only now: it is a system call, which every access would pay.
		if here := t.here(); here != nil {
			err = here
		} else if !t.inStop(th) {
			err = ErrExited
		}
	}
	return &ThreadError{PID: th.pid, TID: th.tid, Op: op, Err: err}
}
