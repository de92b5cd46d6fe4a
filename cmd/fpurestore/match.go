package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// imageThread is one thread of the checkpoint.
type imageThread struct {
	pid, tid int // pid 0: unknown
	comm     string
	named    bool // by the user, not found in a directory
	decision *decision
}

// liveThread is one thread of the target.
type liveThread struct {
	pid, tid int
	ppid     int
	nsPID    int // the numbers in the innermost pid namespace
	nsTID    int
	comm     string
}

// match is an image and the live thread that it goes into.
type match struct {
	image imageThread
	live  liveThread
}

// matching is how the two sides fit.
type matching struct {
	pairs        []match
	missingLive  []imageThread // no live thread for the image
	missingImage []liveThread  // no image for the live thread
}

// missing counts what is left over on both sides.
func (m *matching) missing() int { return len(m.missingLive) + len(m.missingImage) }

// matchThreads pairs the images with the live threads of the given processes: by
// --map, by the same number, by the number in the pid namespace, and last a single
// thread with a single thread. If the target is one process, images of other tasks
// of the checkpoint are left out where the task of the target can be told, unless
// the user has named them; of a tree, all tasks of the checkpoint have to be there.
//
// The numbers of a checkpoint are all of one namespace. In a container they are
// small, and one of them may well be the number outside of another thread. So each
// numbering is tried alone, then both together, and the first that leaves the least
// over wins.
func matchThreads(images []imageThread, live []liveThread, mapping map[int]int, tree bool) matching {
	outer := func(l liveThread) (pid, tid int) { return l.pid, l.tid }
	inner := func(l liveThread) (pid, tid int) { return l.nsPID, l.nsTID }
	best := matchBy(images, live, mapping, tree, outer)
	if !slices.ContainsFunc(live, func(l liveThread) bool { return l.tid != l.nsTID || l.pid != l.nsPID }) {
		return best
	}
	for _, by := range [][]numbering{{inner}, {outer, inner}} {
		if m := matchBy(images, live, mapping, tree, by...); m.missing() < best.missing() {
			best = m
		}
	}
	return best
}

// numbering gives the numbers of a thread in one pid namespace.
type numbering func(liveThread) (pid, tid int)

func matchBy(images []imageThread, live []liveThread, mapping map[int]int, tree bool, by ...numbering) matching {
	if !tree {
		images = tasksOf(images, live, mapping, by)
	}
	m := matching{pairs: make([]match, 0, min(len(images), len(live)))}
	done, taken := make([]bool, len(images)), make(map[int]bool, len(live))
	pair := func(i int, l liveThread, ok bool) {
		if ok && !done[i] && !taken[l.tid] {
			m.pairs = append(m.pairs, match{images[i], l})
			done[i], taken[l.tid] = true, true
		}
	}
	byTID := make(map[int]liveThread, len(live))
	for _, l := range live {
		byTID[l.tid] = l
	}
	for i, img := range images {
		if tid, mapped := mapping[img.tid]; mapped {
			l, ok := byTID[tid]
			pair(i, l, ok)
		}
	}
	for _, number := range by {
		clear(byTID)
		twice := map[int]bool{} // of two namespaces: either may be meant
		for _, l := range live {
			_, tid := number(l)
			if _, again := byTID[tid]; again {
				twice[tid] = true
			}
			byTID[tid] = l
		}
		for i, img := range images {
			if _, mapped := mapping[img.tid]; !mapped {
				l, ok := byTID[img.tid]
				pair(i, l, ok && !twice[img.tid])
			}
		}
	}
	if len(images) == 1 && len(live) == 1 && len(mapping) == 0 {
		pair(0, live[0], true)
	}
	for i, img := range images {
		if !done[i] {
			m.missingLive = append(m.missingLive, img)
		}
	}
	for _, l := range live {
		if !taken[l.tid] {
			m.missingImage = append(m.missingImage, l)
		}
	}
	slices.SortFunc(m.pairs, func(a, b match) int {
		return cmp.Or(cmp.Compare(a.live.pid, b.live.pid), cmp.Compare(a.live.tid, b.live.tid))
	})
	return m
}

// tasksOf keeps the images of the tasks that the live processes are. If none can be
// told by its number, all are kept, and the mismatch is reported.
func tasksOf(images []imageThread, live []liveThread, mapping map[int]int, by []numbering) []imageThread {
	wanted := map[int]bool{}
	liveTIDs := map[int]bool{}
	for _, l := range live {
		for _, number := range by {
			pid, _ := number(l)
			wanted[pid] = true
		}
		liveTIDs[l.tid] = true
	}
	known := map[int]bool{}
	for _, img := range images {
		if to, ok := mapping[img.tid]; wanted[img.pid] || ok && liveTIDs[to] {
			known[img.pid] = true
		}
	}
	if len(known) == 0 {
		return images
	}
	return slices.DeleteFunc(slices.Clone(images), func(img imageThread) bool {
		return !known[img.pid] && img.pid != 0 && !img.named
	})
}

// match pairs the threads and heeds what the policy said. An error says that nothing
// is to be done.
func (j *job) match() error {
	if !j.o.restore {
		return nil
	}
	m, err := j.matched()
	if err != nil {
		return err
	}
	if err := j.mapped(&m); err != nil {
		return err
	}
	if m.missing() > 0 && !j.o.ignoreMissing || len(m.pairs) == 0 {
		return &mismatchError{m}
	}
	j.plan = plan(m.pairs)
	j.judged = compat.Judge(compat.Target{Host: j.cpu}, compat.Policy{Force: j.o.force})
	for _, p := range j.plan {
		j.judged.Add(compat.Judged{PID: p.live.pid, TID: p.live.tid, Report: p.Report})
	}
	if j.judged.Refused() {
		for _, p := range j.plan {
			if p.Refused && p.Verdict == compat.Damaged {
				return &damagedError{p.image.tid, j.judged.OnlyLost(), p.Err()}
			}
		}
		return &refusedError{view.Price(j.judged.Threads)}
	}
	for i := range j.plan {
		if err := j.plan[i].unbuilt(); err != nil {
			return err
		}
	}
	return nil
}

// matched pairs the threads. One that no image is for may be one without registers,
// and then does not count.
func (j *job) matched() (matching, error) {
	m := matchThreads(j.images, j.threads, j.o.mapping, j.o.tree)
	n := len(j.without)
	for _, l := range m.missingImage {
		if _, ok, err := j.registers(l); err != nil {
			return m, err
		} else if !ok {
			j.without[l.tid] = true
		}
	}
	if len(j.without) == n {
		return m, nil
	}
	j.threads = slices.DeleteFunc(j.threads, func(l liveThread) bool { return j.without[l.tid] })
	return matchThreads(j.images, j.threads, j.o.mapping, j.o.tree), nil
}

// mapped returns a [*mapError] unless every --map was followed.
func (j *job) mapped(m *matching) error {
	for _, from := range slices.Sorted(maps.Keys(j.o.mapping)) {
		to := j.o.mapping[from]
		switch {
		case slices.ContainsFunc(m.pairs, func(p match) bool { return p.image.tid == from && p.live.tid == to }):
		case !slices.ContainsFunc(j.images, func(t imageThread) bool { return t.tid == from }):
			return &mapError{fmt.Sprintf("--map=%d=%d: there is no image of a thread %d", from, to, from),
				"the images are of " + listTIDs(j.images, func(t imageThread) int { return t.tid })}
		default:
			hint := "its threads are " + listTIDs(j.threads, func(t liveThread) int { return t.tid })
			if !j.o.tree {
				hint += "; --tree takes in those of its descendants"
			}
			return &mapError{fmt.Sprintf("--map=%d=%d: %s has no thread %d", from, to, j.target(), to), hint}
		}
	}
	return nil
}

// mismatchError is threads that only one side has.
type mismatchError struct{ matching }

func (e *mismatchError) Error() string {
	var parts []string
	if n := len(e.missingLive); n > 0 {
		parts = append(parts, fmt.Sprintf("no live thread for the %s %s", view.Noun(n, "image"), listTIDs(e.missingLive, func(t imageThread) int { return t.tid })))
	}
	if n := len(e.missingImage); n > 0 {
		parts = append(parts, fmt.Sprintf("no image for the live %s %s", view.Noun(n, "thread"), listTIDs(e.missingImage, func(t liveThread) int { return t.tid })))
	}
	return strings.Join(parts, "; ")
}

// listTIDs names up to eight threads.
func listTIDs[T any](list []T, tid func(T) int) string {
	var names []string
	for i, t := range list {
		if i == 8 {
			names = append(names, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		names = append(names, fmt.Sprint(tid(t)))
	}
	return strings.Join(names, " ")
}

// hint names the options that lift the mismatch.
func (e *mismatchError) hint(o *options) string {
	var ways []string
	if len(e.missingLive) > 0 && len(e.missingImage) > 0 {
		ways = append(ways, "--map=IMGTID=TID pairs threads")
	}
	if !o.ignoreMissing && (len(e.pairs) > 0 || ways != nil) {
		ways = append(ways, "--ignore-missing leaves the others alone")
	}
	if !o.tree && len(e.missingLive) > 0 {
		ways = append(ways, "--tree takes in descendants")
	}
	if ways == nil {
		return "-t names another process, -D another checkpoint"
	}
	return strings.Join(ways, ", ")
}

// mapError is a --map that was not followed. The hint names what could have stood there.
type mapError struct{ text, hint string }

func (e *mapError) Error() string { return e.text }

// refusedError is a plan that the policy refuses.
type refusedError struct{ price string }

func (e *refusedError) Error() string { return "refused, nothing was changed: " + e.price }

// damagedError is an image that the policy calls damaged.
type damagedError struct {
	tid   int
	force bool // --force would lift it
	err   error
}

func (e *damagedError) Error() string { return fmt.Sprintf("image %d: %v", e.tid, e.err) }
func (e *damagedError) Unwrap() error { return e.err }
