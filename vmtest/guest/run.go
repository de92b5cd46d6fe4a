package guest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fpuimg/fpuimg/vmtest/guest/internal/agent"
)

// Defaults for a zero time limit. They are there to end what hangs, so they
// are far above what anything takes on a busy machine.
const (
	defaultStepTimeout = 2 * time.Minute
	defaultJobTimeout  = 10 * time.Minute
)

// kernelArgs: panic=-1 reboots at once, which -no-reboot turns into an end. The
// others are for busy hosts, which leave an emulated CPU without time for
// longer than a kernel believes possible. It panics at boot if ten timer ticks
// do not come in time (no_timer_check), and measures the TSC, its usual clock,
// at half its speed, whereupon the time limits of steps are half as long; the
// HPET keeps the host's time.
const kernelArgs = "console=ttyS0 quiet panic=-1 no_timer_check clocksource=hpet"

// diskSize bounds what a run can bring back. The file is sparse.
const diskSize = 1 << 30

// Job is one boot of a guest.
type Job struct {
	// CPU is what qemu's -cpu takes: a model, then features. Models that tell
	// formats apart under TCG: "max" (with MPX and PKU), "Haswell" (AVX),
	// "EPYC-Milan" (PKU), "Nehalem" and "qemu64,-xsave" (FXSAVE only). [HostCPU] is no
	// model.
	CPU string

	// KernelArgs is appended to the kernel's command line ("noxsave").
	KernelArgs string

	// Files are host files and directories by the absolute path that they are
	// to have in the guest, by convention below /job. Programs among them must
	// be static, or get by with the libraries of criu.
	Files map[string]string

	// Memory is MiB of it, 1024 if zero; it is more if the files need that.
	Memory int

	// Steps run in order.
	Steps []Step

	// Timeout bounds the whole run, 10 minutes if zero.
	Timeout time.Duration
}

// HostCPU is this machine's CPU. There is no guest for it: what TCG does not emulate, such
// as AVX-512, is there in namespaces of this machine alone, whose kernel runs the steps and
// logs nothing for them. They have the guest's file system, and no device nor setting of
// the machine. It takes root.
const HostCPU = "host"

// Step is a script for the guest's shell.
type Step struct {
	// Name is letters, digits, '-', '_', '.'; each once per job.
	Name string

	// Script is run by /bin/sh (busybox) as root in /job. $OUT is its result
	// directory. It ends when the shell does; what it has put in a session of
	// its own lives on.
	Script string

	// Timeout bounds the step, 2 minutes if zero. At its end the step's
	// process group is killed.
	Timeout time.Duration
}

// Result is what a run left behind.
type Result struct {
	Steps   []StepResult  // those that ran, in order
	Linux   string        // version of the kernel
	Command []string      // the full command line, qemu's as a rule
	Serial  string        // path of the serial log
	Boot    time.Duration // from its start to the first step; 0 if none began
	Elapsed time.Duration // from its start to its end
}

// StepResult is what one step left behind.
type StepResult struct {
	Name     string
	Exit     int    // exit status; 128 + the signal if one ended the step; -1 if it never started
	TimedOut bool   // ended at its time limit
	Error    string // why the step could not be run, if it could not
	Stdout   string
	Stderr   string
	Kernel   string        // what the kernel logged meanwhile
	Dir      string        // host copy of what the step left in $OUT
	Elapsed  time.Duration // by the guest's clock
}

// OK reports whether the step ran and exited with status 0.
func (s *StepResult) OK() bool {
	return s != nil && s.Exit == 0 && s.Error == "" && !s.TimedOut
}

// Step returns the result of the named step, nil if it did not run.
func (r *Result) Step(name string) *StepResult {
	for i := range r.Steps {
		if r.Steps[i].Name == name {
			return &r.Steps[i]
		}
	}
	return nil
}

// RunError says that a guest did not come to its regular end.
type RunError struct {
	CPU    string
	Serial string // path of the serial log
	Tail   string // its last lines
	Err    error
}

func (e *RunError) Error() string {
	return fmt.Sprintf("guest %s: %v; the end of %s:\n%s", e.CPU, e.Err, e.Serial, e.Tail)
}

func (e *RunError) Unwrap() error { return e.Err }

// ErrStopped says that the guest went away before its last step was done, by
// a kernel panic for one.
var ErrStopped = errors.New("stopped before its job was done")

var stepName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

func (j *Job) validate() error {
	if j.CPU == "" {
		return errors.New("guest: job without a CPU model")
	}
	seen := map[string]bool{}
	for _, s := range j.Steps {
		if !stepName.MatchString(s.Name) {
			return fmt.Errorf("guest: bad step name %q", s.Name)
		}
		if seen[s.Name] {
			return fmt.Errorf("guest: two steps named %q", s.Name)
		}
		seen[s.Name] = true
	}
	for p := range j.Files {
		if !path.IsAbs(p) {
			return fmt.Errorf("guest: file path %q is not absolute", p)
		}
	}
	return nil
}

// Run boots the guest and runs the job in it. Everything it leaves goes to
// the directory dir, which must be new or empty: serial.log, qemu.log (what
// qemu says), command (qemu's command line), and a directory per step in
// step. Runs in different directories do not disturb each other.
//
// Run ends qemu when ctx does. The result holds what was done by then, also
// with an error. The error is a [*RunError] if the guest ran and did not end
// as it should, wrapping [ErrStopped], the context's error, or qemu's; else it
// is of the job or the file system. A step that fails is no error.
func (im *Image) Run(ctx context.Context, dir string, job Job) (*Result, error) {
	if err := job.validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	parts, err := job.parts()
	if err != nil {
		return nil, err
	}
	disk := filepath.Join(dir, "disk")
	defer os.Remove(disk)
	if err := createDisk(disk); err != nil {
		return nil, err
	}
	r := &Result{Linux: im.Linux, Serial: filepath.Join(dir, "serial.log")}
	proc := dieWithParent()
	if job.CPU == HostCPU {
		if os.Geteuid() != 0 {
			return nil, errors.New("steps that have this machine's CPU take root, for their namespaces")
		}
		root := filepath.Join(dir, "root")
		defer os.RemoveAll(root)
		if err := im.writeRoot(ctx, root, parts); err != nil {
			return nil, err
		}
		r.Command = []string{filepath.Join(root, "init"), root}
		inNamespaces(proc)
		release, err := os.ReadFile("/proc/sys/kernel/osrelease")
		if err != nil {
			return nil, err
		}
		r.Linux = strings.TrimSpace(string(release))
	} else {
		initrd := filepath.Join(dir, "initrd")
		defer os.Remove(initrd)
		if err := im.writeInitrd(ctx, initrd, parts); err != nil {
			return nil, err
		}
		fi, err := os.Stat(initrd)
		if err != nil {
			return nil, err
		}
		// The root file system takes half of it at most, and has the results too.
		memory := max(cmp.Or(job.Memory, 1024), 512+3*int(fi.Size()>>20))
		r.Command = []string{
			im.qemu, "-nodefaults", "-no-reboot", "-accel", "tcg", "-cpu", job.CPU, "-smp", "1", "-m", strconv.Itoa(memory),
			"-kernel", im.kernel, "-initrd", initrd,
			"-append", strings.TrimSpace(kernelArgs + " " + job.KernelArgs),
			"-serial", "stdio", "-display", "none",
			"-drive", "file=" + escape(disk) + ",format=raw,if=virtio,cache=unsafe",
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "command"), []byte(quote(r.Command)+"\n"), 0o644); err != nil {
		return nil, err
	}
	runErr := r.boot(ctx, dir, disk, proc, job.Timeout)
	ended, err := r.unpack(disk, filepath.Join(dir, "step"))
	if runErr == nil && err == nil && !ended {
		runErr = ErrStopped
	}
	if runErr != nil {
		return r, &RunError{CPU: job.CPU, Serial: r.Serial, Tail: tail(r.Serial, 12), Err: runErr}
	}
	return r, err
}

// boot runs the command until it ends by itself, or until ctx or its time does.
func (r *Result) boot(ctx context.Context, dir, disk string, proc *syscall.SysProcAttr, timeout time.Duration) error {
	if timeout == 0 {
		timeout = defaultJobTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	log, err := os.Create(filepath.Join(dir, "qemu.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	serial, err := os.Create(r.Serial)
	if err != nil {
		return err
	}
	defer serial.Close()
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, r.Command[0], r.Command[1:]...)
	cmd.SysProcAttr, cmd.ExtraFiles = proc, []*os.File{f} // qemu opens it by its name
	// "Parent" means this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := time.Now()
	cmd.Stdout, cmd.Stderr = newMarker(serial, agent.BeginMark, func() { r.Boot = time.Since(begin) }), log
	err = cmd.Run()
	r.Elapsed = time.Since(begin)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		program, _, _ := strings.Cut(filepath.Base(cmd.Path), "-")
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(tail(log.Name(), 3)))
	}
	return nil
}

// marker passes a log on to w and calls seen when a line first begins with
// the mark.
type marker struct {
	w    io.Writer
	mark string // and the line end before it
	seen func()
	last string // what may be the mark's beginning
}

func newMarker(w io.Writer, mark string, seen func()) *marker {
	return &marker{w: w, mark: "\n" + mark, seen: seen, last: "\n"}
}

func (m *marker) Write(p []byte) (int, error) {
	if m.seen != nil {
		m.last += string(p)
		if strings.Contains(m.last, m.mark) {
			m.seen()
			m.seen = nil
		}
		m.last = m.last[max(0, len(m.last)-len(m.mark)):]
	}
	return m.w.Write(p)
}

// parts are the job and its files.
func (j *Job) parts() ([]part, error) {
	var aj agent.Job
	for _, s := range j.Steps {
		if s.Timeout == 0 {
			s.Timeout = defaultStepTimeout
		}
		aj.Steps = append(aj.Steps, agent.Step(s))
	}
	data, err := json.Marshal(aj)
	if err != nil {
		return nil, err
	}
	parts := []part{{path: "/job/job.json", data: data}}
	for _, p := range slices.Sorted(maps.Keys(j.Files)) {
		parts = append(parts, part{path: p, host: j.Files[p]})
	}
	return parts, nil
}

// writeInitrd writes the guest's root file system and behind it the job's
// files: the kernel unpacks both.
func (im *Image) writeInitrd(ctx context.Context, to string, parts []part) error {
	if err := copyFile(to, im.initrd); err != nil {
		return err
	}
	return appendArchive(ctx, to, parts)
}

// writeRoot writes both to a directory.
func (im *Image) writeRoot(ctx context.Context, dir string, parts []part) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "cpio", "--extract", "--make-directories", "--quiet", "--file", im.initrd)
	cmd.Dir = dir
	if err := run(cmd); err != nil {
		return err
	}
	return place(ctx, dir, parts)
}

func createDisk(p string) (err error) {
	f, err := os.Create(p)
	if err != nil {
		return err
	}
	defer func() { err = closeFile(f, err) }()
	return f.Truncate(diskSize)
}

// escape doubles commas, which end an option in qemu's -drive.
func escape(p string) string { return strings.ReplaceAll(p, ",", ",,") }

// quote writes a command line that a shell reads back as args.
func quote(args []string) string {
	plain := regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)
	q := make([]string, len(args))
	for i, a := range args {
		if q[i] = a; !plain.MatchString(a) {
			q[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(q, " ")
}

// tail returns the last n lines of a log, "" if there is none.
func tail(p string, n int) string {
	f, err := os.Open(p)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 16 << 10
	if fi, err := f.Stat(); err == nil && fi.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return ""
		}
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(string(data), "\r", ""), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
