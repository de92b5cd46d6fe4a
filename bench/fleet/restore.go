package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// restore is fpurestore into a process whose threads sleep: of one, against a Go program
// that does nothing; of many, against the bare system calls.
func (b *bench) restore() error {
	if _, err := os.Stat(filepath.Join(b.tmp, "fpurestore")); err != nil {
		fmt.Fprintln(os.Stderr, "fleet: fpurestore is for linux/amd64 only: not measured")
		return nil
	}
	err := b.sleepers(1, func(pid, saved string) error {
		return b.startup(row{name: "restore, 1 thread", limit: "2", ours: b.cmd("fpurestore", "-t", pid, "-D", saved), floor: b.cmd("nothing")}, 40*b.rounds)
	})
	if err != nil {
		return err
	}
	return b.sleepers(1000, b.restoreMany)
}

// sleepers starts a process of n threads that sleep, and saves their state.
func (b *bench) sleepers(n int, use func(pid, saved string) error) error {
	cmd := exec.Command(filepath.Join(b.tmp, "sleepers"), fmt.Sprint(n))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var pid string
	if _, err := fmt.Fscan(out, &pid); err != nil {
		return fmt.Errorf("sleepers: %w", err)
	}
	saved := filepath.Join(b.tmp, fmt.Sprint("saved-", n))
	if _, err := b.cmd("fpurestore", "-t", pid, "--save", saved).run(); err != nil {
		return err
	}
	return use(pid, saved)
}

var stoppedFor = regexp.MustCompile(`stopped for (\S+)`)

// restoreMany compares, in turns, the whole run with all system calls, and the time that
// the process was held up with those from the first stop to the last release. fpurestore
// counts from where it begins to attach.
func (b *bench) restoreMany(pid, saved string) error {
	floor, ours := b.cmd("ptracefloor", pid), b.cmd("fpurestore", "-t", pid, "-D", saved)
	var calls, held, whole, window []usage
	for range 4*b.rounds + 1 {
		u, text, err := floor.said()
		if err != nil {
			return err
		}
		var n int
		var all, stop time.Duration
		if _, err := fmt.Sscan(text, &n, &all, &stop); err != nil {
			return fmt.Errorf("ptracefloor printed %q: %w", text, err)
		}
		calls, held = append(calls, usage{all, u.cpu, u.rss, -1}), append(held, usage{stop, u.cpu, u.rss, -1})
		if u, text, err = ours.said(); err != nil {
			return err
		}
		m := stoppedFor.FindStringSubmatch(text)
		if m == nil {
			return fmt.Errorf("fpurestore printed %q", text)
		}
		d, err := time.ParseDuration(m[1])
		if err != nil {
			return err
		}
		whole, window = append(whole, u), append(window, usage{d, u.cpu, u.rss, -1})
	}
	b.print(row{name: "restore, 1000 threads", limit: "2.2", ours: ours, floor: floor}, summed([][]usage{calls[1:], whole[1:]}))
	b.print(row{name: "restore, 1000 threads, stopped", limit: "1.35", ours: ours, floor: floor}, summed([][]usage{held[1:], window[1:]}))
	return nil
}

// said runs the command and returns what it printed on both streams too.
func (c command) said() (usage, string, error) {
	cmd := exec.Command(c.args[0], c.args[1:]...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	start := time.Now()
	err := cmd.Run()
	if err != nil {
		return usage{}, "", fmt.Errorf("%s: %w: %s", filepath.Base(c.args[0]), err, &text)
	}
	return used(cmd, time.Since(start), -1), text.String(), nil
}
