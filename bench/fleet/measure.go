package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// command is a program with its arguments, and what to do before each run of it.
type command struct {
	args   []string
	before func() error
}

func (b *bench) cmd(args ...string) command {
	return command{args: append([]string{filepath.Join(b.tmp, args[0])}, args[1:]...)}
}

// after returns the command with something to do before each run.
func (c command) after(before func() error) command {
	c.before = before
	return c
}

// text spells a command for the table, without the places of files and the rest of a
// long list.
func (c command) text() string {
	var words []string
	for i, arg := range c.args {
		switch {
		case i == 4 && len(c.args) > 8:
			return strings.Join(words, " ") + fmt.Sprintf(" and %d more", len(c.args)-i)
		case strings.Contains(arg, "\n"):
			arg = "SCRIPT"
		case filepath.IsAbs(arg) || strings.HasPrefix(arg, images):
			arg = filepath.Base(arg)
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// usage is what one run took.
type usage struct {
	wall, cpu time.Duration
	rss       int64 // bytes
	read      int64 // bytes that the program itself asked for, -1 if unknown
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
	return used(cmd, wall, read), nil
}

func used(cmd *exec.Cmd, wall time.Duration, read int64) usage {
	p := cmd.ProcessState
	return usage{wall, p.UserTime() + p.SystemTime(), p.SysUsage().(*syscall.Rusage).Maxrss << 10, read}
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

// row is one line of the table. Ratios are those to the floor, or to the peer if there
// is no floor; neither is there where only what is read and held counts.
type row struct {
	name  string // unique
	limit string // of the ratio of times, unless it says of what
	ours  command
	floor command // the least that could be done
	peer  command // what a user could take instead
}

// commands are those that there are, what the ratios are to first.
func (r row) commands() []command {
	return slices.DeleteFunc([]command{r.floor, r.peer, r.ours}, func(c command) bool { return c.args == nil })
}

// compare runs the commands of a row in turns, and prints medians.
func (b *bench) compare(r row, rounds int) error {
	commands := r.commands()
	all := make([][]usage, len(commands))
	for i := range rounds + 1 {
		for j, c := range commands {
			u, err := c.run()
			if err != nil {
				return err
			}
			if i > 0 || rounds == 1 { // the first round warms the cache
				all[j] = append(all[j], u)
			}
		}
	}
	b.print(r, summed(all))
	return nil
}

// summed are the figures of each command, by its runs in turns.
func summed(all [][]usage) []figures {
	figures := make([]figures, len(all))
	for j := range all {
		figures[j].read = -1
		var walls, cpus []time.Duration
		var times []float64
		for i, u := range all[j] {
			walls, cpus = append(walls, u.wall), append(cpus, u.cpu)
			times = append(times, float64(u.wall)/float64(all[0][i].wall))
			figures[j].rss, figures[j].read = max(figures[j].rss, u.rss), max(figures[j].read, u.read)
		}
		// What others do on the machine adds to the CPU time, and takes nothing from it.
		figures[j].wall, figures[j].cpu = median(walls), slices.Min(cpus)
		figures[j].wallRatio, figures[j].cpuRatio = median(times), float64(figures[j].cpu)/float64(figures[0].cpu)
	}
	return figures
}

// startup does the same for commands that end at once, by a program that adds less to
// them.
func (b *bench) startup(r row, rounds int) error {
	args := []string{filepath.Join(b.tmp, "startup"), fmt.Sprint(rounds)}
	for _, c := range r.commands() {
		args = append(args, strings.Join(c.args, " "))
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%v: %w", args, err)
	}
	var all []figures
	for line := range strings.Lines(string(out)) {
		var wall, cpu float64
		f := figures{usage: usage{read: -1}}
		if _, err := fmt.Sscan(line, &wall, &cpu, &f.wallRatio, &f.cpuRatio, &f.rss); err != nil {
			return fmt.Errorf("startup printed %q: %w", line, err)
		}
		f.wall, f.cpu, f.rss = time.Duration(wall), time.Duration(cpu), f.rss<<10
		all = append(all, f)
	}
	b.print(r, all)
	return nil
}

// figures are what the runs of one command took: the median time, the least CPU time, the
// most memory, and the ratios to the first command of the row.
type figures struct {
	usage
	wallRatio, cpuRatio float64
}

func (b *bench) line(cells ...any) {
	fmt.Printf("| %-32s | %10s | %10s | %10s | %5s | %5s | %8s | %9s | %9s | %s |\n", cells...)
}

// head prints the first line of the table, as Markdown.
func (b *bench) head() {
	b.line("what", "floor", "peer", "ours", "ratio", "CPU", "limit", "read", "memory", "commands")
	fmt.Println("|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
}

// print prints a row, and holds its CPU ratio against the one that was recorded.
func (b *bench) print(r row, all []figures) {
	var texts []string
	for _, c := range append([]command{r.ours}, r.commands()[:len(all)-1]...) {
		texts = append(texts, c.text())
	}
	ours := all[len(all)-1]
	var floor, peer, ratio, cpu string
	if r.floor.args != nil {
		floor = round(all[0].wall)
	}
	if r.peer.args != nil {
		peer = round(all[len(all)-2].wall)
	}
	if len(all) > 1 {
		ratio, cpu = fmt.Sprintf("%.2f", ours.wallRatio), fmt.Sprintf("%.2f", ours.cpuRatio)
		if before, ok := b.recorded[r.name]; ok && ours.cpuRatio > 1.1*before {
			b.slower = append(b.slower, fmt.Sprintf("slower: %s: the CPU ratio is %.2f, %.0f %% above the recorded %.2f\n", r.name, ours.cpuRatio, 100*(ours.cpuRatio/before-1), before))
		}
		b.recorded[r.name] = ours.cpuRatio
	}
	b.line(r.name, floor, peer, round(ours.wall), ratio, cpu, r.limit, mib(ours.read), mib(ours.rss), "`"+strings.Join(texts, "`, `")+"`")
}

func median[T float64 | time.Duration](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

func round(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func mib(n int64) string {
	if n < 0 {
		return ""
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// ratiosFile has the CPU ratio of each row, as one machine measured it.
const ratiosFile = "ratios.tsv"

// ratios are CPU ratios by the name of their row.
type ratios map[string]float64

func readRatios() (ratios, error) {
	r := ratios{}
	text, err := os.ReadFile(ratiosFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, "\t")
		var ratio float64
		if _, err := fmt.Sscan(value, &ratio); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", ratiosFile, line, err)
		}
		r[name] = ratio
	}
	return r, err
}

func writeRatios(r ratios) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&text, "%s\t%.2f\n", name, r[name])
	}
	return os.WriteFile(ratiosFile, []byte(text.String()), 0o666)
}
