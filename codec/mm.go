package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// PageSize is that of x86. Addresses of memory and counts in images are in pages of it,
// huge pages too.
const PageSize = 4096

// Bits of a VMA's status (criu/include/image.h).
const (
	VMARegular     = 1 << 0
	VMAStack       = 1 << 1
	VMAVsyscall    = 1 << 2
	VMAVDSO        = 1 << 3
	VMAHeap        = 1 << 5
	VMAFilePrivate = 1 << 6
	VMAFileShared  = 1 << 7
	VMAAnonShared  = 1 << 8
	VMAAnonPrivate = 1 << 9
	VMASysVIPC     = 1 << 10
	VMASocket      = 1 << 11
	VMAVvar        = 1 << 12
	VMAAIORing     = 1 << 13
	VMAMemfd       = 1 << 14
	VMAShadowStack = 1 << 15
	VMAGuard       = 1 << 16
	VMAUprobes     = 1 << 17
)

// VMAEntry is one mapping as mm-PID.img has it.
type VMAEntry struct {
	Start, End uint64 // multiples of PageSize
	Offset     uint64 // in what is mapped, in bytes
	ID         uint64 // of what is mapped: a file's, or that of shared memory
	Prot       uint32 // PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4
	Flags      uint32 // MAP_*
	Status     uint32 // VMA*
}

// MM is the description of an address space.
type MM struct {
	Auxv [][2]uint64 // type and value, AT_NULL left out
	// EnvStart and EnvEnd are where the environment was that the process started with.
	EnvStart, EnvEnd uint64
	VMAs             []VMAEntry // by address, none over another
}

// Field numbers of images/mm.proto and images/vma.proto.
const (
	mmEnvStart = 10
	mmEnvEnd   = 11
	mmAuxv     = 13
	mmVMAs     = 14

	vmaStart  = 1
	vmaEnd    = 2
	vmaOffset = 3
	vmaID     = 4
	vmaProt   = 5
	vmaFlags  = 6
	vmaStatus = 7
)

// maxAuxv is more than any kernel gives, in bytes.
const maxAuxv = 4 << 10

var (
	errUnaligned = errors.New("not a multiple of the page size")
	errOrder     = errors.New("lies before the end of the one before it")
)

// ParseMM decodes mm-PID.img. The ranges that CRIU lists for guards in other mappings
// are left out. The error is a [*FormatError].
func ParseMM(path string, b []byte) (*MM, error) {
	img, e, err := newEntry(path, b, magicMM)
	if err != nil {
		return nil, err
	}
	mm := new(MM)
	var auxv []byte
	m := img.message(e, "mm")
	for m.next() {
		switch m.num {
		case mmEnvStart:
			mm.EnvStart = m.u
		case mmEnvEnd:
			mm.EnvEnd = m.u
		case mmAuxv:
			auxv, _, _ = m.array(auxv, 8, maxAuxv)
		case mmVMAs:
			v := vma(m.sub())
			if v.Status&VMAGuard != 0 || img.err != nil {
				continue
			}
			if n := len(mm.VMAs); n > 0 && v.Start < mm.VMAs[n-1].End {
				m.fail(m.start, "vmas.start", fmt.Errorf("%#x %w", v.Start, errOrder))
			}
			mm.VMAs = append(mm.VMAs, v)
		}
	}
	if img.err != nil {
		return nil, img.err
	}
	for le := binary.LittleEndian; len(auxv) >= 16 && le.Uint64(auxv) != 0; auxv = auxv[16:] {
		mm.Auxv = append(mm.Auxv, [2]uint64{le.Uint64(auxv), le.Uint64(auxv[8:])})
	}
	mm.VMAs = slices.Clip(mm.VMAs)
	return mm, nil
}

func vma(m message) (v VMAEntry) {
	for m.next() {
		switch m.num {
		case vmaStart:
			v.Start = m.u
		case vmaEnd:
			v.End = m.u
		case vmaOffset:
			v.Offset = m.u
		case vmaID:
			v.ID = m.u
		case vmaProt:
			v.Prot = uint32(m.u)
		case vmaFlags:
			v.Flags = uint32(m.u)
		case vmaStatus:
			v.Status = uint32(m.u)
		}
	}
	switch {
	case v.Start%PageSize != 0:
		m.fail(0, "vmas.start", fmt.Errorf("%#x: %w", v.Start, errUnaligned))
	case v.End%PageSize != 0:
		m.fail(0, "vmas.end", fmt.Errorf("%#x: %w", v.End, errUnaligned))
	case v.End <= v.Start:
		m.fail(0, "vmas.end", fmt.Errorf("%#x is not behind the start, %#x", v.End, v.Start))
	case v.Offset%PageSize != 0 || v.Offset+(v.End-v.Start) < v.Offset:
		m.fail(0, "vmas.pgoff", fmt.Errorf("%#x cannot be the offset of %d pages", v.Offset, (v.End-v.Start)/PageSize))
	}
	return v
}

// PageRun is pages that follow each other in memory.
type PageRun struct {
	Start, Pages uint64
	Flags        uint32 // Page*
}

// End is the address behind the run.
func (r PageRun) End() uint64 { return r.Start + r.Pages*PageSize }

// Bits of a run (criu/include/pagemap.h).
const (
	PageParent  = 1 << 0 // the pages are in the parent of the checkpoint
	PageLazy    = 1 << 1 // they can be brought in after the restore
	PagePresent = 1 << 2 // they follow each other in the pages file
)

// Pagemap says which pages of an address space, or of shared memory, are in a file.
type Pagemap struct {
	PagesID    uint32    // pages-ID.img
	Compressed bool      // the pages in it, which have no places that the runs tell (CRIU 4.3)
	Wide       bool      // a count of pages stands in the 64-bit field alone (CRIU 4.2)
	Runs       []PageRun // by address, none over another
}

// Field numbers of images/pagemap.proto.
const (
	headPagesID = 1

	pagemapVaddr    = 1
	pagemapCompat   = 2
	pagemapInParent = 3
	pagemapFlags    = 4
	pagemapPages    = 5
	pagemapBlocks   = 6
)

// ParsePagemap decodes pagemap-PID.img and pagemap-shmem-ID.img. The error is a
// [*FormatError].
func ParsePagemap(path string, b []byte) (*Pagemap, error) {
	img, e, err := newEntry(path, b, magicPagemap)
	if err != nil {
		return nil, err
	}
	p := new(Pagemap)
	m := img.message(e, "pagemap_head")
	for m.next() {
		if m.num == headPagesID {
			p.PagesID = uint32(m.u)
		}
	}
	var end uint64
	for img.more() && img.err == nil {
		if e, err = img.next(); err != nil {
			return nil, err
		}
		r := p.run(&img, e, end)
		if r.Pages > 0 {
			end = r.End()
			p.Runs = append(p.Runs, r)
		}
	}
	if img.err != nil {
		return nil, img.err
	}
	p.Runs = slices.Clip(p.Runs)
	return p, nil
}

// run decodes an entry as CRIU does (criu/pagemap.c, init_compat_pagemap_entry). It must
// lie behind the end of the one before it.
func (p *Pagemap) run(img *image, e entry, end uint64) (r PageRun) {
	var compat uint64
	var inParent, flags, pages bool
	countAt := 0
	m := img.message(e, "pagemap")
	for m.next() {
		switch m.num {
		case pagemapVaddr:
			r.Start = m.u
		case pagemapCompat:
			compat = uint64(uint32(m.u))
		case pagemapInParent:
			inParent = m.typ != 0 || m.u != 0
		case pagemapFlags:
			r.Flags, flags = uint32(m.u), true
		case pagemapPages:
			r.Pages, pages, countAt = m.u, true, m.start
		case pagemapBlocks:
			p.Compressed = true
		}
	}
	switch {
	case inParent:
		r.Flags |= PageParent
	case !flags:
		r.Flags = PagePresent
	}
	p.Wide = p.Wide || pages && compat == 0 && r.Pages > 0
	field := "nr_pages"
	if !pages {
		r.Pages, field = compat, "compat_nr_pages"
	}
	switch {
	case r.Flags&PageParent != 0 && r.Flags&PagePresent != 0:
		m.fail(0, "flags", errors.New("pages that are in the parent and here"))
	case r.Start%PageSize != 0:
		m.fail(0, "vaddr", fmt.Errorf("%#x: %w", r.Start, errUnaligned))
	case r.Pages > (math.MaxUint64-r.Start)/PageSize:
		m.fail(countAt, field, fmt.Errorf("%d pages from %#x on lead beyond the address space", r.Pages, r.Start))
	case r.Start < end && r.Pages > 0:
		m.fail(0, "vaddr", fmt.Errorf("%#x %w, %#x", r.Start, errOrder, end))
	}
	return r
}

// File is an open or mapped file of a checkpoint: a regular one, or a memfd.
type File struct {
	ID      uint32
	Name    string  // its path in its mount namespace; of a memfd, "/memfd:NAME"
	Size    *uint64 // nil if not recorded
	BuildID []byte  // nil if not recorded; padded to a multiple of four bytes
	Memfd   bool
	ShmID   uint32 // of a memfd: its pages are in pagemap-shmem-ID.img

	inode uint32
}

// Field numbers of images/fdinfo.proto, images/regfile.proto and images/memfd.proto.
const (
	fileReg   = 3
	fileMemfd = 20

	regID      = 1
	regName    = 6
	regSize    = 8
	regBuildID = 11

	memfdID    = 1
	memfdInode = 5

	inodeName  = 1
	inodeShmID = 5
	inodeID    = 7
)

// maxBuildID is longer than any: SHA-256 is 32 bytes.
const maxBuildID = 64

// ParseFiles decodes files.img, or reg-files.img of old CRIU: the files that memory can
// be mapped from. Those of memfd-PID.img get their names and pages by [AddMemfds]. The
// error is a [*FormatError].
func ParseFiles(path string, b []byte) ([]File, error) {
	is := "file"
	img, err := newImage(path, b, magicFiles)
	if old, oldErr := newImage(path, b, magicRegFiles); err != nil && oldErr == nil {
		img, err, is = old, nil, "reg_file"
	}
	if err != nil {
		return nil, err
	}
	var files []File
	for img.more() && img.err == nil {
		e, err := img.next()
		if err != nil {
			return nil, err
		}
		m := img.message(e, is)
		if is == "reg_file" {
			files = append(files, regFile(m))
			continue
		}
		for m.next() {
			switch m.num {
			case fileReg:
				files = append(files, regFile(m.sub()))
			case fileMemfd:
				f := File{Memfd: true}
				sub := m.sub()
				for sub.next() {
					switch sub.num {
					case memfdID:
						f.ID = uint32(sub.u)
					case memfdInode:
						f.inode = uint32(sub.u)
					}
				}
				files = append(files, f)
			}
		}
	}
	return files, img.err
}

func regFile(m message) (f File) {
	for m.next() {
		switch m.num {
		case regID:
			f.ID = uint32(m.u)
		case regName:
			f.Name = m.text()
		case regSize:
			f.Size = new(m.u)
		case regBuildID:
			f.BuildID, _, _ = m.array(f.BuildID, 4, maxBuildID)
		}
	}
	return f
}

// AddMemfds decodes memfd.img, which holds what memfds among the files are. The error is
// a [*FormatError].
func AddMemfds(files []File, path string, b []byte) error {
	img, err := newImage(path, b, magicMemfd)
	if err != nil {
		return err
	}
	inodes := map[uint64]File{}
	for img.more() && img.err == nil {
		e, err := img.next()
		if err != nil {
			return err
		}
		var f File
		var id uint64
		m := img.message(e, "memfd_inode")
		for m.next() {
			switch m.num {
			case inodeName:
				f.Name = "/memfd:" + m.text()
			case inodeShmID:
				f.ShmID = uint32(m.u)
			case inodeID:
				id = m.u
			}
		}
		inodes[id] = f
	}
	for i := range files {
		if f := &files[i]; f.Memfd {
			inode := inodes[uint64(f.inode)]
			f.Name, f.ShmID = inode.Name, inode.ShmID
		}
	}
	return img.err
}
