package codec

import "slices"

// task is one process of pstree.img.
type task struct {
	pid     int
	threads []int // the leader first, if it has not ended; rubbish for a dead task
}

// leaderless reports whether the leader has ended before the process, as in what
// fpurestore saves: pstree.img names the other threads alone. CRIU dumps no such
// process, and the list of a dead task may look the same, but that has a core image.
func (t *task) leaderless() bool { return len(t.threads) > 0 && !slices.Contains(t.threads, t.pid) }

// Field numbers of images/pstree.proto.
const (
	pstreePID     = 1
	pstreeThreads = 5
)

// parsePstree decodes pstree.img: one entry per process until the file ends
// (criu/pstree.c:prepare_pstree). On an error, a [*FormatError], the tasks before
// it are still given.
func parsePstree(path string, b []byte) ([]task, error) {
	img, err := newImage(path, b, magicPstree)
	if err != nil {
		return nil, err
	}
	var tasks []task
	for img.more() {
		e, err := img.next()
		if err != nil {
			return tasks, err
		}
		var t task
		hasPID := false
		m := (message{img: &img, name: "pstree", base: e.start, b: e.payload})
		for m.next() {
			switch m.num {
			case pstreePID:
				hasPID = true
				t.pid = int(uint32(m.uint("pid")))
			case pstreeThreads:
				words, _ := m.array(nil, 4, "threads")
				for ; len(words) >= 4; words = words[4:] {
					t.threads = append(t.threads, int(le32(words)))
				}
			}
		}
		if img.err != nil {
			return tasks, img.err
		}
		if !hasPID {
			return tasks, &FormatError{path, int64(e.start), "pid", errMissing}
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}
