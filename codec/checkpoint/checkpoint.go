package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
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

// Threads decodes the core images one after the other, in the order of pstree.img,
// each task's leader first, unless it has ended before its process. An image that cannot
// be read gives an error in its place, a [*codec.FormatError], a [*codec.MissingError] or
// from the file system, and the walk goes on. Zombies have no threads: pstree.img holds
// rubbish for them.
func (c *Checkpoint) Threads() iter.Seq2[codec.Thread, error] {
	return func(yield func(codec.Thread, error) bool) {
		for _, l := range c.threads {
			if !yield(l.Thread, l.Err) {
				return
			}
		}
		cores := coreReader{files: c.Files}
		for _, t := range c.tasks {
			pid := t.PID
			if c.orphans {
				pid = 0
			}
			core, err := cores.read(t.PID)
			if err == nil && core.Dead {
				continue
			}
			ended := !t.Led() && errors.Is(err, fs.ErrNotExist)
			if !ended && !yield(codec.NewThread(pid, t.PID, core), err) {
				return
			}
			for i, tid := range t.Threads {
				if tid == t.PID {
					continue
				}
				core, err := cores.read(tid)
				if i == 0 && (t.Rubbish || !ended) { // CRIU would take the registers of another
					core, err = nil, &codec.FormatError{Path: c.Files.Label("pstree.img"), Offset: t.Offset, Field: "threads", Err: fmt.Errorf("the first of process %d is %d", t.PID, tid)}
				}
				if !yield(codec.NewThread(pid, tid, core), err) {
					return
				}
			}
		}
	}
}

// coreReader reads core images. Where many are missing it lists what there is, rather
// than try to open millions that a hostile pstree.img names.
type coreReader struct {
	files   codec.Files
	missing int
	there   map[string]bool
}

const maxMissing = 1000

func (r *coreReader) read(tid int) (*codec.Core, error) {
	name := codec.CoreName(tid)
	missing := &codec.MissingError{Path: r.files.Label(name), Reason: "pstree.img names this thread"}
	if r.there != nil && !r.there[name] {
		return nil, missing
	}
	b, err := codec.ReadImage(r.files, name)
	if errors.Is(err, fs.ErrNotExist) {
		if r.missing++; r.missing == maxMissing {
			if names, err := r.files.Names(); err == nil {
				r.there = map[string]bool{}
				for _, name := range names {
					r.there[name] = true
				}
			}
		}
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	return codec.ParseCore(missing.Path, b)
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
