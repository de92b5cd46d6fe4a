package testprog

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

func TestParseStatus(t *testing.T) {
	tests := []struct {
		line string
		want Tick
	}{
		{"tick 1 pid 7 OK 1/1", Tick{N: 1, PID: 7, Good: 1, Total: 1}},
		{"tick 12 pid 105 OK 8/8", Tick{N: 12, PID: 105, Good: 8, Total: 8}},
		{"tick 3 pid 9 BAD 1/2 LOST:xmm3,1/fcw", Tick{N: 3, PID: 9, Good: 1, Total: 2, Lost: []string{"xmm3", "1/fcw"}}},
	}
	var all strings.Builder
	var want []Tick
	for _, tt := range tests {
		fmt.Fprintln(&all, tt.line)
		want = append(want, tt.want)
	}
	got, err := ParseStatus(all.String())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, bad := range []string{
		"tick", "tick 1 pid 2 OK", "tick 1 pid 2 OK 1/2", "tick 1 pid 2 BAD 1/1", "tick 1 pid 2 OK 1/1 more", "Tick 1 pid 2 OK 1/1",
	} {
		if ticks, err := ParseStatus(bad + "\n"); err == nil {
			t.Errorf("%q is taken as %v", bad, ticks)
		}
	}
}

func TestLast(t *testing.T) {
	got := Last([]Tick{{N: 1, PID: 5}, {N: 1, PID: 6}, {N: 2, PID: 5}, {N: 3, PID: 5}})
	want := []Tick{{N: 3, PID: 5}, {N: 1, PID: 6}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// build compiles the programs, or skips the test where that is not possible.
func build(t *testing.T) Binaries {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		testcmd.Lack(t, "this is not linux/amd64, which the test programs are for")
	}
	testcmd.Tool(t, "gcc")
	if _, err := os.Stat("/usr/include/stdio.h"); err != nil {
		testcmd.Lack(t, "the headers of libc are not installed")
	}
	p, err := Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs a program until its status file has n lines for each of the given
// number of processes, ends it, and returns the lines.
func run(t *testing.T, n, processes int, status string, program string, args ...string) []Tick {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only ends what hangs
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	defer func() {
		killGroup(cmd)
		if done != nil {
			<-done
		}
	}()
	for {
		select {
		case err := <-done:
			done = nil
			t.Fatalf("%s ended: %v", strings.Join(cmd.Args, " "), err)
		case <-time.After(20 * time.Millisecond):
		}
		text, err := os.ReadFile(status)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ticks, err := ParseStatus(string(text))
		if err != nil {
			t.Fatal(err)
		}
		enough := 0
		for _, l := range Last(ticks) {
			if l.N >= n {
				enough++
			}
		}
		if enough == processes {
			return ticks
		}
	}
}

// The registers hold where nobody interferes, whatever CPU this is.
func TestFPUHold(t *testing.T) {
	p := build(t)
	tests := []struct {
		mode               string
		threads, processes int
	}{
		{"init", 1, 1},
		{"sse", 1, 1},
		{"auto", 1, 1},
		{"auto", 8, 1},
		{"auto", 2, 3},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s-%d-%d", tt.mode, tt.threads, tt.processes), func(t *testing.T) {
			t.Parallel()
			status := filepath.Join(t.TempDir(), "status")
			for _, tick := range run(t, 3, tt.processes, status, p.FPUHold, tt.mode, status, fmt.Sprint(tt.threads), fmt.Sprint(tt.processes)) {
				if !tick.OK() || tick.Total != tt.threads {
					t.Errorf("got %q, want OK %d/%[2]d", tick, tt.threads)
				}
			}
		})
	}
}

// The registers are in the frame of the handler, and hold when it has returned.
func TestFPUHoldSignal(t *testing.T) {
	p := build(t)
	dir := t.TempDir()
	status, goFile := filepath.Join(dir, "status"), filepath.Join(dir, "go")
	time.AfterFunc(300*time.Millisecond, func() { os.WriteFile(goFile, nil, 0o644) })
	for _, tick := range run(t, 8, 1, status, p.FPUHold, "-s", goFile, "auto", status) {
		if !tick.OK() {
			t.Errorf("got %q", tick)
		}
	}
}

func TestFPUHoldUsage(t *testing.T) {
	p := build(t)
	for _, args := range [][]string{{}, {"sse"}, {"nonsense", "/dev/null"}, {"sse", "/dev/null", "0"}, {"sse", "/dev/null", "1", "1", "1"}, {"-s", "sse", "/dev/null"}} {
		err := exec.Command(p.FPUHold, args...).Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("%q: got %v, want exit status 2", args, err)
		}
	}
}

// Every function of lazycall gives the right answer.
func TestLazyCall(t *testing.T) {
	p := build(t)
	dir := t.TempDir()
	status, goFile := filepath.Join(dir, "status"), filepath.Join(dir, "go")
	if err := os.WriteFile(goFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tick := range run(t, 16, 1, status, p.LazyCall, status, goFile) {
		if !tick.OK() {
			t.Errorf("got %q", tick)
		}
	}
}

// lazycall is of no use if the linker binds it at once.
func TestLazyCallIsLazy(t *testing.T) {
	p := build(t)
	f, err := elf.Open(p.LazyCall)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var flags uint64
	for _, tag := range []elf.DynTag{elf.DT_FLAGS, elf.DT_FLAGS_1, elf.DT_BIND_NOW} {
		values, err := f.DynValue(tag)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			switch tag {
			case elf.DT_FLAGS:
				flags |= v & uint64(elf.DF_BIND_NOW)
			case elf.DT_FLAGS_1:
				flags |= v & uint64(elf.DF_1_NOW)
			case elf.DT_BIND_NOW:
				flags = 1
			}
		}
	}
	if flags != 0 {
		t.Error("lazycall is bound at its start")
	}
}
