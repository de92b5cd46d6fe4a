package level

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// Name is why a checkpoint is refused.
type Name string

const (
	Damaged          Name = "damaged"            // a thread's record is not whole
	Task32Bit        Name = "task-32bit"         // its code is not decoded
	PagesElsewhere   Name = "pages-elsewhere"    // in a parent, or in no image
	PagesCompressed  Name = "pages-compressed"   // by CRIU
	GlibcUnknown     Name = "glibc-unknown"      // a glibc whose record of the CPU is not found or not known
	Ambiguous        Name = "features-ambiguous" // several places look like that record
	ObjectMissing    Name = "object-missing"     // no root has the file
	ObjectDiffers    Name = "object-differs"     // the file there is another one
	ResolverUnknown  Name = "resolver-unknown"   // a resolver that cannot be run
	ResolverMismatch Name = "resolver-mismatch"  // a word holds what its resolver does not choose
	TargetUnfit      Name = "target-unfit"       // what a resolver chooses for the host does not run there
	WordAmbiguous    Name = "word-ambiguous"     // a word that could become one function or another
	CopiesElsewhere  Name = "copies-elsewhere"   // a word that lies in no image
	ThreadInCode     Name = "thread-in-code"     // that the host lacks instructions for
	ThreadInLoader   Name = "thread-in-loader"   // which may have read what changes
	StateLive        Name = "state-live"         // registers that the host lacks
	FrameLive        Name = "frame-live"         // the same in a signal frame
	InUse            Name = "in-use"             // protection keys, tiles, a shadow stack that the host lacks
	HWCapsPath       Name = "hwcaps-path"        // libraries built for more than the host
	OwnDispatch      Name = "own-dispatch"       // an object that chose code by itself
	CompiledISA      Name = "compiled-isa"       // an object that is compiled for more than the host
	CachedCPUID      Name = "cached-cpuid"       // an object that keeps what CPUID said
	JITCode          Name = "jit-code"           // code that the program made
	SharedMemory     Name = "shared-memory"      // that no process maps, or that is a file's
)

// Acceptable are the refusals that are a judgement, in the order of the manual: what they
// see may do no harm. The others are facts.
var Acceptable = []Name{OwnDispatch, CompiledISA, CachedCPUID, JITCode, SharedMemory}

// Refusal is a reason not to level a checkpoint.
type Refusal struct {
	Name   Name
	PID    int
	TID    int    // 0 if it is about no thread
	Object string // "" if it is about no file
	Reason string
}

// Acceptable reports whether it is a judgement.
func (r *Refusal) Acceptable() bool { return slices.Contains(Acceptable, r.Name) }

// Exception is a refusal that the user does not want to be made: for all objects, or for
// one, by its path or the last element of it.
type Exception struct {
	Name   Name
	Object string
}

func (e Exception) covers(r Refusal) bool {
	return e.Name == r.Name && (e.Object == "" || r.Object != "" && (e.Object == r.Object || e.Object == path.Base(r.Object)))
}

// refuse adds a refusal, unless it was accepted or made before.
func (p *Plan) refuse(r Refusal) {
	if r.Acceptable() && slices.ContainsFunc(p.options.Accept, func(e Exception) bool { return e.covers(r) }) || slices.Contains(p.Refusals, r) {
		return
	}
	p.Refusals = append(p.Refusals, r)
}

func (t *task) refuse(name Name, o *facts.Object, format string, a ...any) {
	r := Refusal{Name: name, PID: t.PID, Reason: fmt.Sprintf(format, a...)}
	if o != nil {
		r.Object = o.Path
	}
	t.plan.refuse(r)
}

func (t *task) refuseThread(tid int, name Name, o *facts.Object, format string, a ...any) {
	r := Refusal{Name: name, PID: t.PID, TID: tid, Reason: fmt.Sprintf(format, a...)}
	if o != nil {
		r.Object = o.Path
	}
	t.plan.refuse(r)
}

// shared refuses memory that is that of a file, if there is anything to level: the file
// is no part of the checkpoint. What is mapped to be read alone, no program keeps a choice in.
func (t *task) shared() {
	if len(t.matches) == 0 && len(t.dispatches) == 0 {
		return
	}
	told := map[string]bool{}
	for _, v := range t.mem.VMAs() {
		if v.Shared() && v.Prot&memory.Write != 0 && t.mem.State(v.Start) == memory.FileBacked && !told[v.Path()] {
			told[v.Path()] = true
			t.refuse(SharedMemory, &facts.Object{Path: v.Path()}, "the memory at %#x is of this file, which is not in the checkpoint and not looked through", v.Start)
		}
	}
}

// unmapped refuses shared memory that no process maps, if there is anything to level:
// it was not looked through.
func (p *Plan) unmapped(looker *program.Looker, tasks []*task) error {
	names, err := looker.Unmapped()
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if len(names) > 0 && len(t.matches) > 0 {
			t.refuse(SharedMemory, nil, "%s is shared memory that no process maps, and is not looked through", names[0])
			break
		}
	}
	return nil
}

// registers refuses the threads whose registers do not fit the host. Of a task that is
// refused for want of its files nobody knows.
func (p *Plan) registers(tasks []*task) {
	for _, th := range p.Threads {
		unproven := slices.ContainsFunc(tasks, func(t *task) bool { return t.PID == th.PID && t.unproven })
		if !th.Refused || unproven && th.Verdict != compat.Damaged {
			continue
		}
		r := Refusal{Name: StateLive, PID: th.PID, TID: th.TID}
		var lost xstate.Features
		for _, l := range th.Lost {
			lost |= l.Component.Mask()
		}
		switch {
		case th.Verdict == compat.Damaged:
			r.Name, r.Reason = Damaged, "its record is damaged"
			if err := th.Err(); err != nil {
				r.Reason = err.Error()
			}
		case lost&^(xstate.AVX.Mask()|xstate.AVX512) != 0:
			r.Name = InUse
			fallthrough
		default:
			r.Reason = fmt.Sprintf("it uses %s, which %s lacks, and no proof says that it has done with them", strings.Join(compat.LossNames(th.Lost), ", "), hostName(p.options.Host))
		}
		p.refuse(r)
	}
}

func hostName(c *xstate.CPU) string {
	if c.Name == "" {
		return "the host"
	}
	return c.Name
}

// lacksISA is lacks for features that a CPU is said to have: those that are no instruction
// set do not count.
func (p *Plan) lacksISA(flags []string) []string {
	return slices.DeleteFunc(p.lacks(flags), func(name string) bool {
		f, ok := xstate.LookupFlag(name)
		return !ok || !f.ISA()
	})
}

// lacks returns which of the features the host lacks, or may lack: what its profile does
// not say counts.
func (p *Plan) lacks(needs []string) (missing []string) {
	for _, name := range needs {
		if runs, _ := p.options.Host.Executes(name); !runs {
			missing = append(missing, name)
		}
	}
	return missing
}
