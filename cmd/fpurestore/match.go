package main

import (
	"cmp"
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// imageThread is one thread of the checkpoint.
type imageThread struct {
	pid, tid int // pid 0: unknown
	comm     string
	named    bool // by the user, not found in a directory
	state    *xstate.State
	decision *decision
}

// liveThread is one thread of the target.
type liveThread struct {
	pid, tid int
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
	var m matching
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
			_, again := byTID[tid]
			twice[tid] = twice[tid] || again
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
