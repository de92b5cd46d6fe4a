package codec

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Task is one process of pstree.img.
type Task struct {
	PID     int
	Threads []int // the leader first, if it has not ended; rubbish for a dead task
	Offset  int64 // of its entry in the file
	Rubbish bool  // the first of Threads can be none: no thread's number, or another's
}

// Led reports whether the leader is among the threads. One that has ended before the
// process is not, as in what fpurestore saves; CRIU dumps no such process. The list of a
// dead task may look the same, but that has a core image.
func (t *Task) Led() bool { return len(t.Threads) == 0 || t.Threads[0] == t.PID }

// Field numbers of images/pstree.proto.
const (
	pstreePID     = 1
	pstreeThreads = 5
)

// pidLimit is above the number of any thread, in every pid namespace
// (include/linux/threads.h:PID_MAX_LIMIT).
const pidLimit = 4 << 20

// ParsePstree decodes pstree.img: one entry per process until the file ends
// (criu/pstree.c:prepare_pstree). On an error, a [*FormatError], the tasks before
// it are still given. A number that two threads have is one: it bounds the threads by
// pidLimit, however long the file is.
func ParsePstree(path string, b []byte) ([]Task, error) {
	img, err := newImage(path, b, magicPstree)
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	take := func(m *message, off, n int, field string) {
		switch {
		case n == 0 || n >= pidLimit:
			m.fail(off, field, fmt.Errorf("no thread has the number %d", n))
		case seen[n]:
			m.fail(off, field, fmt.Errorf("a second thread with the number %d", n))
		}
		seen[n] = true
	}
	var tasks []Task
	for img.more() {
		e, err := img.next()
		if err != nil {
			return tasks, err
		}
		t := Task{Offset: int64(e.start)}
		thread := func(m *message, off int, v uint64) {
			if len(t.Threads) > 0 { // the first is the leader, or rubbish
				take(m, off, int(uint32(v)), "threads")
			}
			t.Threads = append(t.Threads, int(uint32(v)))
		}
		pidAt := 0
		m := img.message(e, "pstree")
		for m.next() {
			switch {
			case m.num == pstreePID:
				t.PID, pidAt = int(uint32(m.u)), m.start
			case m.num == pstreeThreads && m.typ == protowire.BytesType: // packed
				for b := m.val(); len(b) > 0 && img.err == nil; {
					v, n := consumeVarint(b)
					if n < 0 {
						break // the walk finds it too
					}
					thread(&m, m.at-len(b), v)
					b = b[n:]
				}
			case m.num == pstreeThreads:
				thread(&m, m.start, m.u)
			}
		}
		take(&m, pidAt, t.PID, "pid")
		if img.err != nil {
			return tasks, img.err
		}
		tasks = append(tasks, t)
	}
	for i := range tasks {
		if t := &tasks[i]; !t.Led() {
			n := t.Threads[0]
			t.Rubbish = n == 0 || n >= pidLimit || seen[n]
			seen[n] = true
		}
	}
	return tasks, nil
}
