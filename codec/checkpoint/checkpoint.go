package checkpoint

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/internal/ahead"
)

// Kind is the container that a checkpoint was read from.
type Kind string

const (
	KindCRIU      Kind = "criu"       // an images directory, or one core image
	KindArchive   Kind = "archive"    // an images directory inside a tar archive
	KindELFCore   Kind = "elf-core"   // an ELF core file
	KindXSaveArea Kind = "xsave-area" // a bare XSAVE area
)

// Checkpoint is the FPU states of some threads, and where they were found.
type Checkpoint struct {
	Path string
	Kind Kind
	// Files are the image files; nil for an ELF core and a bare area.
	Files codec.Files
	// Image is the name of the one core image that this is, "" for a whole checkpoint.
	Image string
	// CPUInfo is the CPU that the checkpoint was taken on; nil if not recorded.
	CPUInfo *codec.CPUInfo
	// Container is what an engine recorded beside the images; nil if nothing.
	Container *Container
	// Annotations are those of the OCI image whose layer it is, by name; nil if none tells
	// of a checkpoint.
	Annotations []Annotation
	// ReadOnly says why it cannot be converted where it lies, "" if it can.
	ReadOnly string
	// Problems are faults outside the core images: a missing pstree.img, a
	// damaged cpuinfo.img. What could be read is there all the same.
	Problems []error

	packed bool // the pages of memory, by inventory.img
	tasks  []codec.Task
	// Without a pstree.img, which task a thread belongs to is known only where the
	// core image describes the task too.
	orphans bool
	threads []codec.Listed // that were decoded at once
}

// Archive returns the archive that has the files, nil if none does.
func (c *Checkpoint) Archive() *Archive {
	a, _ := c.Files.(*Archive)
	return a
}

// FileOf is the name of a thread's core image.
func (c *Checkpoint) FileOf(th codec.Thread) string { return cmp.Or(c.Image, codec.CoreName(th.TID)) }

// Label names the file that has a thread, for messages.
func (c *Checkpoint) Label(th codec.Thread) string {
	if th.Image == nil {
		return c.Path
	}
	return th.Image.Path
}

// New reads the checkpoint in files, whose path serves for messages.
func New(path string, files codec.Files) (*Checkpoint, error) {
	return newCheckpoint(path, KindCRIU, files)
}

// newCheckpoint reads the images that are about the checkpoint as a whole. The error
// is that there is no checkpoint in the files.
func newCheckpoint(path string, kind Kind, files codec.Files) (*Checkpoint, error) {
	c := &Checkpoint{Path: path, Kind: kind, Files: files}
	if err := c.readPstree(); err != nil {
		return nil, err
	}
	b, err := codec.ReadImage(files, "cpuinfo.img")
	if err == nil {
		c.CPUInfo, err = codec.ParseCPUInfo(files.Label("cpuinfo.img"), b)
	}
	if err != nil {
		c.problem(&CPUInfoError{err})
	}
	if b, err = codec.ReadImage(files, "inventory.img"); err == nil {
		var inv codec.Inventory
		inv, err = codec.ParseInventory(files.Label("inventory.img"), b)
		c.packed = inv.Compressed
	}
	c.problem(err)
	return c, nil
}

// Pagemap returns how a task's memory is dumped, of the first task of which that can be
// read, as CRIU dumps all alike; nil if no task has dumped memory. The error is a
// [*codec.FormatError], or from the file system.
func (c *Checkpoint) Pagemap() (*codec.Pagemap, error) {
	if c.Files == nil || c.Image != "" {
		return nil, nil
	}
	var fault error
	names, err := c.Files.Names()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if !isPagemap(name) {
			continue
		}
		b, err := codec.ReadImage(c.Files, name)
		var p *codec.Pagemap
		if err == nil {
			p, err = codec.ParsePagemap(c.Files.Label(name), b)
		}
		if err == nil && len(p.Runs) > 0 {
			p.Compressed = p.Compressed || c.packed
			return p, nil
		}
		fault = cmp.Or(fault, err)
	}
	return nil, fault
}

// newImage is one core image; a thread that has ended has no state.
func newImage(path, name string, files codec.Files, b []byte) (*Checkpoint, error) {
	core, err := codec.ParseCore(path, b)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Path: path, Kind: KindCRIU, Files: files, Image: name}
	if tid, _ := codec.CoreTID(name); !core.Dead {
		c.threads = []codec.Listed{{Thread: codec.NewThread(0, tid, core)}}
	}
	return c, nil
}

// problem notes an error, unless it is that an optional file is not there.
func (c *Checkpoint) problem(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Problems = codec.AppendFault(c.Problems, err)
	}
}

// readPstree lists the tasks, from the names of the core images if there is no
// usable pstree.img.
func (c *Checkpoint) readPstree() error {
	path := c.Files.Label("pstree.img")
	b, err := codec.ReadImage(c.Files, "pstree.img")
	if err == nil {
		c.tasks, err = codec.ParsePstree(path, b)
	}
	if err == nil {
		return nil
	}
	names, listErr := c.Files.Names()
	if listErr != nil {
		return listErr
	}
	c.tasks, c.orphans = nil, true
	for _, name := range names {
		if tid, ok := codec.CoreTID(name); ok {
			c.tasks = append(c.tasks, codec.Task{PID: tid})
		}
	}
	slices.SortFunc(c.tasks, func(a, b codec.Task) int { return cmp.Compare(a.PID, b.PID) })
	if errors.Is(err, fs.ErrNotExist) {
		if len(c.tasks) == 0 {
			return &fs.PathError{Op: "open", Path: c.Path, Err: ErrNoImages}
		}
		err = &codec.MissingError{Path: path, Reason: "which threads belong together is unknown"}
	}
	c.Problems = codec.AppendFault(c.Problems, err)
	return nil
}

// Tasks are the numbers of the processes that pstree.img names, nil if nothing can be read
// of it.
func (c *Checkpoint) Tasks() (pids []int) {
	if !c.orphans {
		for i := range c.tasks {
			pids = append(pids, c.tasks[i].PID)
		}
	}
	return pids
}

// Threads decodes the core images one after the other, in the order of pstree.img,
// each task's leader first, unless it has ended before its process. An image that cannot
// be read gives an error in its place, a [*codec.FormatError], a [*codec.MissingError] or
// from the file system, and the walk goes on. Zombies have no threads: pstree.img holds
// rubbish for them.
func (c *Checkpoint) Threads() iter.Seq2[codec.Thread, error] { return c.walk(nil) }

// Scan is [Checkpoint.Threads] for who keeps no thread: the memory of a thread's image and
// state is used again for others once the walk goes on.
func (c *Checkpoint) Scan() iter.Seq2[codec.Thread, error] {
	return c.walk(make(chan *room, 2*readers))
}

// walk yields the threads. In rooms there may be memory to be used again; nil asks for
// none to be.
func (c *Checkpoint) walk(rooms chan *room) iter.Seq2[codec.Thread, error] {
	return func(yield func(codec.Thread, error) bool) {
		for _, l := range c.threads {
			if !yield(l.Thread, l.Err) {
				return
			}
		}
		w := walk{c: c, yield: yield, cores: coreReader{files: c.Files, decoder: codec.NewDecoder()}}
		dir, ok := c.Files.(codec.Dir)
		n := ahead.Workers(readers, batchSize)
		if !ok || n == 1 || c.images() < 2*batchSize {
			for place := range c.places() {
				if !w.step(&place) {
					return
				}
			}
			return
		}
		held := dir.Hold()
		defer held.Close()
		reader := func() func([]place) batch {
			cores := coreReader{files: c.Files, held: held, decoder: codec.NewDecoder()}
			return func(places []place) batch {
				b := batch{places, nil}
				if rooms != nil {
					select {
					case b.room = <-rooms:
					default:
						b.room = new(room)
					}
				}
				cores.readAhead(b)
				return b
			}
		}
		for b := range ahead.Map(n, inBatches(c.places()), reader) {
			for i := range b.places {
				if !w.step(&b.places[i]) {
					return
				}
			}
			if b.room != nil {
				select {
				case rooms <- b.room:
				default:
				}
			}
		}
	}
}

// MaxOpen is how many files are open while a checkpoint's threads are read.
const MaxOpen = readers*batchSize + 8

const (
	readers   = 8        // of images at once: more than there are CPUs, for they wait for disks
	batchSize = 8        // images that one of them reads at a time, and may hold open
	small     = 64 << 10 // bytes of an image that is read before it is asked for
)

// images returns how many core images pstree.img names.
func (c *Checkpoint) images() int {
	n := len(c.tasks)
	for i := range c.tasks {
		n += len(c.tasks[i].Threads)
	}
	return n
}

// batch is places whose images are read together, into the room if there is one.
type batch struct {
	places []place
	room   *room
}

// room is memory for the images of a batch.
type room struct {
	raw   []byte
	cores [batchSize]codec.Core
}

// place is one in pstree.img, for a thread.
type place struct {
	task  *codec.Task
	i     int // of its Threads, -1 for the leader
	begun *codec.Begun
	read  bool
	core  *codec.Core
	err   error
}

func (p *place) tid() int {
	if p.i < 0 {
		return p.task.PID
	}
	return p.task.Threads[p.i]
}

// places yields all places, each task's leader first.
func (c *Checkpoint) places() iter.Seq[place] {
	return func(yield func(place) bool) {
		for t := range c.tasks {
			task := &c.tasks[t]
			for i := -1; i < len(task.Threads); i++ {
				if (i < 0 || task.Threads[i] != task.PID) && !yield(place{task: task, i: i}) {
					return
				}
			}
		}
	}
}

// inBatches yields places some at a time.
func inBatches(places iter.Seq[place]) iter.Seq[[]place] {
	return func(yield func([]place) bool) {
		var some []place
		for p := range places {
			if some = append(some, p); len(some) < batchSize {
				continue
			}
			if !yield(some) {
				return
			}
			some = nil
		}
		if some != nil {
			yield(some)
		}
	}
}

// walk yields the threads of tasks, place by place.
type walk struct {
	c     *Checkpoint
	yield func(codec.Thread, error) bool
	cores coreReader
	dead  bool // the task has ended
	ended bool // its leader has
}

// step yields the thread of a place, if there is one, and reports whether to go on.
func (w *walk) step(p *place) bool {
	if w.dead && p.i >= 0 {
		return true
	}
	if !p.read {
		p.core = new(codec.Core)
		p.err = w.cores.read(p.core, p.tid())
	}
	pid, core, err := p.task.PID, p.core, p.err
	if err != nil {
		core = nil
	}
	switch {
	case p.i < 0:
		w.dead = err == nil && core.Dead
		if w.ended = !p.task.Led() && errors.Is(err, fs.ErrNotExist); w.dead || w.ended {
			return true
		}
	case p.i == 0 && (p.task.Rubbish || !w.ended): // CRIU would take the registers of another
		core, err = nil, &codec.FormatError{Path: w.c.Files.Label("pstree.img"), Offset: p.task.Offset, Field: "threads", Err: fmt.Errorf("the first of process %d is %d", pid, p.tid())}
	}
	if w.c.orphans {
		pid = 0
	}
	return w.yield(codec.NewThread(pid, p.tid(), core), err)
}

// coreReader reads core images. Where many are missing it lists what there is, rather
// than try to open millions that a hostile pstree.img names.
type coreReader struct {
	files   codec.Files
	held    *codec.HeldDir // files, where they are read ahead
	decoder *codec.Decoder
	raw     []byte // room for one image
	missing int
	there   map[string]bool
}

const maxMissing = 1000

// read reads the image of a thread.
func (r *coreReader) read(core *codec.Core, tid int) error {
	name := codec.CoreName(tid)
	err := fs.ErrNotExist
	var b []byte
	if r.mayBe(name) {
		b, err = codec.ReadImage(r.files, name)
	}
	return r.parse(core, r.files.Label(name), b, err)
}

// mayBe reports whether there may be an image of this name.
func (r *coreReader) mayBe(name string) bool { return r.there == nil || r.there[name] }

// parse decodes the image of a thread, unless there was an error.
func (r *coreReader) parse(core *codec.Core, path string, b []byte, err error) error {
	switch {
	case err == nil:
		return r.decoder.Decode(core, path, b)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if r.missing++; r.missing == maxMissing {
		if names, err := r.files.Names(); err == nil {
			r.there = map[string]bool{}
			for _, name := range names {
				r.there[name] = true
			}
		}
	}
	return &codec.MissingError{Path: path, Reason: "pstree.img names this thread"}
}

// readAhead reads the images of a batch, but for large ones. What the kernel has to read
// it reads at once, while those that it has are decoded.
func (r *coreReader) readAhead(b batch) {
	raw := r.raw[:0]
	if b.room != nil {
		raw = b.room.raw[:0]
	}
	finish := func(p *place, path string, have int, err error) {
		image := raw[have:len(raw):len(raw)]
		if b.room == nil { // the core image keeps it
			image, raw = bytes.Clone(image), raw[:have]
		}
		p.err = r.parse(p.core, path, image, err)
		p.read = !errors.Is(p.err, codec.ErrTooLarge)
	}
	for i := range b.places {
		p := &b.places[i]
		if b.room != nil {
			p.core = &b.room.cores[i]
		} else {
			p.core = new(codec.Core)
		}
		name, have, err := codec.CoreName(p.tid()), len(raw), fs.ErrNotExist
		path := r.held.Label(name)
		if r.mayBe(name) {
			raw, p.begun, err = r.held.Begin(raw, path, small)
		}
		if p.begun == nil {
			finish(p, path, have, err)
		}
	}
	for i := range b.places {
		if p := &b.places[i]; p.begun != nil {
			have := len(raw)
			var err error
			raw, err = p.begun.Append(raw)
			finish(p, p.begun.Path(), have, err)
		}
	}
	if b.room == nil {
		r.raw = raw
	} else {
		b.room.raw = raw
	}
}

// Found is a checkpoint, or why there is none where one should be, in a blob of an OCI
// image layout.
type Found struct {
	Path       string
	Checkpoint *Checkpoint
	Err        error
}

// found is a single checkpoint.
func found(c *Checkpoint, err error) ([]Found, error) {
	if err != nil {
		return nil, err
	}
	return []Found{{Path: c.Path, Checkpoint: c}}, nil
}

// isImage reports whether the file is one that the reader needs.
func isImage(base string) bool {
	switch base {
	case "pstree.img", "cpuinfo.img", "inventory.img":
		return true
	}
	_, ok := codec.CoreTID(base)
	return ok
}

// isPagemap reports whether the file tells how a task's memory is dumped.
func isPagemap(base string) bool {
	rest, ok := strings.CutPrefix(base, "pagemap-")
	id, ok2 := strings.CutSuffix(rest, ".img")
	return ok && ok2 && strings.Trim(id, "0123456789") == ""
}

// smallPagemap is the size in bytes up to which a pagemap is held of each directory: to
// tell how memory is dumped, any does.
const smallPagemap = 16 << 10
