// Guestinit is the first program of the test guest: it mounts what CRIU needs,
// loads the kernel modules, runs the job and turns the machine off.
//
// As process 1 it only reaps. The steps are run by a second copy of it, so that
// waiting for them and reaping orphans do not get in each other's way.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/vmtest/guest/internal/agent"
)

func main() {
	if os.Getpid() != 1 {
		if err := runJob(); err != nil {
			fmt.Println("guest: error:", err)
			os.Exit(1)
		}
		return
	}
	if err := boot(); err != nil {
		fmt.Println("guest: error:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/")
	if err := coverRoot(); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	for _, m := range []struct{ dir, fstype string }{
		{"/proc", "proc"},
		{"/sys", "sysfs"},
		{"/dev", "devtmpfs"},
		{"/dev/pts", "devpts"},
		{"/tmp", "tmpfs"},
		{"/run", "tmpfs"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := os.Chmod("/tmp", 0o1777); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	// Room for the pids of checkpoints above those the guest hands out itself.
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("4194304"), 0o644); err != nil {
		return err
	}
	if out, err := exec.Command("/bin/busybox", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("lo: %w: %s", err, out)
	}

	job := exec.Command("/init")
	job.Stdout, job.Stderr = os.Stdout, os.Stderr
	if err := job.Start(); err != nil {
		return err
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if pid == job.Process.Pid {
			return nil
		}
	}
}

// coverRoot mounts the root file system over itself. A container runtime leaves its
// root with pivot_root(2), which is not possible from the initramfs as it is.
func coverRoot() error {
	const dir = "/root"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// loadModules loads what /mod/order lists; each stands behind those it needs.
func loadModules() error {
	order, err := os.ReadFile("/mod/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		f, err := os.Open("/mod/" + name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		// A CPU-specific module says ENODEV on other CPUs.
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

func runJob() error {
	data, err := os.ReadFile("/job/job.json")
	if err != nil {
		return err
	}
	var job agent.Job
	if err := json.Unmarshal(data, &job); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	disk, err := os.OpenFile("/dev/vda", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	kmsg, err := agent.OpenKMsg()
	if err != nil {
		return err
	}
	a := &agent.Agent{Dir: "/job", KMsg: kmsg, Log: os.Stdout, Flush: disk.Sync}
	return a.Run(job, disk)
}
