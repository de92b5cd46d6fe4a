package ptrace

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkSecondWrite says what it costs that a component goes to INIT below one that
// stays in use, which takes two writes for each thread (see writesFor): a restore of
// ZMM_Hi256 without AVX against one of ZMM_Hi256 and an AVX of zeros, in turns and on
// the same process.
//
//	go test -run '^$' -bench SecondWrite -benchtime 40x
func BenchmarkSecondWrite(b *testing.B) {
	if hostComponents()[bitZMMHi256].size == 0 {
		b.Skip("CPUID leaf 0xD lists no ZMM_Hi256 state")
	}
	g := start(b, config{threads: 1000, mode: "futex", full: true})
	tids := g.tids()
	avx := hostComponents()[bitAVX]
	var window, cpu [2][]time.Duration
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := 0; b.Loop(); i++ {
		runtime.GC()
		for j := range 2 {
			two := (i + j) % 2
			begin := cpuTime()
			w, _, err := timeRestore(tids, g.PID, func(old []byte) []byte {
				area := flip(old)
				clear(area[avx.offset:][:avx.size])
				setBV(area, g.Mask&^uint64(two<<bitAVX))
				return area
			})
			if err != nil {
				b.Fatal(err)
			}
			window[two], cpu[two] = append(window[two], w), append(cpu[two], cpuTime()-begin)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(window[0]), "one-window-us")
	b.ReportMetric(median(window[1]), "two-window-us")
	b.ReportMetric(median(window[1])/median(window[0]), "window-ratio")
	b.ReportMetric(median(cpu[1])/median(cpu[0]), "cpu-ratio")
}

// BenchmarkStarved says how long after its timeout a Stop that fails and the Close that
// follows it are over, where 600 threads of the target want the CPU all the time, and
// how many turns that is: what a sleep of no length takes there. stopped is how often
// Stop succeeded, which then counts from the timeout too.
//
//	nice -n 19 go test -run '^$' -bench Starved -benchtime 3x
func BenchmarkStarved(b *testing.B) {
	g := start(b, config{hogs: 600})
	for _, timeout := range []time.Duration{time.Millisecond, 5 * time.Second} {
		b.Run(timeout.String(), func(b *testing.B) {
			var turns, over, cpu []time.Duration
			stopped := 0
			for b.Loop() {
				apart(b, func() {
					begin := time.Now()
					unix.Nanosleep(&unix.Timespec{Nsec: 1}, nil)
					turns = append(turns, time.Since(begin))
					t, err := Open(g.PID)
					if err != nil {
						b.Error(err)
						return
					}
					ctx, cancel := context.WithTimeout(context.Background(), timeout)
					defer cancel()
					begin, beginCPU := time.Now(), cpuTime()
					if err := t.Stop(ctx); err == nil {
						stopped++
					} else if !errors.Is(err, ErrTimeout) {
						b.Error(err)
					}
					if err := t.Close(); err != nil {
						b.Error(err)
					}
					over, cpu = append(over, time.Since(begin)-timeout), append(cpu, cpuTime()-beginCPU)
				})
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(turns)/1e3, "turn-ms")
			b.ReportMetric(median(over)/1e3, "over-ms")
			b.ReportMetric(median(over)/median(turns), "over-turns")
			b.ReportMetric(median(cpu)/1e3, "cpu-ms")
			b.ReportMetric(float64(stopped)/float64(b.N), "stopped")
		})
	}
	g.untraced()
	g.expect(g.given())
}

func cpuTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// median in microseconds.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Nanoseconds()) / 1e3
}

// stopwatch notes the first interrupt and the last detach.
type stopwatch struct {
	Backend
	first, last time.Time
}

func (s *stopwatch) Interrupt(tid int) error {
	if s.first.IsZero() {
		s.first = time.Now()
	}
	return s.Backend.Interrupt(tid)
}

func timeRestore(tids []int, pid int, edit func([]byte) []byte) (window, total time.Duration, err error) {
	begin := time.Now()
	s := &stopwatch{Backend: NewSystem()}
	t, err := OpenBackend(s, pid)
	if err != nil {
		return 0, 0, err
	}
	defer t.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := t.Stop(ctx); err != nil {
		return 0, 0, err
	}
	areas := make(map[int]Area, len(tids))
	for _, tid := range tids {
		a, err := t.Read(tid)
		if err != nil {
			return 0, 0, err
		}
		areas[tid] = Area{a.Set, edit(a.Data)}
	}
	if err := t.Swap(areas); err != nil {
		return 0, 0, err
	}
	if err := t.detach(); err != nil {
		return 0, 0, err
	}
	s.last = time.Now()
	if err := t.Close(); err != nil {
		return 0, 0, err
	}
	return s.last.Sub(s.first), time.Since(begin), nil
}
