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
	state    *xstate.State
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

// matchThreads pairs the images with the live threads of the given processes: by
// --map, by the same number, by the number in the pid namespace, and last a single
// thread with a single thread. Images of other tasks of the checkpoint are left out
// where the task of the target can be told.
func matchThreads(images []imageThread, live []liveThread, mapping map[int]int) matching {
	images = tasksOf(images, live, mapping)
	var m matching
	taken := map[int]bool{}
	byTID, byNS := map[int]liveThread{}, map[int]liveThread{}
	for _, l := range live {
		byTID[l.tid] = l
		byNS[l.nsTID] = l
	}
	done := make([]bool, len(images))
	pair := func(i int, l liveThread, ok bool) {
		if ok && !done[i] && !taken[l.tid] {
			m.pairs = append(m.pairs, match{images[i], l})
			done[i], taken[l.tid] = true, true
		}
	}
	for i, img := range images {
		if tid, mapped := mapping[img.tid]; mapped {
			l, ok := byTID[tid]
			pair(i, l, ok)
		}
	}
	for _, by := range []map[int]liveThread{byTID, byNS} {
		for i, img := range images {
			if _, mapped := mapping[img.tid]; !mapped {
				l, ok := by[img.tid]
				pair(i, l, ok)
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
func tasksOf(images []imageThread, live []liveThread, mapping map[int]int) []imageThread {
	wanted := map[int]bool{}
	liveTIDs := map[int]bool{}
	for _, l := range live {
		wanted[l.pid], wanted[l.nsPID] = true, true
		liveTIDs[l.tid] = true
	}
	known := map[int]bool{}
	for _, img := range images {
		if to, ok := mapping[img.tid]; wanted[img.pid] || ok && liveTIDs[to] {
			known[img.pid] = true
		}
	}
	if len(known) == 0 || known[0] {
		return images
	}
	return slices.DeleteFunc(slices.Clone(images), func(img imageThread) bool { return !known[img.pid] })
}
