package codec

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Kind is the container that a checkpoint was read from.
type Kind string

const (
	KindCRIU      Kind = "criu"       // an images directory, or one core image
	KindArchive   Kind = "archive"    // an images directory inside a tar archive
	KindELFCore   Kind = "elf-core"   // an ELF core file
	KindXSaveArea Kind = "xsave-area" // a bare XSAVE area
)

// Checkpoint is the FPU states of some threads, and where they were found: a CRIU
// images directory, one core image, a checkpoint in an archive, an ELF core or a
// bare XSAVE area.
type Checkpoint struct {
	Path string
	Kind Kind
	// CPUInfo is the CPU that the checkpoint was taken on; nil if not recorded.
	CPUInfo *CPUInfo
	// Container is what an engine recorded beside the images; nil if nothing.
	Container *Container
	// Problems are faults outside the core images: a missing pstree.img, a
	// damaged cpuinfo.img. What could be read is there all the same.
	Problems []error

	dir   string // "" for a single image; of an archive's checkpoint, the place in it
	tasks []task
	// A directory without a pstree.img: which task a thread belongs to is known
	// only where the core image describes the task too.
	orphans bool
	single  *Core
	list    []listed // the threads of a container that was decoded at once
	archive string   // the archive that holds dir, "" if none does
	files   map[string]archived
}

// listed is a thread that was decoded already, or why it could not be.
type listed struct {
	Thread
	err error
}

// Single returns the core image of a checkpoint that is one, nil for a directory.
func (c *Checkpoint) Single() *Core { return c.single }

// RedoName is the file that marks a checkpoint which a conversion in place was
// changing when it was cut off.
const RedoName = ".fpuimg-redo"

// InterruptedError is a checkpoint that a conversion in place was changing when it
// was cut off: some of its files are new and some old.
type InterruptedError struct{ Dir string }

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("%s: a conversion of this checkpoint was interrupted", e.Dir)
}

// interrupted returns an [*InterruptedError] if the directory has a commit record.
func interrupted(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, RedoName)); err == nil {
		return &InterruptedError{dir}
	}
	return nil
}

// Thread is one thread of a checkpoint.
type Thread struct {
	PID  int // 0: unknown, because there is no pstree.img
	TID  int
	Core *Core
}

// Open opens the one checkpoint that path holds: a CRIU images directory or one
// above it, a core image, an archive, an ELF core. The error is a [*FormatError] if
// the bytes are malformed, a [*CompressionError], an [*InterruptedError], or from the
// file system; or it says that there are several (see [OpenAll]).
func Open(path string) (*Checkpoint, error) {
	all, err := OpenAll(path, Options{})
	if err != nil {
		return nil, err
	}
	return Only(path, all)
}

// OpenReader reads one core image from r; name stands for its path.
func OpenReader(name string, r io.Reader) (*Checkpoint, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxImage+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxImage {
		return nil, &FormatError{name, maxImage, "image", errTooLarge}
	}
	return openCore(name, b)
}

func openCore(path string, b []byte) (*Checkpoint, error) {
	core, err := ParseCore(path, b)
	if err != nil {
		return nil, err
	}
	return &Checkpoint{Path: path, Kind: KindCRIU, single: core}, nil
}

// OpenDir opens a CRIU images directory. The core images are not read before
// [Checkpoint.Threads] asks for them.
func OpenDir(path string) (*Checkpoint, error) {
	c := &Checkpoint{Path: path, Kind: KindCRIU, dir: path}
	c.problem(interrupted(path))
	if err := c.readAll(); err != nil {
		return nil, err
	}
	return c, nil
}

// readAll reads the images that are about the checkpoint as a whole.
func (c *Checkpoint) readAll() error {
	if err := c.readPstree(); err != nil {
		return err
	}
	b, err := c.read("cpuinfo.img")
	if err == nil {
		c.CPUInfo, err = ParseCPUInfo(c.file("cpuinfo.img"), b)
	}
	c.problem(err)
	if b, err = c.read("inventory.img"); err == nil {
		err = checkInventory(c.file("inventory.img"), b)
	}
	c.problem(err)
	return nil
}

// problem notes an error, unless it is that an optional file is not there.
func (c *Checkpoint) problem(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Problems = AppendFault(c.Problems, err)
	}
}

// readPstree lists the tasks, from the names of the core images if there is no
// usable pstree.img.
func (c *Checkpoint) readPstree() error {
	b, err := c.read("pstree.img")
	if err == nil {
		c.tasks, err = parsePstree(c.file("pstree.img"), b)
	}
	if err == nil {
		return nil
	}
	names, direrr := c.names()
	if direrr != nil {
		return direrr
	}
	c.tasks, c.orphans = nil, true
	for _, name := range names {
		if tid, ok := coreTID(name); ok {
			c.tasks = append(c.tasks, task{pid: tid})
		}
	}
	slices.SortFunc(c.tasks, func(a, b task) int { return cmp.Compare(a.pid, b.pid) })
	if errors.Is(err, fs.ErrNotExist) {
		if len(c.tasks) == 0 {
			return &fs.PathError{Op: "open", Path: c.dir, Err: ErrNoImages}
		}
		err = &MissingError{c.file("pstree.img"), "which threads belong together is unknown"}
	}
	c.Problems = AppendFault(c.Problems, err)
	return nil
}

// coreTID reads the thread's number from the name of a core image.
func coreTID(name string) (int, bool) {
	s, ok := strings.CutPrefix(name, "core-")
	if !ok {
		return 0, false
	}
	s, ok = strings.CutSuffix(s, ".img")
	if !ok {
		return 0, false
	}
	tid, err := strconv.ParseUint(s, 10, 31)
	return int(tid), err == nil
}

func coreName(tid int) string { return "core-" + strconv.Itoa(tid) + ".img" }

// file names one of the checkpoint's files, for messages too.
func (c *Checkpoint) file(name string) string {
	if c.archive != "" {
		return inArchive(c.archive, c.dir, name)
	}
	return filepath.Join(c.dir, name)
}

func (c *Checkpoint) read(name string) ([]byte, error) {
	if c.archive != "" {
		return c.fileInArchive(name)
	}
	return ReadFile(c.file(name))
}

// names lists the checkpoint's files.
func (c *Checkpoint) names() ([]string, error) {
	if c.archive != "" {
		return slices.Collect(maps.Keys(c.files)), nil
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (c *Checkpoint) core(tid int) (*Core, error) {
	path := c.file(coreName(tid))
	b, err := c.read(coreName(tid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{path, "pstree.img names this thread"}
	}
	if err != nil {
		return nil, err
	}
	return ParseCore(path, b)
}

// Threads decodes the core images one after the other, in the order of pstree.img,
// each task's leader first, unless it has ended before its process. An image that cannot
// be read gives an error in its place, a [*FormatError], a [*MissingError] or from the
// file system, and the walk goes on. Zombies have no threads: pstree.img holds rubbish
// for them.
func (c *Checkpoint) Threads() iter.Seq2[Thread, error] {
	return func(yield func(Thread, error) bool) {
		for _, l := range c.list {
			if !yield(l.Thread, l.err) {
				return
			}
		}
		if c.single != nil {
			tid, _ := coreTID(filepath.Base(c.Path))
			if c.single.Dead {
				return
			}
			yield(c.thread(0, tid, c.single), nil)
			return
		}
		for _, t := range c.tasks {
			pid := t.pid
			if c.orphans {
				pid = 0
			}
			core, err := c.core(t.pid)
			if err == nil && core.Dead {
				continue
			}
			ended := !t.led() && errors.Is(err, fs.ErrNotExist)
			if !ended && !yield(c.thread(pid, t.pid, core), err) {
				return
			}
			for i, tid := range t.threads {
				if tid == t.pid {
					continue
				}
				core, err := c.core(tid)
				if i == 0 && (t.rubbish || !ended) { // CRIU would take the registers of another
					core, err = nil, &FormatError{c.file("pstree.img"), t.at, "threads", fmt.Errorf("the first of process %d is %d", t.pid, tid)}
				}
				if !yield(c.thread(pid, tid, core), err) {
					return
				}
			}
		}
	}
}

func (c *Checkpoint) thread(pid, tid int, core *Core) Thread {
	if pid == 0 && core != nil && core.Leader {
		pid = tid
	}
	return Thread{PID: pid, TID: tid, Core: core}
}

// ReadFile reads an image file whole. Symbolic links, pipes and devices are
// refused: CRIU writes none, and following one would leave the checkpoint. The
// error is a [*FormatError] for those and for a file that is too large to be an
// image, else from the file system.
func ReadFile(path string) ([]byte, error) {
	f, err := openNoFollow(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, &FormatError{path, 0, "file", errIrregular}
	case info.Size() > maxImage:
		return nil, &FormatError{path, maxImage, "file", errTooLarge}
	}
	b := make([]byte, info.Size())
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil // it shrank meanwhile: what is there is what it holds
	}
	return b[:n], err
}
