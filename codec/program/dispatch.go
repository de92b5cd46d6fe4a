package program

import (
	"slices"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/memory"
)

// Dispatch is an object with code that a CPU lacks instructions for, and which functions
// need them: to find where the program keeps that it chose one of them.
type Dispatch struct {
	Object *facts.Object

	p       *process
	modules []*module
	static  map[uint64]uint64 // words that hold such an address from the start
	// unfit are the functions with such instructions, and calls those that call or jump
	// to one of them, by their addresses as linked.
	unfit, calls map[uint64]bool
}

// Dispatch reads the code of an object. lacks are the features that the CPU lacks.
func (p *Process) Dispatch(o *facts.Object, lacks isa.Features) *Dispatch {
	d := &Dispatch{Object: o, p: p.p, unfit: map[uint64]bool{}, calls: map[uint64]bool{}}
	for _, m := range p.p.modules {
		if m.fact == o && m.obj != nil {
			d.modules = append(d.modules, m)
		}
	}
	if len(d.modules) == 0 {
		return d
	}
	obj := d.modules[0].obj
	d.static = obj.pointers()
	targets := map[uint64][]uint64{} // of a function, outside of it
	functions := obj.functions().all()
	for _, fn := range functions {
		if fn.end-fn.start > maxTable || !obj.executable(fn.start) {
			continue
		}
		for at, i := range instructions(obj.table(fn.start, fn.end-fn.start), fn.start) {
			if i.Faults().And(lacks) != (isa.Features{}) {
				d.unfit[fn.start] = true
			}
			switch i.Flow() {
			case isa.Call, isa.Jump, isa.Branch:
				if to := i.Target(at); to < fn.start || to >= fn.end {
					targets[fn.start] = append(targets[fn.start], to)
				}
			}
		}
	}
	for start, list := range targets {
		for _, to := range list {
			if fn, ok := obj.functions().find(to); ok && d.unfit[fn.start] {
				d.calls[start] = true
			}
		}
	}
	return d
}

// Empty reports whether no function needs what the CPU lacks.
func (d *Dispatch) Empty() bool { return len(d.unfit) == 0 }

// Range is where the object is mapped.
func (d *Dispatch) Range() (start, end uint64) {
	for _, m := range d.modules {
		if start == 0 || m.start < start {
			start = m.start
		}
		end = max(end, m.end)
	}
	return start, end
}

func (d *Dispatch) module(addr uint64) *module {
	m := d.p.moduleAt(addr)
	if m == nil || !slices.Contains(d.modules, m) {
		return nil
	}
	return m
}

// Chosen reports whether a word of memory holds a function with such instructions.
func (d *Dispatch) Chosen(value uint64) bool {
	m := d.module(value)
	return m != nil && d.unfit[value-m.bias]
}

// most is how many functions a table is looked through for.
const mostFunctions = 16

// Table reports whether a word of memory leads to a table of functions of which one has
// such instructions, or calls one that has, without a look at the CPU in between; or to
// what begins with the address of such a table, as C++ makes its objects.
func (d *Dispatch) Table(value uint64) bool {
	if d.module(value) == nil {
		return false
	}
	if d.table(value) {
		return true
	}
	first, ok := d.p.word(value)
	return ok && d.module(first) != nil && d.table(first)
}

func (d *Dispatch) table(addr uint64) bool {
	if m := d.module(addr); m == nil || m.obj.executable(addr-m.bias) {
		return false
	}
	for n := range uint64(mostFunctions) {
		w, ok := d.p.word(addr + 8*n)
		if !ok {
			return false
		}
		m := d.module(w)
		if w != 0 && (m == nil || !m.obj.executable(w-m.bias)) {
			return false
		}
		if w != 0 && (d.unfit[w-m.bias] || d.calls[w-m.bias]) {
			return true
		}
	}
	return false
}

// Static reports whether a word holds what it held before the program ran, or what the
// loader alone writes: that no choice has led to.
func (d *Dispatch) Static(addr, value uint64) bool {
	m := d.p.moduleAt(addr)
	if m == nil || m.obj == nil {
		return false
	}
	at := addr - m.bias
	if relro := m.obj.relro; at >= relro.Vaddr && at-relro.Vaddr < relro.Memsz {
		return true
	}
	if slices.Contains(d.modules, m) {
		was, ok := d.static[at]
		return ok && was+m.bias == value
	}
	return false
}

// Stack reports whether an address lies in a mapping that a thread has its stack in.
func (p *Process) Stack(v memory.VMA, pointers []uint64) bool {
	return slices.ContainsFunc(pointers, func(sp uint64) bool { return sp >= v.Start && sp < v.End })
}
