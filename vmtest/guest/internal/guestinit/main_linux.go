// Guestinit is the first program of the test guest: it mounts what CRIU needs,
// loads the kernel modules, runs the job and turns the machine off.
//
// As process 1 it only reaps. The steps are run by a second copy of it, so that
// waiting for them and reaping orphans do not get in each other's way.
//
// With a directory as its argument it is process 1 of namespaces on a machine that others
// use. The directory is its root, descriptor 3 the disk, and it changes nothing else.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/vmtest/guest/internal/agent"
)

// here is the root on a machine that others use; "" in a guest.
var here = strings.Join(os.Args[1:], " ")

const disk = 3 // descriptor

func main() {
	if here != "" {
		// Or the steps' programs had open what whoever runs this has.
		if err := unix.CloseRange(disk, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
			fmt.Println("guest: error:", err)
			os.Exit(1)
		}
	}
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
	if here != "" {
		return
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/")
	cover, dev := coverRoot, "devtmpfs"
	if here != "" {
		cover, dev = enterRoot, "tmpfs"
	}
	if err := cover(); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	for _, m := range []struct{ dir, fstype string }{
		{"/proc", "proc"},
		{"/sys", "sysfs"},
		{"/dev", dev},
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
	prepare := ownMachine
	if here != "" {
		prepare = sharedMachine
	}
	if err := prepare(); err != nil {
		return err
	}
	if out, err := exec.Command("/bin/busybox", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("lo: %w: %s", err, out)
	}

	job := exec.Command("/init", os.Args[1:]...)
	job.Stdout, job.Stderr = os.Stdout, os.Stderr
	if here != "" {
		job.ExtraFiles = []*os.File{os.NewFile(disk, "disk")}
	}
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

// enterRoot makes the directory the root of the mount namespace, and leaves nothing of the
// machine's in it.
func enterRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(here, here, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := os.Chdir(here); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Chdir("/")
}

// sharedMachine makes the devices that programs ask for, and keeps the machine's settings
// as they are.
func sharedMachine() error {
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		if err := unix.Mknod("/dev/"+name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		if err := os.Chmod("/dev/"+name, 0o666); err != nil {
			return err
		}
	}
	const settings = "/proc/sys"
	if err := unix.Mount(settings, settings, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", settings, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// ownMachine loads modules, and makes room for the pids of checkpoints above those the
// guest hands out itself.
func ownMachine() error {
	if err := loadModules(); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/kernel/pid_max", []byte("4194304"), 0o644)
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
	if here != "" {
		disk := os.NewFile(disk, "disk")
		a := &agent.Agent{Dir: "/job", Log: os.Stdout, Flush: disk.Sync}
		return a.Run(job, disk)
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
