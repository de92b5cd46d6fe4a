package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// images has the real checkpoints; the program runs in the bench module.
const images = "../testdata/images"

// makeFleet writes n core images into dirs checkpoints below root, each with its
// pstree.img, and returns their paths. first says which state the first thread holds.
func makeFleet(root string, dirs, n, first int) ([]string, error) {
	var contents [][]byte
	for _, dir := range []string{"h-avx512", "h-avx", "h-sse", "h-special"} {
		paths, err := filepath.Glob(filepath.Join(images, dir, "core-*.img"))
		if err != nil || len(paths) == 0 {
			return nil, fmt.Errorf("no core image in %s: %w", dir, err)
		}
		b, err := os.ReadFile(paths[0])
		if err != nil {
			return nil, err
		}
		contents = append(contents, b)
	}
	var out []string
	for i := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("ckpt-%d", i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		const pid = 10000
		for j := range n / dirs {
			path := filepath.Join(dir, fmt.Sprintf("core-%d.img", pid+j))
			if err := os.WriteFile(path, contents[(first+j)%len(contents)], 0o600); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "pstree.img"), pstree(pid, n/dirs), 0o600); err != nil {
			return nil, err
		}
		out = append(out, dir)
	}
	return out, nil
}

// pstree is a pstree.img of one task with n threads (images/pstree.proto).
func pstree(pid, n int) []byte {
	var m []byte
	add := func(num protowire.Number, v int) {
		m = protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), uint64(v))
	}
	add(1, pid) // pid, ppid, pgid, sid
	add(2, 0)
	add(3, pid)
	add(4, pid)
	for i := range n {
		add(5, pid+i)
	}
	const common, own = 0x54564319, 0x50273030
	b := binary.LittleEndian.AppendUint32(nil, common)
	b = binary.LittleEndian.AppendUint32(b, own)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m)))
	return append(b, m...)
}

// syncAll makes all written data durable, so that its pages can be dropped.
func syncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// dropCache drops the cached pages of every file below the directories. What the
// kernel knows of the directories stays; dropping that takes root, and would slow
// down everyone on the machine.
func dropCache(dirs []string) error {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			f, err := os.Open(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}
