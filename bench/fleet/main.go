// Fleet compares fpuimg with programs that do the least that could be done, on ten
// thousand core images, and prints the ratios. See docs/PERFORMANCE.md.
//
//	cd bench && go run ./fleet
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	n := flag.Int("n", 10000, "core `images`")
	rounds := flag.Int("rounds", 5, "`times` that each pair is run")
	archive := flag.Int("archive", 2048, "`MiB` of memory in the archives")
	only := flag.String("only", "", "one `comparison`: check, decoders, small, code, convert, memory or archives")
	flag.Parse()
	if err := run(&bench{n: *n, rounds: *rounds, archive: *archive}, *only); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(b *bench, only string) (err error) {
	if b.tmp, err = os.MkdirTemp("", "fleet"); err != nil {
		return err
	}
	defer os.RemoveAll(b.tmp)
	if err := b.build(); err != nil {
		return err
	}
	if b.one, err = makeFleet(filepath.Join(b.tmp, "one"), 1, b.n, 0); err != nil {
		return err
	}
	if b.many, err = makeFleet(filepath.Join(b.tmp, "many"), b.n/10, b.n, 0); err != nil {
		return err
	}
	if err := syncAll(b.tmp); err != nil {
		return err
	}
	fmt.Printf("%d core images, median of %d runs in turns, %s, %d CPUs\n\n", b.n, b.rounds, cpuModel(), runtime.NumCPU())
	b.row("what", "time", "limit", "CPU", "fpuimg", "other", "read", "memory")
	fmt.Println("|---|--:|--:|--:|--:|--:|--:|--:|")
	for _, c := range []struct {
		name    string
		measure func() error
	}{{"check", b.check}, {"decoders", b.decoders}, {"small", b.small}, {"code", b.code}, {"convert", b.convert}, {"memory", b.memory}, {"archives", b.archives}} {
		if only != "" && only != c.name {
			continue
		}
		if err := c.measure(); err != nil {
			return err
		}
	}
	return nil
}

// bench is one run of all comparisons.
type bench struct {
	tmp       string
	n, rounds int
	archive   int      // MiB of memory in the archives
	one, many []string // the checkpoints: all images in one, ten images in each
}

// row prints one line of the table, as Markdown.
func (b *bench) row(what string, cells ...any) {
	fmt.Printf("| %-42s | %6s | %6s | %7s | %10s | %10s | %8s | %8s |\n", append([]any{what}, cells...)...)
}

// build builds fpuimg as the Makefile does, and what it is compared with.
func (b *bench) build() error {
	for _, args := range [][]string{
		{"make", "-C", "..", "build", "BIN=" + b.tmp},
		{"go", "build", "-o", b.tmp + "/", "./readall", "./copyall", "./gocrit"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%v: %w", args, err)
		}
	}
	return nil
}

func (b *bench) program(name string) string { return filepath.Join(b.tmp, name) }

// command is a program with its arguments, and what to do before each run of it.
type command struct {
	args   []string
	before func() error
}

func (b *bench) cmd(args ...string) command {
	args[0] = b.program(args[0])
	return command{args: args}
}

// after returns the command with something to do before each run.
func (c command) after(before func() error) command {
	c.before = before
	return c
}

// usage is what one run took.
type usage struct {
	wall, cpu time.Duration
	rss       int64 // bytes
	read      int64 // bytes that the program itself asked for
}

// run runs the command once. An exit status of 1 says that a checkpoint does not
// fit, which is an answer.
func (c command) run() (usage, error) {
	if c.before != nil {
		if err := c.before(); err != nil {
			return usage{}, err
		}
	}
	cmd := exec.Command(c.args[0], c.args[1:]...)
	var errs strings.Builder
	cmd.Stderr = &errs
	start := time.Now()
	err := cmd.Start()
	var read int64
	if err == nil {
		read = bytesRead(cmd.Process.Pid)
		err = cmd.Wait()
	}
	wall := time.Since(start)
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 1 || cmd.ProcessState.ExitCode() < 0 {
		return usage{}, fmt.Errorf("%s: %w: %s", filepath.Base(c.args[0]), err, errs.String())
	}
	p := cmd.ProcessState
	return usage{wall, p.UserTime() + p.SystemTime(), p.SysUsage().(*syscall.Rusage).Maxrss << 10, read}, nil
}

// bytesRead waits for the end of a child and returns what it read: its last
// accounts are there until somebody takes its exit status. It is -1 if the kernel
// keeps none.
func bytesRead(pid int) int64 {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	n := int64(-1)
	if err == nil {
		fmt.Sscanf(string(text), "rchar: %d", &n)
	}
	return n
}

// compare runs two commands in turns and prints the medians of the ratios: of the
// time from start to exit, and of the CPU time, which a busy machine changes less.
func (b *bench) compare(what, limit string, rounds int, ours, theirs command) error {
	var ratios, cpus []float64
	var a, o []time.Duration
	var most usage
	for i := range rounds + 1 {
		mine, err := ours.run()
		if err != nil {
			return err
		}
		other, err := theirs.run()
		if err != nil {
			return err
		}
		if i == 0 && rounds > 1 {
			continue // the first round warms the cache
		}
		ratios = append(ratios, float64(mine.wall)/float64(other.wall))
		cpus = append(cpus, float64(mine.cpu)/float64(other.cpu))
		a, o = append(a, mine.wall), append(o, other.wall)
		most.rss, most.read = max(most.rss, mine.rss), max(most.read, mine.read)
	}
	b.row(what, fmt.Sprintf("%.2f", median(ratios)), limit, fmt.Sprintf("%.2f", median(cpus)), round(median(a)), round(median(o)), mib(most.read), mib(most.rss))
	return nil
}

// alone runs a command once, for what it reads and for the memory that it takes.
func (b *bench) alone(what, limit string, c command) error {
	u, err := c.run()
	if err != nil {
		return err
	}
	b.row(what, "", limit, "", round(u.wall), "", mib(u.read), mib(u.rss))
	return nil
}

func median[T float64 | time.Duration](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

func round(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// host is the machine to check against, so that every machine does the same work.
const host = "--host=x86-64-v3"

// check is fpuimg check on all images, and a loop that only opens, reads and closes
// them.
func (b *bench) check() error {
	for _, in := range []struct {
		name string
		dirs []string
	}{
		{"in one directory", b.one},
		{fmt.Sprintf("in %d directories", len(b.many)), b.many},
	} {
		check := b.cmd(append([]string{"fpuimg", "check", host}, in.dirs...)...)
		read := b.cmd(append([]string{"readall"}, in.dirs...)...)
		if err := b.compare("check "+in.name+" / read", "3", b.rounds, check, read); err != nil {
			return err
		}
		drop := func() error { return dropCache(in.dirs) }
		if err := b.compare("check "+in.name+" / read, cold", "1.5", b.rounds, check.after(drop), read.after(drop)); err != nil {
			return err
		}
	}
	return nil
}

// decoders compares with CRIU's own libraries, each decoding all images in one
// process.
func (b *bench) decoders() error {
	check := b.cmd("fpuimg", "check", host, b.one[0])
	if err := b.compare("check / decode with go-criu's crit", "", b.rounds, check, b.cmd("gocrit", b.one[0])); err != nil {
		return err
	}
	const python = "/usr/bin/python3" // Debian's, which Debian's python3-pycriu belongs to
	if exec.Command(python, "-c", "import pycriu").Run() != nil {
		fmt.Fprintln(os.Stderr, "fleet: no pycriu: not compared with Python's crit")
		return nil
	}
	const script = `
import glob, sys, pycriu
for path in glob.glob(sys.argv[1] + "/core-*.img"):
    with open(path, "rb") as f:
        pycriu.images.load(f)
`
	return b.compare("check / decode with Python's crit", "", 1, check, command{args: []string{python, "-c", script, b.one[0]}})
}

// small is the time from start to exit for one small checkpoint.
func (b *bench) small() error {
	path := filepath.Join(images, "h-avx512")
	core := filepath.Join(path, "core-20000.img")
	read := b.cmd("readall", core)
	for _, args := range [][]string{
		{"show", core}, {"show", "--regs", core}, {"check", host, core}, {"check", host, path},
		{"convert", "--to=fxsave", "--dry-run", "--force", path},
	} {
		other := read
		if args[len(args)-1] == path {
			other = b.cmd("readall", path)
		}
		what := strings.ReplaceAll(strings.ReplaceAll(strings.Join(args, " "), core, "CORE"), path, "DIR")
		if err := b.compare(what+" / read", "3", 10*b.rounds, b.cmd(append([]string{"fpuimg"}, args...)...), other); err != nil {
			return err
		}
	}
	return nil
}

// convert is a conversion of all images, and a copy of the same files that is as
// durable.
func (b *bench) convert() error {
	out := filepath.Join(b.tmp, "out")
	clear := func() error {
		if err := os.RemoveAll(out); err != nil {
			return err
		}
		return syncAll(b.tmp)
	}
	convert := b.cmd("fpuimg", "convert", "--to=fxsave", "--force", "-o", out, b.one[0]).after(clear)
	return b.compare(fmt.Sprintf("convert %d threads / copy", b.n), "2", b.rounds, convert, b.cmd("copyall", b.one[0], out).after(clear))
}

// memory is the memory that all threads of a large checkpoint take.
func (b *bench) memory() error {
	others, err := makeFleet(filepath.Join(b.tmp, "others"), 1, b.n, 1)
	if err != nil {
		return err
	}
	ckpt, other := b.one[0], others[0]
	for _, args := range [][]string{
		{"show", ckpt}, {"show", "--regs", ckpt}, {"show", "--json", ckpt}, {"show", "--json", "--regs", ckpt},
		{"check", host, ckpt}, {"check", host, "--json", ckpt}, {"diff", ckpt, other}, {"diff", "--json", ckpt, other},
	} {
		what := strings.NewReplacer(ckpt, "A", other, "B").Replace(strings.Join(args, " "))
		if err := b.alone(what, "64 MiB", b.cmd(append([]string{"fpuimg"}, args...)...)); err != nil {
			return err
		}
	}
	return nil
}

// cpuModel names the CPU of this machine.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
