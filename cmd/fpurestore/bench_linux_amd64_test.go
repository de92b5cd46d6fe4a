package main

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

// BenchmarkRestore compares a restore of 1 to 5000 threads with a loop of the system
// calls that it cannot do without, in turns and on the same process. It prints median
// times in microseconds, and medians of the ratios to the bare calls of the same
// turn: window is the time that the target is held up, from the first request to stop
// a thread until the last one is let go; live is from the first system call about the
// target to the last; run is all but the start of the program, and so reads the
// images too. Those with cpu compare the processor time of the tracing thread, which
// other load disturbs less.
//
//	go test -run '^$' -bench Restore -benchtime 40x ./cmd/fpurestore
func BenchmarkRestore(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 5000} {
		b.Run(fmt.Sprintf("threads=%d", n), func(b *testing.B) { benchmarkRestore(b, n) })
	}
}

func benchmarkRestore(b *testing.B, n int) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as live has it
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
	var ours, theirs []sample
	for i := 0; b.Loop(); i++ {
		runtime.GC() // of one is not to fall into the time of the other
		for turn := range 2 {
			begin := time.Now()
			if (i+turn)%2 == 0 {
				s := &stopwatch{Backend: ptrace.NewSystem(), left: n}
				if code, errs := timed(s, args); code != 0 {
					b.Fatal(errs)
				}
				ours = append(ours, s.sample(time.Since(begin)))
				continue
			}
			s, err := bare(tids, areas)
			if err != nil {
				b.Fatal(err)
			}
			theirs = append(theirs, s.sample(time.Since(begin)))
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, m := range []struct {
		name string
		of   func(sample) time.Duration
	}{
		{"window", func(s sample) time.Duration { return s.window }},
		{"window-cpu", func(s sample) time.Duration { return s.windowCPU }},
		{"live", func(s sample) time.Duration { return s.live }},
		{"live-cpu", func(s sample) time.Duration { return s.liveCPU }},
		{"run", func(s sample) time.Duration { return s.run }},
	} {
		times, ratios := make([]float64, len(ours)), make([]float64, len(ours))
		for i := range ours {
			times[i] = float64(m.of(ours[i]).Nanoseconds()) / 1e3
			ratios[i] = float64(m.of(ours[i])) / float64(m.of(theirs[i]))
		}
		b.ReportMetric(median(times), m.name+"-us")
		b.ReportMetric(median(ratios), m.name+"-ratio")
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// sample is what one restore took.
type sample struct{ window, windowCPU, live, liveCPU, run time.Duration }

// stopwatch notes the first attachment, the first interrupt and the last detach.
type stopwatch struct {
	ptrace.Backend
	begin, first, end instant
	left              int // threads to let go
}

func (s *stopwatch) sample(run time.Duration) sample {
	return sample{
		window: s.end.wall.Sub(s.first.wall), windowCPU: s.end.cpu - s.first.cpu,
		live: s.end.wall.Sub(s.begin.wall), liveCPU: s.end.cpu - s.begin.cpu,
		run: run,
	}
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
		through := linux
		through.open = func(pids ...int) (tracer, error) { return ptrace.OpenBackend(b, pids...) }
		return restoreOn(through, s, o)
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
