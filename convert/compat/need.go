package compat

import (
	"slices"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Need is what a machine must have for a checkpoint to run there with nothing lost: what
// the least machine, which has nothing beyond x86-64, would be found to lack.
type Need struct {
	// Components are those in use, the dead ones left out.
	Components xstate.Features
	// Flags are the CPU features of the components and of the code that will run, by
	// Linux name, sorted.
	Flags []string
	// Possible are those of code that may run: what an object chooses by itself, or a
	// thread reaches on one of its ways.
	Possible []string
	// MXCSR is the bits that not every CPU has.
	MXCSR uint32
	// XSaveSize is how many bytes the components that glibc's lazy binding saves may
	// take in an XSAVE area of standard format; 0 if it does not matter.
	XSaveSize int
	// Unknown says what was not found out.
	Unknown []string
}

// Needer gathers a [Need]. It is told what a [Judgement] is told.
type Needer struct {
	least *Judgement
	need  Need
}

// NewNeeder begins a Need.
func NewNeeder() *Needer {
	least, _ := xstate.ByName(xstate.LevelNames()[0])
	least.MXCSRMask = new(uint32(xstate.DefaultMXCSRMask))
	return &Needer{least: Judge(Target{Host: least}, Policy{})}
}

// Code tells what is known of the tasks' code, before the threads are told. nil is
// nothing.
func (n *Needer) Code(code []*facts.Process) {
	if code == nil {
		n.unknown("the memory was not looked at")
	}
	n.least.Code(code)
	for _, p := range code {
		if save, _ := saves(p); save != nil && save.Kind == facts.XSave {
			if room := save.Size - facts.SaveOffset; n.need.XSaveSize == 0 || room < n.need.XSaveSize {
				n.need.XSaveSize = room
			}
		}
		for _, th := range p.Threads {
			n.need.Flags = union(n.need.Flags, th.Certain)
			n.need.Possible = union(n.need.Possible, th.Needs)
		}
	}
	for _, t := range n.least.Tasks {
		n.add(t.Findings)
	}
}

// Thread tells of a thread.
func (n *Needer) Thread(th Thread) {
	r := n.least.Thread(th)
	n.add(r.Findings)
	for _, l := range r.Lost {
		n.component(l.Component)
	}
	if th.State.Format != xstate.FormatNone {
		n.need.MXCSR |= th.State.FX.MXCSR() &^ xstate.DefaultMXCSRMask
	}
}

func (n *Needer) component(f xstate.Feature) {
	if xstate.Legacy.Has(f) {
		return // an MXCSR that not every CPU takes
	}
	n.need.Components |= f.Mask()
	if flag := f.Flag(); flag != "" {
		n.need.Flags = union(n.need.Flags, []string{flag})
	}
}

func (n *Needer) add(findings []Finding) {
	for i := range findings {
		f := &findings[i]
		switch {
		case f.Rule == FormatXSave: // a conversion lifts it
		case f.Rule == ThreadInCode: // here all its ways count as one
		case f.Rule == CodeUnknown || f.Rule == NotRecorded:
			n.unknown(f.Reason)
		case f.Rule == JITCode:
			n.unknown("code that a program made for its CPU")
		case f.Rule == FrameUnfit:
			for _, name := range f.Components {
				if c, ok := xstate.ParseFeature(name); ok {
					n.component(c)
				}
			}
		default:
			for _, r := range f.Remedies {
				if r.Kind != HostWith {
				} else if f.Severity == Fatal {
					n.need.Flags = union(n.need.Flags, r.Flags)
				} else {
					n.need.Possible = union(n.need.Possible, r.Flags)
				}
			}
		}
	}
}

func (n *Needer) unknown(reason string) {
	if !slices.Contains(n.need.Unknown, reason) {
		n.need.Unknown = append(n.need.Unknown, reason)
	}
}

// Need returns what was gathered.
func (n *Needer) Need() Need {
	need := n.need
	need.Possible = slices.DeleteFunc(slices.Clone(need.Possible), func(name string) bool { return slices.Contains(need.Flags, name) })
	return need
}

// Met reports whether the machine is known to have all that is needed, but for what is
// only possible.
func (n *Need) Met(host *xstate.CPU) bool { return len(n.lacking(host, true)) == 0 }

// Unmet returns what the machine is known to lack of it, in words.
func (n *Need) Unmet(host *xstate.CPU) []string { return n.lacking(host, false) }

// lacking returns what the machine lacks; doubt takes what is not recorded for lacking.
func (n *Need) lacking(host *xstate.CPU, doubt bool) []string {
	missing, unknown := lacks(host, n.Flags)
	if doubt {
		missing = append(missing, unknown...)
	}
	usable := host.Possible()
	if set, known := host.Usable(); known || doubt {
		usable = set
	}
	missing = append(missing, (n.Components &^ usable).Names()...)
	if mask := host.MXCSRMask; mask == nil && doubt && n.MXCSR != 0 || mask != nil && n.MXCSR&^*mask != 0 {
		missing = append(missing, "MXCSR")
	}
	if end, known := ComponentsEnd(host); n.XSaveSize != 0 && (!known && doubt || end > n.XSaveSize) {
		missing = append(missing, "XSAVE area")
	}
	return missing
}
