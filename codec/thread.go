package codec

import (
	"encoding/binary"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Thread is one thread, as an image, an ELF core, a bare area or a process has it.
type Thread struct {
	PID  int // 0 if unknown
	TID  int
	Comm string // "" if not recorded
	// GPRegs are the general registers in the order of struct user_regs_struct
	// (arch/x86/include/asm/user_64.h): r15 to gs. nil if not recorded.
	GPRegs *[27]uint64
	State  *xstate.State
	Image  *Core // nil if it is from elsewhere
}

// NewThread is a thread with its core image, nil if it cannot be read. A leader's image
// tells its process where that is unknown, 0.
func NewThread(pid, tid int, image *Core) Thread {
	t := Thread{PID: pid, TID: tid}
	if image != nil {
		t.Comm, t.GPRegs, t.State, t.Image = image.Comm, image.GPRegs, &image.State, image
		if pid == 0 && image.Leader {
			t.PID = tid
		}
	}
	return t
}

// Listed is a thread that was decoded already, or why it could not be.
type Listed struct {
	Thread
	Err error
}

// regs32 is the order of the 17 registers of a 32-bit thread as indexes into the
// 64-bit ones: bx cx dx si di bp ax ds es fs gs orig_ax ip cs flags sp ss.
var regs32 = [...]int{5, 11, 12, 13, 14, 4, 10, 23, 24, 25, 26, 15, 16, 17, 18, 19, 20}

// ParseGPRegs decodes the general registers of NT_PRSTATUS, of a 64-bit thread (struct
// user_regs_struct) or a 32-bit one (user_regs_struct32). What b is too short for is 0.
func ParseGPRegs(b []byte) (regs [27]uint64) {
	if len(b) >= 8*len(regs) {
		for i := range regs {
			regs[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		return regs
	}
	for i, r := range regs32 {
		if len(b) >= 4*i+4 {
			regs[r] = uint64(le32(b[4*i:]))
		}
	}
	return regs
}

// AppendGPRegs is the inverse of [ParseGPRegs]; nil appends zeros.
func AppendGPRegs(b []byte, regs *[27]uint64, is32 bool) []byte {
	if regs == nil {
		regs = new([27]uint64)
	}
	if is32 {
		for _, r := range regs32 {
			b = binary.LittleEndian.AppendUint32(b, uint32(regs[r]))
		}
		return b
	}
	for _, v := range regs {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
