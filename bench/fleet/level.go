package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// level is what it costs to make a checkpoint run on a lesser machine: of python3, and of
// it with 2 GB of pages, against a copy that is as durable; and where a copy shares the
// blocks, against reading the pages.
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
	err := b.compare(row{name: "level, 2 GB", limit: "1.3, 64 MiB", ours: ours(big),
		floor: command{args: shell(fmt.Sprintf("cp -r %q %q && sync -f %q", big, out, out)).Args}.after(clear)}, min(b.rounds, 3))
	if err != nil {
		return err
	}
	mount := filepath.Join(dir, "reflink")
	unmount, err := mountReflink(mount)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet: nothing was levelled where files can share blocks:", err)
		return nil
	}
	defer unmount()
	if err := shell(fmt.Sprintf("cp -r %q %q", big, mount)).Run(); err != nil {
		return err
	}
	big, out = filepath.Join(mount, filepath.Base(big)), filepath.Join(mount, "out")
	clear = func() error { return errors.Join(os.RemoveAll(out), syncAll(mount)) }
	return b.compare(row{name: "level, 2 GB, reflink", limit: "1.3, 64 MiB", ours: ours(big),
		floor: command{args: shell(fmt.Sprintf("cat %q >/dev/null", filepath.Join(big, "pages-1.img"))).Args}.after(clear)}, min(b.rounds, 3))
}

// mountReflink makes a file system whose files can share blocks, in a file beside a new
// directory, and mounts it there.
func mountReflink(dir string) (unmount func() error, err error) {
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		mkfs, err = exec.LookPath("mkfs.btrfs")
	}
	if err != nil {
		return nil, err
	}
	script := shell(fmt.Sprintf("mkdir %q && truncate -s 8G %q && %s -q %q && mount -o loop %q %q", dir, dir+".img", mkfs, dir+".img", dir+".img", dir))
	if text, err := script.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(text))
	}
	return exec.Command("umount", dir).Run, nil
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
