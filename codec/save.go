package codec

import (
	"encoding/binary"
	"slices"
)

// MarshalCore returns a core image with what the schema requires and no more: crit
// decodes it, fpuimg and fpurestore read it, but CRIU could not restore a process
// from it. Components that the schema has no field for are left out; their bits in
// XSTATE_BV stay, and say so.
func MarshalCore(t Thread) ([]byte, error) {
	var gp []byte
	regs := t.GPRegs
	if regs == nil {
		regs = new([27]uint64)
	}
	for i, v := range regs {
		gp = appendUint(gp, uint32(i+1), v)
	}
	mode := uint64(modeNative)
	if t.State.Compat {
		mode = modeCompat
	}
	info := appendUint(nil, infoClearTID, 0)
	info = appendSub(info, infoGPRegs, appendUint(gp, gpMode, mode))
	b := appendUint(nil, coreMtype, mtypeX86)
	b = appendSub(b, coreThreadInfo, info)
	if t.PID == t.TID {
		tc := appendUint(nil, tcTaskState, taskAlive)
		for num := uint32(2); num < tcComm; num++ { // exit_code, personality, flags, blk_sigset
			tc = appendUint(tc, num, 0)
		}
		b = appendSub(b, coreTC, appendSub(tc, tcComm, []byte(t.Comm)))
	}
	thread := appendUint(appendUint(nil, 1, 0), 2, 0) // futex_rla, futex_rla_len
	b = appendSub(b, coreThreadCore, appendSub(thread, threadCoreComm, []byte(t.Comm)))

	core, err := ParseCore(CoreName(t.TID), newFile(magicCore, b))
	if err != nil {
		return nil, err
	}
	s := t.State.Clone()
	for f := range (s.Recorded() &^ Storable).All() {
		s.SetData(f, nil)
	}
	return core.Encode(s)
}

// SavedTask is a live process to be named in pstree.img.
type SavedTask struct {
	PID, PPID int
	TIDs      []int // in any order; without the leader if it has ended
}

// MarshalPstree returns a pstree.img that names the tasks.
func MarshalPstree(tasks []SavedTask) []byte {
	var out []byte
	for i, t := range tasks {
		b := appendUint(nil, pstreePID, uint64(t.PID))
		for num, v := range []int{2: t.PPID, 3: t.PID, 4: t.PID} { // ppid, pgid, sid
			if num > 1 {
				b = appendUint(b, uint32(num), uint64(v))
			}
		}
		// The leader first, whose number is not the least where the numbers have begun anew.
		leader := slices.Index(t.TIDs, t.PID)
		if leader >= 0 {
			b = appendUint(b, pstreeThreads, uint64(t.PID))
		}
		for i, tid := range t.TIDs {
			if i != leader {
				b = appendUint(b, pstreeThreads, uint64(tid))
			}
		}
		if i == 0 {
			out = newFile(magicPstree, b)
			continue
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	return out
}

// MarshalInventory returns an inventory.img of today's image version
// (criu/include/image.h, CRTOOLS_IMAGES_V1_1).
func MarshalInventory() []byte {
	const imagesV11 = 2
	// inventory.img has its own magic only, in every version.
	b := appendUint(nil, 1, imagesV11)
	out := binary.LittleEndian.AppendUint32(nil, magicInventory)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(b)))
	return append(out, b...)
}
