package testprog

import (
	"fmt"
	"strings"
)

// Tick is one line of a status file.
type Tick struct {
	N     int      // counts the process's lines from 1, on through a restore
	PID   int      // the process
	Good  int      // threads whose registers all hold
	Total int      // all threads
	Lost  []string // registers that do not hold: "xmm3"; "2/fcw" for that of thread 2
}

// OK reports whether every register of every thread held.
func (t Tick) OK() bool { return t.Good == t.Total && len(t.Lost) == 0 }

func (t Tick) String() string {
	s := fmt.Sprintf("tick %d pid %d ", t.N, t.PID)
	if t.OK() {
		return s + fmt.Sprintf("OK %d/%d", t.Good, t.Total)
	}
	return s + fmt.Sprintf("BAD %d/%d LOST:%s", t.Good, t.Total, strings.Join(t.Lost, ","))
}

// ParseStatus reads lines of a status file, empty ones aside. The error names
// the first line that is not one.
func ParseStatus(text string) ([]Tick, error) {
	var ticks []Tick
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		var t Tick
		var word string
		if _, err := fmt.Sscanf(line, "tick %d pid %d %s %d/%d", &t.N, &t.PID, &word, &t.Good, &t.Total); err != nil {
			return nil, fmt.Errorf("status line %q: %w", line, err)
		}
		if _, lost, ok := strings.Cut(line, " LOST:"); ok {
			t.Lost = strings.Split(lost, ",")
		}
		if line != t.String() {
			return nil, fmt.Errorf("status line %q: not as the test programs write it", line)
		}
		ticks = append(ticks, t)
	}
	return ticks, nil
}

// Last returns the last tick of each process, in the order they first appear.
func Last(ticks []Tick) []Tick {
	var last []Tick
	at := map[int]int{}
	for _, t := range ticks {
		i, ok := at[t.PID]
		if !ok {
			i = len(last)
			at[t.PID] = i
			last = append(last, t)
		}
		last[i] = t
	}
	return last
}
