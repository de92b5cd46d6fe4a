package codec

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// task is one process of pstree.img.
type task struct {
	pid     int
	threads []int // the leader first, if it has not ended; rubbish for a dead task
	at      int64 // of its entry
	rubbish bool  // the first of threads can be none: no thread's number, or another's
}

// led reports whether the leader is among the threads. One that has ended before the
// process is not, as in what fpurestore saves; CRIU dumps no such process. The list of a
// dead task may look the same, but that has a core image.
func (t *task) led() bool { return len(t.threads) == 0 || t.threads[0] == t.pid }

// Field numbers of images/pstree.proto.
const (
	pstreePID     = 1
	pstreeThreads = 5
)

// pidLimit is above the number of any thread, in every pid namespace
// (include/linux/threads.h:PID_MAX_LIMIT).
const pidLimit = 4 << 20

// parsePstree decodes pstree.img: one entry per process until the file ends
// (criu/pstree.c:prepare_pstree). On an error, a [*FormatError], the tasks before
// it are still given. A number that two threads have is one: it bounds the threads by
// pidLimit, however long the file is.
func parsePstree(path string, b []byte) ([]task, error) {
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
	var tasks []task
	for img.more() {
		e, err := img.next()
		if err != nil {
			return tasks, err
		}
		t := task{at: int64(e.start)}
		thread := func(m *message, off int, v uint64) {
			if len(t.threads) > 0 { // the first is the leader, or rubbish
				take(m, off, int(uint32(v)), "threads")
			}
			t.threads = append(t.threads, int(uint32(v)))
		}
		pidAt := 0
		m := img.message(e, "pstree")
		for m.next() {
			switch {
			case m.num == pstreePID:
				t.pid, pidAt = int(uint32(m.u)), m.start
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
		take(&m, pidAt, t.pid, "pid")
		if img.err != nil {
			return tasks, img.err
		}
		tasks = append(tasks, t)
	}
	for i := range tasks {
		if t := &tasks[i]; !t.led() {
			n := t.threads[0]
			t.rubbish = n == 0 || n >= pidLimit || seen[n]
			seen[n] = true
		}
	}
	return tasks, nil
}
