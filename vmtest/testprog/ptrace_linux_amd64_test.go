package testprog

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// fpuhold is a witness only if it can say no: each register that is changed
// behind its back is named, that one and no other.
func TestFPUHoldNotices(t *testing.T) {
	b := build(t)
	// One byte of the legacy area (SDM vol. 1, table 10-2) flipped at a time,
	// in a way that any CPU accepts.
	tests := []struct {
		lost   string
		offset int
		bits   byte
	}{
		{"fcw", 1, 0x04},
		{"fsw", 3, 0x01},
		{"mxcsr", 24, 0x02},
		{"st2", 32 + 2*16, 0x80},
		{"st4", 32 + 4*16 + 9, 0x80},
		{"xmm0", 160, 0x01},
		{"xmm15", 160 + 15*16 + 15, 0x80},
	}
	for _, tt := range tests {
		t.Run(tt.lost, func(t *testing.T) {
			status := filepath.Join(t.TempDir(), "status")
			cmd := exec.Command(b.FPUHold, "sse", status)
			ownGroup(cmd)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				killGroup(cmd)
				cmd.Wait()
			}()
			if tick := waitTick(t, status, 0); !tick.OK() {
				t.Fatalf("before the change: %q", tick)
			}
			n := editFXSave(t, cmd.Process.Pid, status, func(area []byte) { area[tt.offset] ^= tt.bits })
			if tick := waitTick(t, status, n); !slices.Equal(tick.Lost, []string{tt.lost}) {
				t.Errorf("got %q, want LOST:%s", tick, tt.lost)
			}
		})
	}
}

// In mode erased nothing is right until the values are gone.
func TestFPUHoldErased(t *testing.T) {
	b := build(t)
	status := filepath.Join(t.TempDir(), "status")
	cmd := exec.Command(b.FPUHold, "erased", status)
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		killGroup(cmd)
		cmd.Wait()
	}()
	legacy := func(tick Tick) (names []string) {
		for _, name := range tick.Lost {
			if slices.Contains([]string{"fcw", "fsw", "ftw", "mxcsr"}, name) || strings.HasPrefix(name, "xmm") {
				names = append(names, name)
			}
		}
		return names
	}
	if tick := waitTick(t, status, 0); len(legacy(tick)) != 4+16 {
		t.Fatalf("before the change: %q", tick)
	}
	n := editFXSave(t, cmd.Process.Pid, status, func(area []byte) {
		clear(area[:24])
		clear(area[32:416])
		area[0], area[1] = 0x7f, 0x03   // FCW
		area[24], area[25] = 0x80, 0x1f // MXCSR
	})
	if tick := waitTick(t, status, n); len(legacy(tick)) != 0 {
		t.Errorf("got %q, want no x87 and SSE register", tick)
	}
}

// waitTick returns the first complete line of the status file after line n.
func waitTick(t *testing.T, status string, n int) Tick {
	t.Helper()
	for range 6000 { // a minute: only ends what hangs
		text, err := os.ReadFile(status)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		ticks, err := ParseStatus(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(ticks) > n {
			return ticks[n]
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no line %d in %s", n+1, status)
	return Tick{}
}

// editFXSave changes the legacy area of a stopped process through ptrace, and
// returns how many lines it had written by then that may be from before. The
// test is skipped where ptrace is forbidden.
func editFXSave(t *testing.T, pid int, status string, edit func(area []byte)) int {
	t.Helper()
	runtime.LockOSThread() // ptrace belongs to a thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); errors.Is(err, unix.EPERM) {
		testcmd.Lack(t, "ptrace is forbidden")
	} else if err != nil {
		t.Fatal("seize: ", err)
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		t.Fatal("interrupt: ", err)
	}
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || !ws.Stopped() {
			t.Fatalf("wait: %v, status %#x", err, ws)
		}
		break
	}
	var area [512]byte
	ptrace := func(request, pid int) {
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), 0, uintptr(unsafe.Pointer(&area)), 0, 0)
		if errno != 0 {
			t.Fatalf("ptrace request %d: %v", request, errno)
		}
	}
	ptrace(unix.PTRACE_GETFPREGS, pid)
	edit(area[:])
	ptrace(unix.PTRACE_SETFPREGS, pid)
	text, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceDetach(pid); err != nil {
		t.Fatal("detach: ", err)
	}
	// It may have been stopped between its check and its line.
	return strings.Count(string(text), "\n") + 1
}
