package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// level is what it costs to make a checkpoint run on a lesser machine: of python3, and of
// it with 2 GB of pages, against a copy that is as durable.
func (b *bench) level() error {
	if _, err := os.Stat(python); err != nil {
		fmt.Fprintln(os.Stderr, "fleet: no shared/memory beside the project: no checkpoint was levelled")
		return nil
	}
	dir := filepath.Join(b.tmp, "level")
	small, big, root, out := filepath.Join(dir, "python"), filepath.Join(dir, "python-2g"), filepath.Join(dir, "root"), filepath.Join(dir, "out")
	const runs, size = 200, 10 << 20
	if err := errors.Join(os.Mkdir(dir, 0o700), makePython(small), makePython(big), makeRoot(root), grow(big, runs, size), fill(filepath.Join(big, "pages-1.img"))); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	clear := func() error { return errors.Join(os.RemoveAll(out), syncAll(dir)) }
	ours := func(from string) command {
		return b.cmd("fpuimg", "level", host, "--root", root, "-o", out, from).after(clear)
	}
	if err := b.compare(row{name: "level", limit: "100 ms", ours: ours(small)}, 2*b.rounds); err != nil {
		return err
	}
	return b.compare(row{name: "level, 2 GB", limit: "1.3, 64 MiB", ours: ours(big),
		floor: command{args: shell(fmt.Sprintf("cp -r %q %q && sync -f %q", big, out, out)).Args}.after(clear)}, min(b.rounds, 3))
}

// fill writes over the holes of a file, with what does not compress.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	page, zero := make([]byte, 4096), make([]byte, 4096)
	for at := int64(0); ; at += int64(len(page)) {
		n, _ := f.ReadAt(page, at)
		if n < len(page) {
			return f.Sync()
		}
		if string(page) == string(zero) {
			if _, err := f.WriteAt(noise[at%int64(len(noise)):][:len(page)], at); err != nil {
				return err
			}
		}
	}
}
