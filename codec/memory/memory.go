package memory

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
)

// State says where the content of a page is.
type State uint8

const (
	Unmapped   State = iota
	Dumped           // in a pages file
	Zero             // anonymous and never written: it is restored as zeros
	FileBacked       // as in the file that is mapped
	Kernel           // what the kernel of the target maps: vvar, vsyscall
	Lazy             // in no image: the source would send it after the restore
	Compressed       // in a pages file, which is compressed (CRIU 4.3)
	NoParent         // in an older dump, which is not there or does not have it
	NoPages          // the pagemap, or the pages file, is not there
)

var stateNames = [...]string{"not mapped", "dumped", "never written", "not changed since it was mapped from its file", "mapped by the kernel",
	"lazy, in no image", "compressed by CRIU", "in a parent that is not there", "in a pages file that is not there"}

func (s State) String() string { return stateNames[s] }

// AbsentError is an address whose content is not in the images.
type AbsentError struct {
	Addr  uint64
	State State
}

func (e *AbsentError) Error() string { return fmt.Sprintf("memory at %#x: %v", e.Addr, e.State) }

// VMA is a mapping.
type VMA struct {
	codec.VMAEntry
	File *codec.File // what is mapped; nil for anonymous memory, and if it is not recorded

	segment *space // the shared memory that it maps
}

// Protections of a mapping (PROT_*).
const (
	Read  = 1
	Write = 2
	Exec  = 4
)

const mapShared = 1 // MAP_SHARED

// Path is that of the mapped file, in the mount namespace of the process; "" for
// anonymous memory.
func (v VMA) Path() string {
	if v.File == nil {
		return ""
	}
	return v.File.Name
}

// Shared reports whether other processes see what is written.
func (v VMA) Shared() bool { return v.Flags&mapShared != 0 }

// Anonymous reports whether it maps no file: a memfd and shared memory without a name are
// anonymous, what the kernel maps is not.
func (v VMA) Anonymous() bool {
	return v.Status&kernelMade == 0 && (v.Status&(codec.VMAFilePrivate|codec.VMAFileShared) == 0 || v.Status&codec.VMAMemfd != 0)
}

// kernelMade is what the kernel maps by itself, and sockets of packets.
const kernelMade = codec.VMAVDSO | codec.VMAVvar | codec.VMAVsyscall | codec.VMAUprobes | codec.VMASocket

// inSegment reports whether what it maps is shared memory with pages of its own.
func (v VMA) inSegment() bool {
	return v.Status&(codec.VMAAnonShared|codec.VMASysVIPC|codec.VMAMemfd) != 0
}

// Memory is the address space of a process.
type Memory struct {
	PID uint32

	images *Images
	mm     *codec.MM
	vmas   []VMA
	own    *space
}

// Open reads where the memory of a process is; what processes share is read once. The
// error is a [*codec.FormatError], a [*codec.MissingError] of mm-PID.img, or that of
// opening a file.
func (im *Images) Open(pid uint32) (*Memory, error) {
	name := fmt.Sprintf("mm-%d.img", pid)
	label := im.root.files.Label(name)
	b, err := codec.ReadImage(im.root.files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &codec.MissingError{Path: label, Reason: "what the process has mapped is unknown"}
	}
	if err != nil {
		return nil, err
	}
	m := &Memory{PID: pid, images: im}
	if m.mm, err = codec.ParseMM(label, b); err != nil {
		return nil, err
	}
	if err := im.loadFiles(); err != nil {
		return nil, err
	}
	if m.own, err = im.load(im.root, fmt.Sprintf("pagemap-%d.img", pid)); err != nil {
		return nil, err
	}
	m.vmas = make([]VMA, len(m.mm.VMAs))
	for i, e := range m.mm.VMAs {
		v := &m.vmas[i]
		v.VMAEntry = e
		if e.Status&(codec.VMAFilePrivate|codec.VMAFileShared) != 0 && e.ID == uint64(uint32(e.ID)) {
			v.File = im.files[uint32(e.ID)]
		}
		if v.inSegment() {
			if v.segment, err = im.segment(v); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// VMAs lists the mappings by address.
func (m *Memory) VMAs() []VMA { return m.vmas }

// VMA returns the mapping of an address.
func (m *Memory) VMA(addr uint64) (VMA, bool) {
	i := m.after(addr)
	if i == len(m.vmas) || addr < m.vmas[i].Start {
		return VMA{}, false
	}
	return m.vmas[i], true
}

// after returns the index of the first mapping that ends behind an address.
func (m *Memory) after(addr uint64) int {
	i, _ := slices.BinarySearchFunc(m.vmas, addr, func(v VMA, addr uint64) int {
		if v.End <= addr {
			return -1
		}
		return 1
	})
	return i
}

// maxEnviron bounds an environment: the kernel takes 6 MiB with the arguments.
const maxEnviron = 8 << 20

// Environ is the environment that the process started with, each variable with a 0 behind
// it; nil if it is not in the images. What the process wrote over it is there instead.
func (m *Memory) Environ() []byte {
	if m.mm.EnvEnd-m.mm.EnvStart > maxEnviron {
		return nil
	}
	b := make([]byte, m.mm.EnvEnd-m.mm.EnvStart)
	n, _ := m.ReadAt(b, m.mm.EnvStart)
	return b[:n]
}

// Aux returns a value of the auxiliary vector (AT_*).
func (m *Memory) Aux(typ uint64) (uint64, bool) {
	for _, a := range m.mm.Auxv {
		if a[0] == typ {
			return a[1], true
		}
	}
	return 0, false
}

// look returns where the byte at an address is, in which run if it is in one, and where
// in that run's file; and up to where this holds, 0 for the end of the address space.
func (m *Memory) look(addr uint64) (st State, r *run, at int64, end uint64) {
	i := m.after(addr)
	if i == len(m.vmas) {
		return Unmapped, nil, 0, 0
	}
	v := &m.vmas[i]
	if addr < v.Start {
		return Unmapped, nil, 0, v.Start
	}
	end = v.End
	if !v.Shared() {
		st, r, at, end = m.own.look(addr, end)
		if st != Zero {
			return st, r, at, end
		}
	}
	if v.segment != nil {
		key := v.Offset + (addr - v.Start)
		st, r, at, upTo := v.segment.look(key, key+(end-addr))
		return st, r, at, addr + (upTo - key)
	}
	return v.untouched(), nil, 0, end
}

// untouched is the state of pages that the process has not changed.
func (v *VMA) untouched() State {
	switch {
	case v.Status&kernelMade != 0:
		return Kernel
	case v.Status&(codec.VMAFilePrivate|codec.VMAFileShared) != 0:
		return FileBacked
	}
	return Zero
}

// State tells where the content of an address is.
func (m *Memory) State(addr uint64) State {
	st, _, _, _ := m.look(addr)
	return st
}

// Dumped reports whether the page of an address is in a pages file that can be read.
func (m *Memory) Dumped(addr uint64) bool { return m.State(addr) == Dumped }

// ReadAt reads memory: what is dumped, and the zeros of what was never written. The error
// is an [*AbsentError] for the first byte that is neither, of which n are before, or that
// of reading a pages file.
func (m *Memory) ReadAt(p []byte, addr uint64) (n int, err error) {
	for n < len(p) {
		st, r, at, end := m.look(addr)
		part := p[n:]
		if left := end - addr; uint64(len(part)) > left {
			part = part[:left]
		}
		switch {
		case r != nil && st == Dumped:
			if err := m.images.read(r.from, part, at); err != nil {
				return n, err
			}
		case st == Zero:
			clear(part)
		default:
			return n, &AbsentError{addr, st}
		}
		n += len(part)
		addr += uint64(len(part))
	}
	return n, nil
}

// Location is the place of a page.
type Location struct {
	File   string // the pages file, such as pages-1.img
	Label  string // for messages
	Offset int64
	Parent bool // the file is of an older dump
}

// Locate tells where in a pages file the byte at an address is, if it is dumped.
func (m *Memory) Locate(addr uint64) (Location, bool) {
	st, r, at, _ := m.look(addr)
	if st != Dumped || r == nil {
		return Location{}, false
	}
	return Location{r.from.name, r.from.dir.files.Label(r.from.name), at, r.from.dir != m.images.root}, true
}

// Inherited returns a mapped address whose page is in an older dump, if any is.
func (m *Memory) Inherited() (addr uint64, ok bool) {
	older := func(s *space) *run {
		for i := range s.runs {
			if r := &s.runs[i]; r.from != nil && r.from.dir != m.images.root {
				return r
			}
		}
		return nil
	}
	if r := older(m.own); r != nil {
		return r.start, true
	}
	for _, v := range m.vmas {
		if v.segment != nil && older(v.segment) != nil {
			return v.Start, true
		}
	}
	return 0, false
}

// Range is addresses in one state.
type Range struct {
	Start, End uint64
	State      State
}

// Ranges lists the mapped addresses from start to end, split where the state changes or
// another mapping begins.
func (m *Memory) Ranges(start, end uint64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		var last Range
		for i := m.after(start); i < len(m.vmas) && m.vmas[i].Start < end; i++ {
			v := &m.vmas[i]
			for addr := max(start, v.Start); addr < min(end, v.End); {
				st, _, _, to := m.look(addr)
				r := Range{addr, min(to, end), st}
				addr = r.End
				if last.State == st && last.End == r.Start && r.Start != v.Start {
					last.End = r.End
					continue
				}
				if last.End > 0 && !yield(last) {
					return
				}
				last = r
			}
		}
		if last.End > 0 {
			yield(last)
		}
	}
}

// compareRuns orders runs by the address behind them.
func compareRuns(r run, addr uint64) int { return cmp.Compare(r.end, addr) }
