// Package level plans how the memory of a checkpoint changes so that its processes run
// on a lesser CPU: the functions that IFUNCs chose, in every word that holds one, what
// glibc and OpenSSL recorded of the CPU, and how lazy binding saves registers.
//
// A plan holds edits of the pages, and for the registers what a conversion for that host
// does; [convert.Plan] carries both out. It is refused where anything is not understood:
// a refusal has a name, and all of them are gathered.
//
// # Proof
//
// The words that the loader filled in are compared with what their resolvers choose in
// the image itself, which shows that glibc's record was understood. The functions that
// take their places are decoded, until nothing that they need is missing on the host.
//
// # How it can be wrong
//
// A pointer that a program keeps in another form than those that are looked for, packed
// or combined with other bits, is not seen.
package level

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// Options says what to level for.
type Options struct {
	Host  *xstate.CPU
	Roots *program.Roots
	// Accept are the refusals not to make.
	Accept []Exception
	// KeepCPUInfo leaves cpuinfo.img as it is.
	KeepCPUInfo bool
	// Progress is called with the bytes of memory scanned so far; nil is none.
	Progress func(done int64)
}

// Plan is the levelling of one checkpoint, worked out but not carried out.
type Plan struct {
	*convert.Plan
	Tasks    []Task
	Refusals []Refusal

	options Options
	looker  *program.Looker
}

// Task is a process, and what changes in its memory.
type Task struct {
	PID   int
	Libc  string // as in [facts.Process]
	Words []Word // by address
	// Registers are general registers that hold such a function.
	Registers []Register
	// Idle says why nothing in its memory can need levelling; "" if it was looked at.
	Idle string
}

// Register is a general register of a thread that changes.
type Register struct {
	TID                  int
	Name                 string
	From, To             uint64
	SymbolFrom, SymbolTo string // as of a [Word]

	index int // in [codec.Thread.GPRegs]
}

// What is the kind of a word that changes.
type What string

const (
	IRelative   What = "irelative"    // filled in by the loader: a function of the object's own
	GOT         What = "got"          // of a symbol: JUMP_SLOT, GLOB_DAT
	Data        What = "data"         // of a symbol, in the object's data
	Copy        What = "copy"         // of a function that an IFUNC chose, wherever it lies
	Trampoline  What = "trampoline"   // what lazy binding enters
	CPUFeatures What = "cpu-features" // glibc's record
	SaveSize    What = "save-size"    // of the buffer of lazy binding
	OpenSSL     What = "openssl"      // its record
	Frame       What = "frame"        // a signal frame
)

// Word is a piece of memory that changes.
type Word struct {
	Address  uint64
	Object   string // that it lies in; "" for memory of no file
	What     What
	From, To []byte // of one length
	// The functions that it names, as object and offset; "" if it names none.
	SymbolFrom, SymbolTo string
}

// ErrNoMemory is a checkpoint of which only registers are there.
var ErrNoMemory = errors.New("only a whole checkpoint can be levelled, with the images of its memory")

// ErrHost is a host of which too little is known.
var ErrHost = errors.New("nothing is recorded of the instruction sets of the host")

// NewPlan works out how a checkpoint is levelled. The errors are those of
// [convert.NewPlan], [ErrNoMemory] and [ErrHost], or of its images of memory; a refusal is
// no error.
func NewPlan(c *checkpoint.Checkpoint, o Options) (*Plan, error) {
	if c.Files == nil || c.Image != "" {
		return nil, fmt.Errorf("%s: %w", c.Path, ErrNoMemory)
	}
	if o.Host.Flags == nil {
		return nil, ErrHost
	}
	return newPlan(c, o, program.NewLooker(c.Files, o.Roots))
}

// newPlan closes the looker if the plan will not be carried out.
func newPlan(c *checkpoint.Checkpoint, o Options, looker *program.Looker) (p *Plan, err error) {
	p = &Plan{options: o, looker: looker}
	defer func() {
		if err != nil || !p.Changed() {
			err = errors.Join(err, looker.Close())
		}
	}()
	threads := map[int][]codec.Thread{}
	var pids []int
	for th, err := range c.Threads() {
		if err != nil {
			continue // the conversion says so
		}
		if threads[th.PID] == nil {
			pids = append(pids, th.PID)
		}
		threads[th.PID] = append(threads[th.PID], th)
	}
	var tasks []*task
	var code []*facts.Process
	for _, pid := range pids {
		proc, err := looker.Open(pid, threads[pid])
		if err != nil {
			return nil, err
		}
		code = append(code, proc.Process)
		tasks = append(tasks, &task{Task: Task{PID: pid, Libc: proc.Libc, Words: []Word{}, Registers: []Register{}}, Process: proc, mem: proc.Memory(), plan: p, threads: threads[pid]})
	}
	for _, proc := range code { // what a profile does not record, the same CPU may have recorded
		if proc.Source != nil && isHome(p.options.Host, proc.Source.CPU) {
			p.options.Host = completed(p.options.Host, proc.Source.CPU)
		}
	}
	if c.CPUInfo != nil && isHome(p.options.Host, c.CPUInfo.CPU()) && has(p.options.Host, c.CPUInfo.CPU()) {
		o.KeepCPUInfo = true
	}
	p.Plan, err = convert.NewPlan(c, convert.Options{Target: compat.Target{Host: p.options.Host}, Code: code,
		Policy: compat.Policy{Level: true, KeepCPUInfo: o.KeepCPUInfo}})
	if err != nil {
		return nil, err
	}
	var scanned int64
	for _, t := range tasks {
		t.progress = func(n int64) {
			if scanned += n; o.Progress != nil {
				o.Progress(scanned)
			}
		}
		if err := t.level(); err != nil {
			return nil, err
		}
		p.Tasks = append(p.Tasks, t.Task)
	}
	p.registers(tasks)
	if err := p.unmapped(looker, tasks); err != nil {
		return nil, err
	}
	slices.SortStableFunc(p.Refusals, func(a, b Refusal) int { return cmp.Compare(a.PID, b.PID) })
	if len(p.Refusals) > 0 {
		return p, nil
	}
	p.Verify = p.verify
	return p, p.edit(tasks)
}

// Close gives up what the plan holds open; it cannot be carried out then.
func (p *Plan) Close() error { return p.looker.Close() }

// VerifyError is a result that is not what it should be: nothing was written.
type VerifyError struct {
	Path   string
	Reason string
}

func (e *VerifyError) Error() string {
	return fmt.Sprintf("%s: the levelled result was read anew and is not right, so nothing was written: %s", e.Path, e.Reason)
}

// verify looks at the result as at any checkpoint that is to be levelled: there must be
// nothing to do.
func (p *Plan) verify(files codec.Files) error {
	c, err := checkpoint.New(p.Checkpoint.Path, files)
	if err != nil {
		return err
	}
	o := p.options
	o.Progress = nil
	again, err := newPlan(c, o, p.looker.Anew(files))
	switch {
	case err != nil:
		return err
	case again.Refused():
		return &VerifyError{p.Checkpoint.Path, fmt.Sprintf("%s: %s", again.Refusals[0].Name, again.Refusals[0].Reason)}
	case again.Changed():
		return &VerifyError{p.Checkpoint.Path, "it would change again"}
	}
	return nil
}

// Refused reports whether the plan must not be carried out.
func (p *Plan) Refused() bool { return len(p.Refusals) > 0 }

// Changed reports whether any file would change.
func (p *Plan) Changed() bool { return !p.Refused() && p.Plan.Changed() }

// edit makes edits of the words. Memory that tasks share is edited once.
func (p *Plan) edit(tasks []*task) error {
	type place struct {
		file string
		at   int64
	}
	edits := map[place]convert.Edit{}
	for _, t := range tasks {
		for _, w := range t.Words {
			for n := 0; n < len(w.From); {
				addr := w.Address + uint64(n)
				m := min(len(w.From), n+int(codec.PageSize-addr%codec.PageSize))
				if slices.Equal(w.From[n:m], w.To[n:m]) { // it may be in no image
					n = m
					continue
				}
				at, ok := t.mem.Locate(addr)
				if !ok || at.Parent {
					return fmt.Errorf("memory at %#x of process %d is in no image that can be changed", addr, t.PID)
				}
				e := convert.Edit{Offset: at.Offset, Old: w.From[n:m], New: w.To[n:m], Why: fmt.Sprintf("%s at %#x of process %d", w.What, addr, t.PID)}
				key := place{at.File, at.Offset}
				if old, again := edits[key]; again && !slices.Equal(old.New, e.New) {
					return fmt.Errorf("%s at %#x: %s and %s want different values there", at.Label, at.Offset, old.Why, e.Why)
				}
				edits[key] = e
				n = m
			}
		}
	}
	for _, t := range tasks {
		for _, th := range t.threads {
			regs := map[int]uint64{}
			for _, r := range t.Registers {
				if r.TID == th.TID {
					regs[r.index] = r.To
				}
			}
			if len(regs) > 0 {
				if err := p.SetGPRegs(th, regs); err != nil {
					return err
				}
			}
		}
	}
	files := map[string][]convert.Edit{}
	for key, e := range edits {
		files[key.file] = append(files[key.file], e)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := p.Edit(name, files[name]...); err != nil {
			return err
		}
	}
	return nil
}

// Bytes spells what a word holds, as a number where it can be one.
func Bytes(b []byte) string {
	if len(b) > 8 {
		return "0x" + hex.EncodeToString(b)
	}
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return fmt.Sprintf("%#x", v)
}
