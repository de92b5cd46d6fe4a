package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v8/crit"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"google.golang.org/protobuf/proto"
)

// python is a checkpoint of python3 with its memory, the files that it maps beside it.
const (
	python    = "../../shared/memory/py-1"
	pythonPID = 26128
)

// code is what it costs to look at the dumped memory, and at the code that it leads to.
func (b *bench) code() error {
	if _, err := os.Stat(python); err != nil {
		fmt.Fprintln(os.Stderr, "fleet: no shared/memory beside the project: the code of a process was not looked at")
		return nil
	}
	small, big, root := filepath.Join(b.tmp, "python"), filepath.Join(b.tmp, "python-10g"), filepath.Join(b.tmp, "root")
	if err := errors.Join(makePython(small), makePython(big), makeRoot(root)); err != nil {
		return err
	}
	if err := grow(big, 1000, 10<<20); err != nil {
		return err
	}
	check := func(args ...string) command { return b.cmd(append([]string{"fpuimg", "check", host}, args...)...) }
	for _, r := range []row{
		{name: "code, check", limit: "+2 ms", ours: check(small), floor: check("--no-memory", small)},
		{name: "code, check --root", limit: "30 ms", ours: check("--root", root, small), floor: check("--no-memory", small)},
		{name: "code, check, 10 GB more", limit: "1.1", ours: check(big), floor: check(small)},
		{name: "code, check --root, 10 GB more", limit: "1.1", ours: check("--root", root, big), floor: check("--root", root, small)},
	} {
		if err := b.compare(r, 10*b.rounds); err != nil {
			return err
		}
	}
	return nil
}

func makePython(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return shell(fmt.Sprintf("tar -C %q --zstd -xf %q", dir, filepath.Join(python, "images.tar.zst"))).Run()
}

// makeRoot unpacks the ELF files that the checkpoint's process maps, by their paths.
func makeRoot(root string) error {
	f, err := os.Open(filepath.Join(python, "files.tsv"))
	if err != nil {
		return err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		return err
	}
	for _, row := range rows[1:] {
		object, to := filepath.Join(filepath.Dir(python), "objects", row[2]+".xz"), filepath.Join(root, row[0])
		if _, err := os.Stat(object); row[2] == "" || err != nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := shell(fmt.Sprintf("xz -dc %q >%q", object, to)).Run(); err != nil {
			return fmt.Errorf("%s: %w", object, err)
		}
	}
	return nil
}

// grow gives the process a mapping of n runs of pages, with a page that was never written
// behind each. They are a hole in the pages file.
func grow(dir string, n int, size uint64) error {
	const start, page = 0x7f0000000000, 4096
	before := 0 // runs
	var at int64
	err := edit(dir, "pagemap", new(pagemap.PagemapEntry), func(img *crit.CriuImage) {
		entries := img.Entries
		for before = 1; before < len(entries); before++ { // the first is the head
			e := entries[before].Message.(*pagemap.PagemapEntry)
			if e.GetVaddr() > start {
				break
			}
			at += int64(e.GetNrPages()) * page
		}
		img.Entries = append([]*crit.CriuEntry{}, entries[:before]...)
		for i := range n {
			img.Entries = append(img.Entries, &crit.CriuEntry{Message: &pagemap.PagemapEntry{
				Vaddr: proto.Uint64(start + uint64(i)*(size+page)), CompatNrPages: proto.Uint32(0), Flags: proto.Uint32(4), NrPages: proto.Uint64(size / page)}})
		}
		img.Entries = append(img.Entries, entries[before:]...)
	})
	if err != nil {
		return err
	}
	err = edit(dir, "mm", new(mm.MmEntry), func(img *crit.CriuImage) {
		m := img.Entries[0].Message.(*mm.MmEntry)
		i := 0
		for i < len(m.Vmas) && m.Vmas[i].GetStart() < start {
			i++
		}
		v := proto.Clone(m.Vmas[i]).(*vma.VmaEntry) // anonymous, as the one behind it
		v.Start, v.End = proto.Uint64(start), proto.Uint64(start+uint64(n)*(size+page))
		m.Vmas = append(m.Vmas[:i:i], append([]*vma.VmaEntry{v}, m.Vmas[i:]...)...)
	})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "pages-1.img")
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = io.CopyN(to, from, at)
	if err == nil {
		_, err = to.Seek(int64(n)*int64(size), io.SeekCurrent)
	}
	if err == nil {
		_, err = io.Copy(to, from)
	}
	return errors.Join(err, to.Close(), os.Rename(to.Name(), path))
}

// edit changes an image of the process.
func edit(dir, name string, kind proto.Message, change func(*crit.CriuImage)) error {
	path := filepath.Join(dir, fmt.Sprintf("%s-%d.img", name, pythonPID))
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	img, err := crit.New(in, nil, "", false, false).Decode(kind)
	if err != nil {
		return err
	}
	change(img)
	out, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	err = crit.New(nil, out, "", false, false).Encode(img)
	return errors.Join(err, out.Close(), os.Rename(out.Name(), path))
}
