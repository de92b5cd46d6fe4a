package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// host is the machine to check against, so that every machine does the same work.
const host = "--host=x86-64-v3"

// start is the time from start to exit for one small checkpoint.
func (b *bench) start() error {
	dir := filepath.Join(images, "h-avx512")
	core := filepath.Join(dir, "core-20000.img")
	for _, r := range []row{
		{name: "start, show", limit: "2.2", ours: b.cmd("fpuimg", "show", core)},
		{name: "start, show --regs", ours: b.cmd("fpuimg", "show", "--regs", core)},
		{name: "start, check", limit: "2.2", ours: b.cmd("fpuimg", "check", core)},
		{name: "start, check --host", limit: "2.2", ours: b.cmd("fpuimg", "check", host, core)},
		{name: "start, check a directory", limit: "2.2", ours: b.cmd("fpuimg", "check", dir)},
		{name: "start, convert", ours: b.cmd("fpuimg", "convert", "--to=fxsave", "--dry-run", "--force", dir)},
	} {
		r.floor, r.peer = command{args: []string{"cat", core}}, b.cmd("gocrit", core)
		if err := b.startup(r, 40*b.rounds); err != nil {
			return err
		}
	}
	return nil
}

// readers is how many processes share the reading of cold files.
const readers = "-p8"

// check is fpuimg check on all images, against a loop that only opens, reads and closes
// them, and against the decoders of CRIU's own house.
func (b *bench) check() error {
	for _, r := range []row{
		{name: "check", limit: "2.5 CPU", ours: b.cmd("fpuimg", "check", b.one[0]), peer: b.cmd("gocrit", b.one[0])},
		{name: "check --host", limit: "3.5 CPU", ours: b.cmd("fpuimg", "check", host, b.one[0])},
	} {
		r.floor = b.cmd("readloop", b.one[0])
		if err := b.compare(r, b.rounds); err != nil {
			return err
		}
	}
	many := row{name: "check --host, directories", ours: b.cmd(append([]string{"fpuimg", "check", host}, b.many...)...), floor: b.cmd(append([]string{"readloop"}, b.many...)...)}
	if err := b.compare(many, b.rounds); err != nil {
		return err
	}
	drop := func() error { return dropCache(b.one) }
	cold := row{
		name: "check --host, cold", limit: "1.5", ours: b.cmd("fpuimg", "check", host, b.one[0]).after(drop),
		floor: b.cmd("readloop", readers, b.one[0]).after(drop), peer: b.cmd("readloop", b.one[0]).after(drop),
	}
	if err := b.compare(cold, b.rounds); err != nil {
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
	return b.compare(row{name: "check, Python's crit", ours: b.cmd("fpuimg", "check", b.one[0]), peer: command{args: []string{python, "-c", script, b.one[0]}}}, 1)
}

// show is fpuimg show on all images.
func (b *bench) show() error {
	for _, args := range [][]string{nil, {"--regs"}, {"--json"}, {"--json", "--regs"}} {
		r := row{name: strings.Join(append([]string{"show"}, args...), " "), floor: b.cmd("readloop", b.one[0])}
		r.ours = b.cmd(append(append([]string{"fpuimg", "show"}, args...), b.one[0])...)
		if len(args) == 1 && args[0] == "--regs" {
			r.limit = fmt.Sprintf("%d ms", b.n*60/1000)
		}
		if err := b.compare(r, b.rounds); err != nil {
			return err
		}
	}
	return nil
}

// hosts is fpuimg check for forty machines, against the same for one.
func (b *bench) hosts() error {
	const machines = 40
	list, err := exec.Command(filepath.Join(b.tmp, "fpuimg"), "profile", "--list").Output()
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(list)), "\n")
	if len(lines) < machines {
		return fmt.Errorf("fpuimg profile --list names %d machines, fewer than %d", len(lines), machines)
	}
	args := []string{"fpuimg", "check"}
	for _, line := range lines[len(lines)-machines:] {
		args = append(args, "--host="+strings.Fields(line)[0])
	}
	for _, in := range []struct {
		name string
		dirs []string
	}{{"40 machines", b.one}, {"40 machines, directories", b.many}} {
		r := row{name: in.name, limit: "3", ours: b.cmd(append(args, in.dirs...)...), peer: b.cmd(append([]string{"fpuimg", "check", host}, in.dirs...)...)}
		if err := b.compare(r, b.rounds); err != nil {
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
		return errors.Join(os.RemoveAll(out), syncAll(b.tmp))
	}
	if err := b.compare(row{
		name: "convert", limit: "40 MiB",
		ours: b.cmd("fpuimg", "convert", "--to=fxsave", "--force", "-o", out, b.one[0]).after(clear),
		peer: b.cmd("copyall", b.one[0], out).after(clear),
	}, b.rounds); err != nil {
		return err
	}
	// Beside what others have written and the disk does not have yet, against the same
	// without.
	small := b.cmd("fpuimg", "convert", "--to=fxsave", "--force", "-o", out, filepath.Join(images, "h-avx512"))
	others := filepath.Join(b.tmp, "others")
	defer os.Remove(others)
	return b.compare(row{
		name: "convert, 1 GiB of others dirty", limit: "10", ours: small.after(func() error {
			if err := clear(); err != nil {
				return err
			}
			f, err := os.Create(others)
			if err != nil {
				return err
			}
			defer f.Close()
			for range 1 << 10 {
				if _, err := f.Write(bytes.Repeat([]byte("others! "), 1<<17)); err != nil {
					return err
				}
			}
			return nil
		}),
		peer: small.after(func() error { return errors.Join(os.RemoveAll(others), clear()) }),
	}, b.rounds)
}

// memory is the memory that a checkpoint of ten times as many threads takes.
func (b *bench) memory() error {
	var dirs []string
	for i := range 2 {
		d, err := makeFleet(filepath.Join(b.tmp, fmt.Sprint("large-", i)), 1, 10*b.n, i)
		if err != nil {
			return err
		}
		defer os.RemoveAll(filepath.Dir(d[0]))
		dirs = append(dirs, d...)
	}
	for _, args := range [][]string{
		{"show"}, {"show", "--regs"}, {"show", "--json"}, {"show", "--json", "--regs"},
		{"check", host}, {"check", host, "--json"}, {"diff", dirs[1]}, {"diff", "--json", dirs[1]},
	} {
		ours := b.cmd(append(append([]string{"fpuimg"}, args...), dirs[0])...)
		name := fmt.Sprintf("%d threads, %s", 10*b.n, strings.ReplaceAll(strings.Join(args, " "), " "+dirs[1], ""))
		if err := b.compare(row{name: name, limit: "64 MiB", ours: ours}, 1); err != nil {
			return err
		}
	}
	return nil
}
