package memory

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fpuimg/fpuimg/codec"
)

// maxParents is how many older dumps a checkpoint may stand on.
const maxParents = 64

// Images is what the processes of a checkpoint share. Close gives up its files; those of
// its processes cannot be read then.
type Images struct {
	root     *dir
	files    map[uint32]*codec.File // nil before they are read
	segments map[string]*space

	mu     sync.Mutex
	opened []io.Closer
	read4k atomic.Uint64
}

// dir is a directory with images, of the checkpoint or of an older dump.
type dir struct {
	files      codec.Files
	compressed bool // its pages, by inventory.img
	depth      int
	below      *dir // which has this one as its parent

	parent *dir
	looked bool // for the parent
}

// space is the pages of an address space, or of shared memory.
type space struct {
	there bool // there is a pagemap
	runs  []run
}

// run is pages that are in one place.
type run struct {
	start, end uint64
	at         int64 // of the first in the pages file
	from       *pagesFile
	state      State
}

// pagesFile is pages-N.img.
type pagesFile struct {
	dir  *dir
	name string

	once sync.Once
	r    io.ReaderAt
	err  error
}

// NewImages is for reading the memory of several processes.
func NewImages(files codec.Files) *Images {
	return &Images{root: &dir{files: files}, segments: map[string]*space{}}
}

// Close closes the pages files.
func (im *Images) Close() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	var err error
	for _, c := range im.opened {
		err = errors.Join(err, c.Close())
	}
	im.opened = nil
	return err
}

// PagesRead is how many pages were read so far, one that is read twice counted twice.
func (im *Images) PagesRead() uint64 { return im.read4k.Load() }

// loadFiles reads what is mapped, once. A checkpoint without files.img has no names.
func (im *Images) loadFiles() error {
	if im.files != nil {
		return nil
	}
	byID := map[uint32]*codec.File{}
	for _, name := range []string{"files.img", "reg-files.img"} {
		b, err := codec.ReadImage(im.root.files, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		list, err := codec.ParseFiles(im.root.files.Label(name), b)
		if err != nil {
			return err
		}
		if b, err = codec.ReadImage(im.root.files, "memfd.img"); err == nil {
			err = codec.AddMemfds(list, im.root.files.Label("memfd.img"), b)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for i := range list {
			byID[list[i].ID] = &list[i]
		}
		break
	}
	im.files = byID
	return nil
}

// Unmapped lists the images of shared memory that no process maps which was opened: a
// memfd or a segment that is held all the same.
func (im *Images) Unmapped() ([]string, error) {
	names, err := im.root.files.Names()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, "pagemap-shmem-") || im.segments[name] != nil
	}), nil
}

// segment returns the shared memory that a mapping is of.
func (im *Images) segment(v *VMA) (*space, error) {
	id := v.ID
	if v.Status&codec.VMAMemfd != 0 {
		if v.File == nil || !v.File.Memfd {
			return &space{}, nil
		}
		id = uint64(v.File.ShmID)
	}
	name := fmt.Sprintf("pagemap-shmem-%d.img", id)
	if s := im.segments[name]; s != nil {
		return s, nil
	}
	s, err := im.load(im.root, name)
	if err == nil {
		im.segments[name] = s
	}
	return s, err
}

// load reads a pagemap of a directory, and what it needs of those of its parents.
func (im *Images) load(d *dir, name string) (*space, error) {
	b, err := codec.ReadImage(d.files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return &space{}, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := codec.ParsePagemap(d.files.Label(name), b)
	if err != nil {
		return nil, err
	}
	if !d.looked {
		if err := d.look(); err != nil {
			return nil, err
		}
	}
	s := &space{there: true, runs: make([]run, 0, len(p.Runs))}
	pages := &pagesFile{dir: d, name: fmt.Sprintf("pages-%d.img", p.PagesID)}
	held, size, err := pages.stat()
	if err != nil {
		return nil, err
	}
	var up *space
	var at uint64
	for _, r := range p.Runs {
		n := run{start: r.Start, end: r.End(), from: pages}
		switch {
		case r.Flags&codec.PageParent != 0:
			if up == nil {
				if up, err = im.loadParent(d, name); err != nil {
					return nil, err
				}
			}
			s.inherit(up, n.start, n.end)
			continue
		case r.Flags&codec.PagePresent == 0:
			n.state, n.from = Lazy, nil
		case p.Compressed || d.compressed:
			n.state = Compressed
		case !held:
			n.state = NoPages
		case r.Pages*codec.PageSize > uint64(size)-at:
			return nil, &codec.FormatError{Path: d.files.Label(pages.name), Offset: size, Field: "pages",
				Err: fmt.Errorf("the file ends, but %s places %d pages from %#x on at %#x", name, r.Pages, r.Start, at)}
		default:
			n.state, n.at = Dumped, int64(at)
			at += r.Pages * codec.PageSize
		}
		s.runs = append(s.runs, n)
	}
	return s, nil
}

// loadParent reads the pagemap of that name in the older dump. Without one it has no runs.
func (im *Images) loadParent(d *dir, name string) (*space, error) {
	if d.parent == nil {
		return &space{}, nil
	}
	return im.load(d.parent, name)
}

// inherit appends what a parent has of the addresses from start to end.
func (s *space) inherit(parent *space, start, end uint64) {
	i, _ := slices.BinarySearchFunc(parent.runs, start+1, compareRuns)
	for ; start < end; i++ {
		if i == len(parent.runs) || parent.runs[i].start >= end {
			s.runs = append(s.runs, run{start: start, end: end, state: NoParent})
			return
		}
		r := parent.runs[i]
		if r.start > start {
			s.runs = append(s.runs, run{start: start, end: r.start, state: NoParent})
			start = r.start
		}
		r.at += int64(start - r.start)
		r.start, r.end = start, min(r.end, end)
		s.runs = append(s.runs, r)
		start = r.end
	}
}

// look returns the run that has a key, and where in its file; up to where that holds. A
// key in no run is Zero, unless there is no pagemap.
func (s *space) look(key, end uint64) (State, *run, int64, uint64) {
	i, _ := slices.BinarySearchFunc(s.runs, key+1, compareRuns)
	switch {
	case !s.there:
		return NoPages, nil, 0, end
	case i == len(s.runs) || s.runs[i].start >= end:
		return Zero, nil, 0, end
	case key < s.runs[i].start:
		return Zero, nil, 0, s.runs[i].start
	}
	r := &s.runs[i]
	return r.state, r, r.at + int64(key-r.start), min(r.end, end)
}

// look reads what inventory.img says, and finds the parent.
func (d *dir) look() error {
	b, err := codec.ReadImage(d.files, "inventory.img")
	if err == nil {
		var inv codec.Inventory
		inv, err = codec.ParseInventory(d.files.Label("inventory.img"), b)
		d.compressed = inv.Compressed
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.looked = true
	older, ok := d.files.(codec.Heir)
	if !ok {
		return nil
	}
	files, err := older.Parent()
	if err != nil || files == nil {
		return err
	}
	label := files.Label("")
	for below := d; below != nil; below = below.below {
		if below.files.Label("") == label {
			return &codec.FormatError{Path: d.files.Label("parent"), Field: "parent", Err: errors.New("leads back to a directory whose parent it is")}
		}
	}
	if d.depth == maxParents {
		return &codec.FormatError{Path: d.files.Label("parent"), Field: "parent", Err: fmt.Errorf("more than %d older dumps below each other", maxParents)}
	}
	d.parent = &dir{files: files, depth: d.depth + 1, below: d}
	return nil
}

// stat tells the size of the file, and whether it is there.
func (f *pagesFile) stat() (there bool, size int64, err error) {
	r, size, err := f.dir.files.Open(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	}
	if c, ok := r.(io.Closer); ok {
		c.Close()
	}
	return err == nil, size, err
}

// read reads a part of a pages file whose size was checked.
func (im *Images) read(f *pagesFile, p []byte, at int64) error {
	f.once.Do(func() {
		if f.r, _, f.err = f.dir.files.Open(f.name); f.err != nil {
			return
		}
		if c, ok := f.r.(io.Closer); ok {
			im.mu.Lock()
			im.opened = append(im.opened, c)
			im.mu.Unlock()
		}
	})
	if f.err != nil {
		return f.err
	}
	im.read4k.Add(uint64((at+int64(len(p))-1)/codec.PageSize - at/codec.PageSize + 1))
	n, err := f.r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) { // it shrank meanwhile
		err = &codec.FormatError{Path: f.dir.files.Label(f.name), Offset: at + int64(n), Field: "pages", Err: io.ErrUnexpectedEOF}
	}
	return err
}
