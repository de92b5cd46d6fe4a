package program

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/memory"
)

// Looker looks at the processes of one checkpoint. What they share is read once.
type Looker struct {
	images  *memory.Images
	roots   *Roots
	objects map[string]*file
	traces  *traces
	lent    bool // the objects are another's
}

// NewLooker is for the processes of the images in files. Without roots, nil, only what
// the images alone tell is found out.
func NewLooker(files codec.Files, roots *Roots) *Looker {
	return &Looker{images: memory.NewImages(files), roots: roots, objects: map[string]*file{}, traces: &traces{of: map[ran]*trace{}}}
}

// Anew returns a Looker for other images of processes that map the same files, which knows
// of these what l does. It can be asked as long as l is open.
func (l *Looker) Anew(files codec.Files) *Looker {
	return &Looker{images: memory.NewImages(files), roots: l.roots, objects: l.objects, traces: l.traces, lent: true}
}

// Close closes what was opened: neither the roots nor the checkpoint.
func (l *Looker) Close() error {
	err := l.images.Close()
	if l.lent {
		return err
	}
	for _, f := range l.objects {
		if f.closer != nil {
			err = errors.Join(err, f.closer.Close())
			f.closer = nil
		}
	}
	return err
}

// PagesRead is how many pages of the images were read so far.
func (l *Looker) PagesRead() uint64 { return l.images.PagesRead() }

// file is an ELF file that processes map.
type file struct {
	fact   *facts.Object
	obj    *object // nil unless fact says OK
	closer *os.File

	exports *exports       // nil before they are asked for
	saves   []SaveFunction // the same
	reaches map[uint64]reach
	walked  int // instructions
	swept   bool
}

// module is a file at the place where a process maps it.
type module struct {
	*file
	bias       uint64 // what addresses as linked are moved by; 0 if there is no file
	start, end uint64
}

// Look finds out about one process. Its threads are those of the checkpoint. The error
// is that of its images of memory; a checkpoint need not have any.
func (l *Looker) Look(pid int, threads []codec.Thread) (*facts.Process, error) {
	p, err := l.look(pid, threads)
	if err != nil {
		return nil, err
	}
	return p.Process, nil
}

// Source finds the CPU that glibc recorded in the memory of one process, nil if it did
// not. The error is that of Look.
func (l *Looker) Source(pid int) (*facts.Source, error) {
	p, err := l.open(pid)
	if err != nil {
		return nil, err
	}
	return p.Process.Source, nil
}

// open finds out what a process maps, and what it started on.
func (l *Looker) open(pid int) (*process, error) {
	mem, err := l.images.Open(uint32(pid))
	if err != nil {
		return nil, err
	}
	p := &process{mem: mem, Process: &facts.Process{PID: pid, Rooted: l.roots != nil}, spots: map[uint64]*spot{}, decoded: map[uint64]*isa.Inst{}}
	p.mapModules(l)
	p.findSource()
	return p, nil
}

func (l *Looker) look(pid int, threads []codec.Thread) (*process, error) {
	p, err := l.open(pid)
	if err != nil {
		return nil, err
	}
	p.findAreas()
	p.findCaches()
	if l.roots != nil {
		p.findTargets()
		p.proveLibc()
		p.nameLibc()
	}
	for _, th := range threads {
		p.Threads = append(p.Threads, p.thread(th))
	}
	if l.roots != nil {
		p.findOwn()
	}
	return p, nil
}

// process is one process while it is looked at.
type process struct {
	*facts.Process
	mem     *memory.Memory
	modules []*module // by address
	ranges  []mapped  // that map them, by address
	pages   *pages
	spots   map[uint64]*spot     // by address
	decoded map[uint64]*isa.Inst // of resolvers
	vdso    [2]uint64
	record  *record // the cpu_features; nil if not found
	records int     // places that look like it
}

// mapped is a mapping of a module.
type mapped struct {
	memory.VMA
	module *module
}

// unknown notes what was not found out.
func (p *process) unknown(topic facts.Topic, o *facts.Object, format string, a ...any) {
	u := facts.Unknown{Topic: topic, Object: o, Reason: fmt.Sprintf(format, a...)}
	if !slices.Contains(p.Unknowns, u) {
		p.Unknowns = append(p.Unknowns, u)
	}
}

// mapModules opens the ELF files that the process maps: those of which a part is
// executable.
func (p *process) mapModules(l *Looker) {
	vmas := p.mem.VMAs()
	code := map[*codec.File]bool{}
	for _, v := range vmas {
		if v.Status&codec.VMAVDSO != 0 {
			p.vdso = [2]uint64{v.Start, v.End}
		}
		if v.File != nil && v.Prot&memory.Exec != 0 && !v.Anonymous() {
			code[v.File] = true
		}
	}
	type place struct {
		file *codec.File
		bias uint64
	}
	known := map[place]*module{}
	for _, v := range vmas {
		if !code[v.File] {
			continue
		}
		f := l.file(v.File)
		at := place{file: v.File}
		if f.obj != nil {
			// Where segments share a page of the file, that of the parts mapped before is meant.
			all := f.obj.biases(v.Start, v.Offset)
			i := slices.IndexFunc(all, func(bias uint64) bool { return known[place{v.File, bias}] != nil })
			if len(all) > 0 {
				at.bias = all[max(i, 0)]
			}
		}
		m := known[at]
		if m == nil {
			if v.Prot == 0 {
				continue // a hole between segments, of what was mapped first (glibc, elf/dl-map-segments.h)
			}
			m = &module{file: f, bias: at.bias, start: v.Start}
			known[at] = m
			p.modules = append(p.modules, m)
			if !slices.Contains(p.Objects, f.fact) {
				p.Objects = append(p.Objects, f.fact)
			}
		}
		m.end = v.End
		p.ranges = append(p.ranges, mapped{v, m})
	}
}

// biases tells how far the file may have been moved that maps an offset at an address.
func (o *object) biases(start, offset uint64) (all []uint64) {
	const page = codec.PageSize
	for _, seg := range o.loads {
		if from := seg.Off &^ (page - 1); offset >= from && offset < seg.Off+seg.Filesz {
			all = append(all, start-(seg.Vaddr&^(page-1)+offset-from))
		}
	}
	return all
}

// file opens an ELF file of the checkpoint below the roots.
func (l *Looker) file(f *codec.File) *file {
	id := hex.EncodeToString(f.BuildID)
	key := f.Name + "\x00" + id
	if known := l.objects[key]; known != nil {
		return known
	}
	o := &file{fact: &facts.Object{Path: f.Name, BuildID: id, Status: facts.Unread}, reaches: map[uint64]reach{}}
	l.objects[key] = o
	switch {
	case l.roots == nil:
	case len(f.BuildID) == 0:
		o.fact.Status, o.fact.Reason = facts.NoBuildID, "the image has no build-id of it"
	default:
		o.fact.Status, o.fact.Reason = facts.Missing, "no root has a file of that path"
		for _, root := range l.roots.dirs {
			if o.open(root, f) {
				break
			}
		}
	}
	return o
}

// open takes the file in a root if it is the one that was dumped. Otherwise it notes
// why not; what says more than before stands.
func (f *file) open(root *os.Root, want *codec.File) bool {
	r, size, err := openIn(root, want.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	note := func(s facts.Status, reason string) {
		if f.fact.Status != facts.Differs {
			f.fact.Status, f.fact.Reason = s, reason
		}
	}
	if err != nil {
		note(facts.Unread, err.Error())
		return false
	}
	o, err := readObject(r, size)
	switch {
	case err != nil:
		note(facts.Unread, fmt.Sprintf("%s: %v", r.Name(), err))
	case o.buildID == nil:
		note(facts.NoBuildID, r.Name()+" has none")
	case !sameID(o.buildID, want.BuildID):
		note(facts.Differs, fmt.Sprintf("%s has the build-id %x", r.Name(), o.buildID))
	default:
		f.obj, f.closer = o, r
		f.fact.Status, f.fact.Reason = facts.OK, ""
		return true
	}
	r.Close()
	return false
}

// sameID compares the build-id of a file with that of an image, where CRIU pads it with
// zeros to words.
func sameID(id, dumped []byte) bool {
	return len(dumped) >= len(id) && bytes.Equal(id, dumped[:len(id)]) && len(bytes.Trim(dumped[len(id):], "\x00")) == 0 && len(dumped)-len(id) < 4
}

// moduleAt returns the module that is mapped at an address.
func (p *process) moduleAt(addr uint64) *module {
	if m := p.mappedAt(addr); m != nil {
		return m.module
	}
	return nil
}

func (p *process) mappedAt(addr uint64) *mapped {
	i, ok := slices.BinarySearchFunc(p.ranges, addr, func(m mapped, addr uint64) int {
		switch {
		case m.End <= addr:
			return -1
		case m.Start > addr:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &p.ranges[i]
}

// pages are some pages of a process, by their addresses.
type pages [64]struct {
	addr uint64
	n    int // bytes that are known
	err  error
	b    [codec.PageSize]byte
}

// read reads memory as the restored process has it: what was dumped, and the rest as in
// the files. The error says why less than all is known.
func (p *process) read(b []byte, addr uint64) (n int, err error) {
	if p.pages == nil {
		p.pages = &pages{}
		for i := range p.pages {
			p.pages[i].addr = 1 // of no page
		}
	}
	for n < len(b) {
		base := addr &^ (codec.PageSize - 1)
		page := &p.pages[base/codec.PageSize%uint64(len(p.pages))]
		if page.addr != base {
			page.addr = base
			page.n, page.err = p.readPage(page.b[:], base)
		}
		in := int(addr - base)
		if in >= page.n {
			return n, page.err
		}
		m := copy(b[n:], page.b[in:page.n])
		n, addr = n+m, addr+uint64(m)
		if addr == 0 {
			return n, errWraps
		}
	}
	return n, nil
}

var errWraps = errors.New("the address space ends")

func (p *process) readPage(b []byte, addr uint64) (int, error) {
	n, err := p.mem.ReadAt(b, addr)
	absent, ok := errors.AsType[*memory.AbsentError](err)
	if !ok || absent.State != memory.FileBacked {
		return n, err
	}
	m := p.mappedAt(addr)
	if m == nil || m.module.obj == nil {
		return n, err
	}
	if n, ferr := m.module.obj.file.ReadAt(b, int64(m.Offset+addr-m.Start)); n > 0 {
		return n, ferr
	}
	return 0, err
}

// word reads a pointer.
func (p *process) word(addr uint64) (uint64, bool) {
	var b [8]byte
	n, _ := p.read(b[:], addr)
	return le64(b[:]), n == len(b)
}

// Entries of the auxiliary vector (include/uapi/linux/auxvec.h).
const (
	auxBase  = 7
	auxEntry = 9
)

// loader returns the module that chose the functions of the process: its dynamic loader,
// of which AT_BASE is the address, or a static program itself.
func (p *process) loader() *module {
	for _, typ := range []uint64{auxBase, auxEntry} {
		if addr, ok := p.mem.Aux(typ); ok && addr != 0 {
			return p.moduleAt(addr)
		}
	}
	return nil
}

// maxScan bounds the data that is searched for a cpu_features: that of a loader is some
// KiB, that of a static program may be anything.
const maxScan = 64 << 20

// findSource finds the CPU that glibc recorded.
func (p *process) findSource() {
	m := p.loader()
	if m == nil {
		p.unknown(facts.Libc, nil, "the auxiliary vector names no program")
		return
	}
	var found []record
	left := uint64(maxScan)
	end := m.end
	if v, ok := p.mem.VMA(end); ok && v.Anonymous() { // .bss
		end = v.End
	}
	buf := make([]byte, 0, before+64<<10+behind)
	for r := range p.mem.Ranges(m.start, end) {
		if v, ok := p.mem.VMA(r.Start); !ok || v.Prot&memory.Exec != 0 {
			continue
		}
		switch r.State {
		case memory.Dumped:
		case memory.Lazy, memory.Compressed, memory.NoParent, memory.NoPages:
			p.unknown(facts.Memory, m.fact, "its data is %v", r.State)
			continue
		default:
			continue
		}
		r.End = min(r.End, r.Start+left)
		left -= r.End - r.Start
		for at := r.Start; at < r.End; at += 64 << 10 {
			from, to := max(r.Start, at-before), min(r.End, at+64<<10+behind)
			buf = buf[:to-from]
			if n, err := p.mem.ReadAt(buf, from); err != nil {
				p.unknown(facts.Memory, m.fact, "%v", err)
				buf = buf[:n]
			}
			found = findFeatures(found, buf, from, int(at-from), int(min(r.End, at+64<<10)-from))
		}
	}
	p.records = len(found)
	switch {
	case len(found) > 1:
		p.unknown(facts.Libc, m.fact, "%d places of its data look like glibc's cpu_features", len(found))
	case len(found) == 1:
		p.record, p.Source = &found[0], found[0].source()
		p.Libc = "glibc"
	case isMusl(m.fact.Path):
		p.Libc = "musl"
	}
}

// proveLibc notes whose file could not be proven of those that choose and hold the
// functions: the loader, or a static program, and the libc.
func (p *process) proveLibc() {
	loader := p.loader()
	for _, m := range p.modules {
		name := path.Base(m.fact.Path)
		if m.fact.Status != facts.OK && (m == loader || name == "libc.so.6" || strings.HasPrefix(name, "libc-2.")) {
			p.unknown(facts.Libc, m.fact, "%s", m.fact.Reason)
		}
	}
}

// maxRodata is how much of a file is searched for the version of glibc.
const maxRodata = 4 << 20

// glibcVersion is in ld.so from 2.33 on, and in every libc.
var glibcVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`release version (2\.[0-9]{1,3})[.\n]`) })

// nameLibc adds the version to the name of a glibc, where a proven file tells it.
func (p *process) nameLibc() {
	if p.Libc != "glibc" {
		return
	}
	loader := p.loader()
	for i, m := range slices.Concat([]*module{loader}, p.modules) { // that of the loader is small
		if m == nil || m.obj == nil || i > 0 && !strings.HasPrefix(path.Base(m.fact.Path), "libc") {
			continue
		}
		for _, seg := range m.obj.loads {
			if seg.Flags&(elf.PF_X|elf.PF_W) != 0 || seg.Filesz > maxRodata {
				continue
			}
			if v := glibcVersion().FindSubmatch(m.obj.table(seg.Vaddr, seg.Filesz)); v != nil {
				p.Libc = "glibc " + string(v[1])
				return
			}
		}
	}
}

// isMusl reports whether the loader is musl's, by its path.
func isMusl(name string) bool {
	return strings.HasPrefix(path.Base(name), "ld-musl-") || strings.Contains(path.Dir(name), "linux-musl")
}

// findAreas finds anonymous memory that is executable.
func (p *process) findAreas() {
	for _, v := range p.mem.VMAs() {
		if v.Prot&memory.Exec != 0 && v.Anonymous() {
			p.Areas = append(p.Areas, facts.Area{Start: v.Start, End: v.End, Writable: v.Prot&memory.Write != 0})
		}
	}
}
