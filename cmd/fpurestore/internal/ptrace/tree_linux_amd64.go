package ptrace

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tree lists a process and its living descendants, ascending, the process itself
// first. Zombies are left out: they have no registers. The error wraps
// [ErrNotFound] if there is no such process.
func Tree(pid int) ([]int, error) {
	if _, err := ReadStatus(pid, pid); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := ReadStatus(child, child)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st.State == 'Z' || st.State == 'X' {
			if tids, err := Tasks(child); err != nil || len(tids) < 2 {
				continue // not only its leader has ended
			}
		}
		children[st.PPID] = append(children[st.PPID], child)
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	slices.Sort(tree[1:])
	return tree, nil
}

// ReadRegs reads NT_PRSTATUS, the general registers: 216 bytes of a 64-bit thread,
// 68 of a 32-bit one (struct user_regs_struct, user_regs_struct32). The error is a
// [*ThreadError].
func (t *Tracer) ReadRegs(tid int) ([]byte, error) {
	const op = "read NT_PRSTATUS"
	th, err := t.thread(tid, op)
	if err != nil {
		return nil, err
	}
	n, err := t.b.GetRegset(tid, unix.NT_PRSTATUS, t.scratch)
	if err != nil {
		return nil, t.threadError(th, op, err)
	}
	return bytes.Clone(t.scratch[:n]), nil
}
