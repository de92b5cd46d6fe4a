package main

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/internal/cli"
)

// BenchmarkRestore compares a restore of 1, 100 and 1000 threads with a loop of the
// system calls that it cannot do without, in turns and on the same process. It
// prints medians in microseconds and their ratios: window is the time that the
// target is held up, from the first request to stop a thread until the last one is
// let go; live is from the first system call about the target to the last; run is
// the whole program, which reads the images too. The cpu ratios compare the
// processor time of the tracing thread, which other load disturbs less.
//
//	go test -run '^$' -bench Restore -benchtime 40x
func BenchmarkRestore(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("threads=%d", n), func(b *testing.B) {
			g := startTarget(b, targetConfig{threads: n})
			want := g.others(1, everything)
			areas := make([][]byte, n)
			for i, s := range want {
				var err error
				if areas[i], err = s.MarshalArea(g.cpu.Layout, int(*g.cpu.XSaveSize)); err != nil {
					b.Fatal(err)
				}
			}
			args := []string{"-t", fmt.Sprint(g.pid), "-D", g.images(want, same)}
			tids := g.tids()
			var window, live, run, bareWindow, bareLive []time.Duration
			var cpu, bareCPU [2]time.Duration // window and live
			for i := 0; b.Loop(); i++ {
				runtime.GC() // of one is not to fall into the time of the other
				for turn := range 2 {
					if (i+turn)%2 == 0 {
						begin := time.Now()
						s := &stopwatch{Backend: ptrace.NewSystem(), left: n}
						if code, errs := timed(s, args); code != 0 {
							b.Fatal(errs)
						}
						run = append(run, time.Since(begin))
						window = append(window, s.end.wall.Sub(s.first.wall))
						live = append(live, s.end.wall.Sub(s.begin.wall))
						cpu[0] += s.end.cpu - s.first.cpu
						cpu[1] += s.end.cpu - s.begin.cpu
						continue
					}
					s, err := bare(tids, areas)
					if err != nil {
						b.Fatal(err)
					}
					bareWindow = append(bareWindow, s.end.wall.Sub(s.first.wall))
					bareLive = append(bareLive, s.end.wall.Sub(s.begin.wall))
					bareCPU[0] += s.end.cpu - s.first.cpu
					bareCPU[1] += s.end.cpu - s.begin.cpu
				}
			}
			b.ReportMetric(0, "ns/op")
			for _, m := range []struct {
				name string
				d    []time.Duration
			}{{"window-us", window}, {"bare-window-us", bareWindow}, {"live-us", live}, {"bare-us", bareLive}, {"run-us", run}} {
				b.ReportMetric(median(m.d), m.name)
			}
			b.ReportMetric(median(window)/median(bareWindow), "window-ratio")
			b.ReportMetric(median(live)/median(bareLive), "live-ratio")
			b.ReportMetric(float64(cpu[0])/float64(bareCPU[0]), "window-cpu-ratio")
			b.ReportMetric(float64(cpu[1])/float64(bareCPU[1]), "live-cpu-ratio")
		})
	}
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Nanoseconds()) / 1e3
}

// stopwatch notes the first attachment, the first interrupt and the last detach.
type stopwatch struct {
	ptrace.Backend
	begin, first, end instant
	left              int // threads to let go
}

type instant struct {
	wall time.Time
	cpu  time.Duration // of the thread
}

func now() instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return instant{time.Now(), time.Duration(ts.Nano())}
}

func (s *stopwatch) Open(pid int) (ptrace.Status, error) {
	s.begin = now()
	return s.Backend.Open(pid)
}

func (s *stopwatch) Interrupt(tid int) error {
	if s.first.wall.IsZero() {
		s.first = now()
	}
	return s.Backend.Interrupt(tid)
}

func (s *stopwatch) Detach(tid, sig int) error {
	err := s.Backend.Detach(tid, sig)
	if s.left--; s.left == 0 {
		s.end = now()
	}
	return err
}

func timed(b ptrace.Backend, args []string) (int, string) {
	var out, errs bytes.Buffer
	s := cli.NewIO("fpurestore", strings.NewReader(""), &out, &errs)
	code, err := dispatch(s, args, func(s *cli.IO, o *options) (cli.Exit, error) {
		j := newJob(s, o)
		j.open = func(pids ...int) (*ptrace.Tracer, error) { return ptrace.OpenBackend(b, pids...) }
		return j.live()
	})
	return int(s.Finish(code, err)), errs.String()
}

// bare makes the same change with system calls and nothing else: no images, no
// check, no deadline, no way back.
func bare(tids []int, areas [][]byte) (s stopwatch, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s.begin = now()
	b := ptrace.NewSystem()
	defer b.Close()
	each := func(f func(i, tid int) error) {
		for i, tid := range tids {
			if err == nil {
				err = f(i, tid)
			}
		}
	}
	buf := make([]byte, 64<<10)
	get := func(_, tid int) error {
		_, err := b.GetRegset(tid, unix.NT_X86_XSTATE, buf)
		return err
	}
	each(func(_, tid int) error { return b.Seize(tid) })
	s.first = now()
	each(func(_, tid int) error { return b.Interrupt(tid) })
	each(func(_, tid int) error {
		_, err := unix.Wait4(tid, nil, unix.WALL, nil)
		return err
	})
	each(get)
	each(func(i, tid int) error { return b.SetRegset(tid, unix.NT_X86_XSTATE, areas[i]) })
	each(get)
	each(func(_, tid int) error { return b.Detach(tid, 0) })
	s.end = now()
	return s, err
}
