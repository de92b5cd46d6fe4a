package main

import (
	"fmt"
	"strings"
	"testing"
)

// th is a live thread "pid/tid", or "pid/tid=nspid/nstid" in a pid namespace.
func th(t *testing.T, text string) liveThread {
	t.Helper()
	var l liveThread
	outer, inner, ok := strings.Cut(text, "=")
	if !ok {
		inner = outer
	}
	for _, p := range []struct {
		text     string
		pid, tid *int
	}{{outer, &l.pid, &l.tid}, {inner, &l.nsPID, &l.nsTID}} {
		if _, err := fmt.Sscanf(p.text, "%d/%d", p.pid, p.tid); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	return l
}

func TestMatchThreads(t *testing.T) {
	for _, tt := range []struct {
		name   string
		images string // pid/tid; pid 0: not known; with a + named by the user
		live   string
		maps   map[int]int
		tree   bool
		want   string // image>live, then what is missing: image>? and ?>live
	}{
		{name: "same number", images: "7/7 7/8", live: "7/7 7/8", want: "7>7 8>8"},
		{name: "no number is the same", images: "7/7 7/8", live: "1/1 1/2", want: "7>? 8>? ?>1 ?>2"},
		{name: "single to single", images: "7/7", live: "4/4", want: "7>4"},
		{name: "single to single, thread image", images: "0/8", live: "4/4", want: "8>4"},
		{name: "single to several", images: "7/7", live: "4/4 4/5", want: "7>? ?>4 ?>5"},
		{name: "several to single", images: "7/7 7/8", live: "4/4", want: "7>? 8>? ?>4"},
		{name: "namespace", images: "1/1 1/2", live: "700/700=1/1 700/701=1/2", want: "1>700 2>701"},
		{name: "namespace, numbers outside", images: "700/700 700/701", live: "700/700=1/1 700/701=1/2", want: "700>700 701>701"},
		// Thread 2 outside is another one inside.
		{name: "namespace, colliding numbers", images: "1/1 1/2 1/3", live: "2/2=1/1 2/3=1/2 2/4=1/3", want: "1>2 2>3 3>4"},
		{name: "namespace, colliding task", images: "1/1 1/2 7/7", live: "7/7=1/1 7/8=1/2", want: "1>7 2>8"},
		{name: "namespace, colliding tree", images: "1/1 7/7", live: "7/7=1/1 9/9=7/7", tree: true, want: "1>7 7>9"},
		{name: "two namespaces", images: "1/1", live: "5/5=1/1 6/6=1/1", tree: true, want: "1>? ?>5 ?>6"},
		{name: "map", images: "7/7 7/8", live: "1/1 1/2", maps: map[int]int{7: 2, 8: 1}, want: "8>1 7>2"},
		{name: "map one, the other by number", images: "7/7 7/8", live: "1/1 1/8", maps: map[int]int{7: 1}, want: "7>1 8>8"},
		{name: "map over a number", images: "7/7 7/8", live: "7/7 7/8", maps: map[int]int{7: 8}, want: "7>8 8>? ?>7"},
		{name: "map to nothing", images: "7/7", live: "1/1", maps: map[int]int{7: 9}, want: "7>? ?>1"},
		{name: "map from nothing", images: "7/7", live: "1/1", maps: map[int]int{9: 1}, want: "7>? ?>1"},
		{name: "other task", images: "7/7 7/8 9/9", live: "7/7 7/8", want: "7>7 8>8"},
		{name: "other task by map", images: "7/7 9/9", live: "4/4", maps: map[int]int{9: 4}, want: "9>4"},
		{name: "task of the tree is missing", images: "7/7 9/9", live: "7/7", tree: true, want: "7>7 9>?"},
		{name: "process of the tree is missing", images: "7/7", live: "7/7 9/9", tree: true, want: "7>7 ?>9"},
		{name: "tree", images: "7/7 7/8 9/9", live: "7/7 7/8 9/9", tree: true, want: "7>7 8>8 9>9"},
		{name: "named images", images: "7/7+ 0/8+", live: "7/7 7/8", want: "7>7 8>8"},
		{name: "named image of another task", images: "7/7+ 9/9+", live: "7/7", want: "7>7 9>?"},
		{name: "the same image twice", images: "7/7+ 7/7+", live: "7/7", want: "7>7 7>?"},
		{name: "no pstree", images: "0/7 0/8", live: "7/7 7/8", want: "7>7 8>8"},
		{name: "nothing", images: "", live: "7/7", want: "?>7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var images []imageThread
			for _, f := range strings.Fields(tt.images) {
				name, named := strings.CutSuffix(f, "+")
				l := th(t, name)
				images = append(images, imageThread{pid: l.pid, tid: l.tid, named: named})
			}
			var live []liveThread
			for _, f := range strings.Fields(tt.live) {
				live = append(live, th(t, f))
			}
			m := matchThreads(images, live, tt.maps, tt.tree)
			var got []string
			for _, p := range m.pairs {
				got = append(got, fmt.Sprintf("%d>%d", p.image.tid, p.live.tid))
			}
			for _, i := range m.missingLive {
				got = append(got, fmt.Sprintf("%d>?", i.tid))
			}
			for _, l := range m.missingImage {
				got = append(got, fmt.Sprintf("?>%d", l.tid))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s, want %s", s, tt.want)
			}
		})
	}
}
