package guest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/vmtest/guest"
)

// What the agent's own tests cannot see: files on their way into a guest and
// out of it, its kernel's log, its clean end.
func TestRunVM(t *testing.T) {
	im := guest.Require(t, "tar")
	in := t.TempDir()
	if err := os.WriteFile(filepath.Join(in, "f"), []byte("there and back"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(in, "l")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run,with a comma")
	r, err := im.Run(t.Context(), dir, guest.Job{
		CPU:        "qemu64,-xsave",
		KernelArgs: "fpuimg.test=1",
		Files:      map[string]string{"/job/in": in},
		Steps: []guest.Step{
			{Name: "copy", Script: "cp -a in $OUT"},
			{Name: "hangs", Script: "sleep 100000", Timeout: time.Second},
			{Name: "kernel", Script: "echo hello from step kernel >/dev/kmsg; cat /proc/cmdline; exit 5"},
			{Name: "cpu", Script: "grep -w -o -m 1 -e fxsr -e xsave /proc/cpuinfo; id -u"},
			{Name: "program", Script: "/usr/bin/tar --version && ! [ -e /bin/tar ]"},
			{Name: "root", Script: "mkdir /tmp/r && mount -t tmpfs r /tmp/r && mkdir /tmp/r/old && unshare -m pivot_root /tmp/r /tmp/r/old"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Boot <= 0 || r.Boot > r.Elapsed {
		t.Errorf("first step after %s of %s", r.Boot, r.Elapsed)
	}
	wantOK(t, r.Step("copy"))
	back := filepath.Join(r.Step("copy").Dir, "in")
	if data, err := os.ReadFile(filepath.Join(back, "l")); err != nil || string(data) != "there and back" {
		t.Errorf("got %q, %v", data, err)
	}
	was, err := os.Stat(filepath.Join(in, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if is, err := os.Stat(filepath.Join(back, "f")); err != nil {
		t.Error(err)
	} else if is.Mode() != was.Mode() || is.ModTime().Unix() != was.ModTime().Unix() {
		t.Errorf("came back with mode %v and time %v, was %v and %v", is.Mode(), is.ModTime(), was.Mode(), was.ModTime())
	}
	if s := r.Step("hangs"); !s.TimedOut {
		t.Errorf("not ended at its time limit: %s", explain(s))
	}
	if s := r.Step("kernel"); s.Exit != 5 || s.Kernel != "hello from step kernel\n" || !strings.Contains(s.Stdout, "fpuimg.test=1") {
		t.Errorf("got %s", explain(s))
	}
	if s := r.Step("cpu"); s.Stdout != "fxsr\n0\n" {
		t.Errorf("not root on a CPU without xsave: %s", explain(s))
	}
	if s := r.Step("program"); !s.OK() || !strings.HasPrefix(s.Stdout, "tar (GNU tar)") {
		t.Errorf("tar is not the host's: %s", explain(s))
	}
	wantOK(t, r.Step("root"))
	if len(r.Steps) != 6 {
		t.Errorf("%d steps have run, want 6", len(r.Steps))
	}
	for _, name := range []string{"serial.log", "qemu.log", "command"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if cmd, err := os.ReadFile(filepath.Join(dir, "command")); err != nil || !strings.Contains(string(cmd), "-cpu qemu64,-xsave ") {
		t.Errorf("command is %q, %v", cmd, err)
	}
	for _, name := range []string{"initrd", "disk"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
}

// Steps that have this machine's CPU see none of its processes, devices and files, and
// change none of its settings.
func TestHostCPUVM(t *testing.T) {
	im := guest.Require(t)
	const setting = "/proc/sys/vm/swappiness"
	was, err := os.ReadFile(setting)
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.Create(filepath.Join(t.TempDir(), "inherited"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := unix.FcntlInt(open.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	r, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), guest.Job{CPU: guest.HostCPU, Steps: []guest.Step{
		{Name: "apart", Script: "ls -d /proc/[0-9]* | wc -l; ls / /dev; cat /proc/net/dev; ls -l /proc/self/fd"},
		{Name: "leaves", Script: "sleep 100000 &\necho $! >$OUT/pid; exit 3"},
		{Name: "left", Script: "kill $(cat /job/step/leaves/out/pid)"},
		{Name: "setting", Script: "! echo 1 >" + setting},
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantOK(t, r.Step("left"))
	wantOK(t, r.Step("setting"))
	if s := r.Step("leaves"); s.Exit != 3 {
		t.Errorf("got %s", explain(s))
	}
	s := r.Step("apart")
	for _, word := range []string{"vda", "sda", "nvme", "kmsg", "eth0", "home", "/disk", "inherited"} {
		if strings.Contains(s.Stdout, word) {
			t.Errorf("the machine's %s is there: %s", word, explain(s))
		}
	}
	if n := strings.Fields(s.Stdout); len(n) == 0 || len(n[0]) != 1 {
		t.Errorf("the machine's processes are there: %s", explain(s))
	}
	if is, err := os.ReadFile(setting); err != nil || string(is) != string(was) {
		t.Errorf("%s was %q, and is %q, %v", setting, was, is, err)
	}
}

// Of a guest whose kernel panics, what was done until then is there.
func TestPanicVM(t *testing.T) {
	im := guest.Require(t)
	r, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), guest.Job{CPU: "Nehalem", Steps: []guest.Step{
		{Name: "before", Script: "echo done"},
		{Name: "panic", Script: "echo c >/proc/sysrq-trigger"},
		{Name: "after", Script: "echo never"},
	}})
	var run *guest.RunError
	if !errors.As(err, &run) || !errors.Is(err, guest.ErrStopped) {
		t.Fatalf("got %v, want a RunError that wraps ErrStopped", err)
	}
	if len(r.Steps) != 1 || r.Step("before").Stdout != "done\n" {
		t.Errorf("got the steps %+v, want the first one", r.Steps)
	}
	log, err := os.ReadFile(run.Serial)
	if err != nil || !strings.Contains(string(log), "sysrq triggered crash") {
		t.Errorf("%s does not have the panic: %v, %v", run.Serial, err, run)
	}
}

// At its time limit a guest is ended.
func TestDeadlineVM(t *testing.T) {
	im := guest.Require(t)
	_, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), guest.Job{
		CPU:     "max",
		Steps:   []guest.Step{{Name: "hangs", Script: "sleep 100000"}},
		Timeout: time.Second,
	})
	var run *guest.RunError
	if !errors.As(err, &run) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a RunError that wraps context.DeadlineExceeded", err)
	}
}

// qemu's own complaint is in the error.
func TestUnknownCPUVM(t *testing.T) {
	im := guest.Require(t)
	_, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), guest.Job{CPU: "no-such-model"})
	if err == nil || !strings.Contains(err.Error(), "no-such-model") || !strings.Contains(err.Error(), "qemu: exit status") {
		t.Errorf("got %v", err)
	}
}
