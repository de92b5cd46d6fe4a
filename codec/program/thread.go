package program

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Indexes of struct user_regs_struct (arch/x86/include/asm/user_64.h).
const (
	regOrigAX = 15
	regIP     = 16
	regSP     = 19
)

// thread is what is known of a thread.
func (p *process) thread(th codec.Thread) facts.Thread {
	f := facts.Thread{TID: th.TID}
	if th.GPRegs == nil || th.State == nil {
		return f
	}
	if th.State.Compat {
		p.unknown(facts.Proof, nil, "32-bit code is not decoded")
		return f
	}
	f.IP = th.GPRegs[regIP]
	m := p.moduleAt(f.IP)
	if m != nil {
		f.Object = m.fact
	}
	f.Frames = p.frames(th.GPRegs[regSP])
	if m == nil || m.obj == nil {
		return f
	}
	c := p.at(m, f.IP)
	f.Symbol, f.Needs, f.Incomplete, f.Certain = c.symbol, c.needs, c.incomplete, c.certain
	if n := th.GPRegs[regOrigAX]; int64(n) >= 0 && c.syscall {
		f.Syscall = syscallName(n)
		f.Dead, f.Live = c.dead, c.live
	}
	return f
}

// spot is what an address in code tells of all threads that are there.
type spot struct {
	symbol, incomplete string
	needs, certain     []string
	syscall            bool
	dead               xstate.Features
	live               string
}

// at finds out about an address in a file, once: many threads wait in the same place.
func (p *process) at(m *module, ip uint64) *spot {
	c := p.spots[ip]
	if c == nil {
		r := m.reach(ip-m.bias, (*isa.Inst).Faults)
		c = &spot{symbol: m.obj.functionName(ip - m.bias), needs: flagNames(r.features), incomplete: r.incomplete,
			certain: flagNames(m.next(ip - m.bias)), syscall: p.atSyscall(ip)}
		if c.syscall {
			c.dead, c.live = p.dead(ip)
		}
		p.spots[ip] = c
	}
	return c
}

// waits names the system calls that threads mostly wait in
// (arch/x86/entry/syscalls/syscall_64.tbl).
var waits = map[uint64]string{0: "read", 7: "poll", 23: "select", 34: "pause", 35: "nanosleep", 43: "accept", 45: "recvfrom", 47: "recvmsg",
	61: "wait4", 128: "rt_sigtimedwait", 130: "rt_sigsuspend", 202: "futex", 219: "restart_syscall", 230: "clock_nanosleep", 232: "epoll_wait",
	247: "waitid", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait", 288: "accept4", 426: "io_uring_enter", 441: "epoll_pwait2"}

func syscallName(n uint64) string {
	if name, ok := waits[n]; ok {
		return name
	}
	return fmt.Sprintf("system call %d", n)
}

// atSyscall reports whether a SYSCALL stands at the address, as CRIU leaves a call that
// is to be restarted, or ends there.
func (p *process) atSyscall(ip uint64) bool {
	var b [4]byte
	n, _ := p.read(b[:], ip-2)
	return n >= 2 && b[0] == 0x0f && b[1] == 0x05 || n == 4 && b[2] == 0x0f && b[3] == 0x05
}

// maxProof bounds the instructions of a proof. Cancellation points need some hundred.
const maxProof = 1 << 14

// kinds are the components by the registers whose upper state they hold.
var kinds = []struct {
	upper isa.Upper
	set   xstate.Features
}{
	{isa.HiYMM, 1<<xstate.AVX | 1<<xstate.ZMMHi256},
	{isa.ZMM16, 1 << xstate.Hi16ZMM},
	{isa.Mask, 1 << xstate.Opmask},
}

// dead proves which components the code from the address on does not read before it has
// overwritten them. Calls are followed and nothing behind them: a call that has returned
// has clobbered every vector register, by the System V ABI, and so has a return to the
// caller. live says what ended the proof of the others.
func (p *process) dead(entry uint64) (dead xstate.Features, live string) {
	type place struct {
		at      uint64
		written isa.Upper
	}
	seen := map[uint64]isa.Upper{}
	todo := []place{{entry, 0}}
	var read isa.Upper
	end := func(at uint64, why string) (xstate.Features, string) {
		return 0, fmt.Sprintf("%s at %#x", why, at)
	}
	for n := 0; len(todo) > 0; {
		at, written := todo[len(todo)-1].at, todo[len(todo)-1].written
		todo = todo[:len(todo)-1]
		for {
			before, again := seen[at]
			if again && before&^written == 0 {
				break
			}
			if again {
				written &= before
			}
			seen[at] = written
			if n++; n > maxProof {
				return end(at, "more code than a proof takes")
			}
			m := p.moduleAt(at)
			if m == nil || m.obj == nil {
				return end(at, "code of no proven file")
			}
			i, ok := m.obj.decode(at - m.bias)
			if !ok {
				return end(at, "an unknown instruction")
			}
			r, w := i.Upper()
			if r &^= written; r != 0 && live == "" {
				live = fmt.Sprintf("read at %#x", at)
			}
			read |= r
			written |= w
			next := at + uint64(i.Len)
			stop := false
			switch i.Flow() {
			case isa.Branch:
				todo = append(todo, place{i.Target(at), written})
			case isa.Jump, isa.Call:
				next = i.Target(at)
			case isa.Indirect, isa.IndirectCall:
				// jmp *slot(%rip): what the PLT does
				if i.Prefix&isa.HasModRM == 0 || i.ModRM&0xc7 != 0x05 {
					if i.Flow() == isa.Indirect {
						return end(at, "a jump that cannot be followed")
					}
					// Arguments are in the first vector registers, by the ABI, and in no others.
					if r := isa.HiYMM &^ written; r != 0 {
						read |= r
						live = cmp.Or(live, fmt.Sprintf("a call that cannot be followed at %#x", at))
					}
					stop = true
					break
				}
				if next, ok = p.word(next + uint64(int64(i.Disp))); !ok {
					return end(at, "a jump through memory that is not there")
				}
			case isa.Return, isa.Stop:
				stop = true
			}
			if stop {
				break
			}
			at = next
		}
	}
	for _, k := range kinds {
		if read&k.upper == 0 {
			dead |= k.set
		}
	}
	return dead, live
}

const (
	// Of struct rt_sigframe: uc_stack, and of uc_mcontext rsp, rip and fpstate.
	frameAlt     = 8 + 16
	frameAltSize = 8 + 32
	frameSP      = 8 + 40 + 120
	frameIP      = 8 + 40 + 128
	frameFPState = 8 + 40 + 184

	maxStack  = 1 << 20 // that is searched
	maxFrame  = 16 << 10
	maxFrames = 16 // handlers that interrupted each other, and what is left of earlier ones
)

// restorer is what the handler returns to: mov $15, %rax; syscall.
var restorer = []byte{0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05}

// frames finds the signal frames of a thread: on the stack that it is on, and on those
// that were left for an alternate one.
func (p *process) frames(sp uint64) (list []facts.Frame) {
	for sp != 0 && len(list) < maxFrames {
		list, sp = p.framesOn(sp, list)
	}
	return list
}

// framesOn appends the signal frames of one stack. left is the stack pointer of what was
// interrupted on another one, 0 if nothing was.
func (p *process) framesOn(sp uint64, known []facts.Frame) (list []facts.Frame, left uint64) {
	list = known
	v, ok := p.mem.VMA(sp)
	if !ok || v.Prot&memory.Exec != 0 {
		return list, 0
	}
	stack := make([]byte, min(v.End-sp, maxStack))
	n, _ := p.mem.ReadAt(stack, sp)
	stack = stack[:n]
	for at := -sp & 63; at+xstate.MinArea <= uint64(len(stack)) && len(list) < maxFrames; at += 64 {
		b := stack[at:]
		area, ok := xstate.ParseFrame(b)
		if !ok || area.Size < xstate.MinArea || area.Size > maxFrame || area.Size+4 > len(b) || le32(b[area.Size:]) != xstate.FrameEnd {
			continue
		}
		f := facts.Frame{Address: sp + at, Features: area.Features, BV: xstate.AreaBV(b), Size: area.Size}
		if slices.ContainsFunc(known, func(k facts.Frame) bool { return k.Address == f.Address }) {
			continue
		}
		for w := uint64(frameFPState); w+8 <= at; w += 8 {
			frame := stack[w-frameFPState:]
			if le64(stack[w:]) != f.Address || !p.isRestorer(le64(frame)) {
				continue
			}
			alt, altSize := le64(frame[frameAlt:]), le64(frame[frameAltSize:])
			onAlt := func(addr uint64) bool { return addr-alt < altSize }
			if onAlt(f.Address) != onAlt(sp) { // the thread is on another stack: it has returned
				continue
			}
			f.Live, f.IP = true, le64(frame[frameIP:])
			if m := p.moduleAt(f.IP); m != nil && m.obj != nil {
				f.Needs = flagNames(m.reach(f.IP-m.bias, (*isa.Inst).Faults).features)
			}
			if p.atSyscall(f.IP) {
				f.Dead, _ = p.dead(f.IP)
			}
			if was := le64(frame[frameSP:]); onAlt(sp) && !onAlt(was) {
				left, stack = was, stack[:min(uint64(len(stack)), alt+altSize-sp)]
			}
			break
		}
		list = append(list, f)
	}
	return list, left
}

// isRestorer reports whether the restorer is at an address. Code that cannot be read, for
// want of its file, may be one.
func (p *process) isRestorer(addr uint64) bool {
	b := make([]byte, len(restorer))
	if _, err := p.read(b, addr); err != nil {
		v, ok := p.mem.VMA(addr)
		return ok && v.Prot&memory.Exec != 0
	}
	return slices.Equal(b, restorer)
}
