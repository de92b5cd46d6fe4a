package program

import (
	"bytes"
	"cmp"
	"debug/elf"
	"iter"
	"slices"

	"github.com/fpuimg/fpuimg/codec/isa"
)

// instructions yields those of code that lies at an address, one after the other, with
// theirs. What is none is passed over.
func instructions(code []byte, at uint64) iter.Seq2[uint64, isa.Inst] {
	return func(yield func(uint64, isa.Inst) bool) {
		for len(code) > 0 {
			i, ok := isa.Decode(code)
			if !ok {
				code, at = code[1:], at+1
				continue
			}
			if !yield(at, i) {
				return
			}
			code, at = code[i.Len:], at+uint64(i.Len)
		}
	}
}

// node is a function, and what its code leads to.
type node struct {
	needs         isa.Features
	to, addresses []int // where it goes, and what it takes the address of; by index
	way           way
}

// way is how a function comes to run: the more it says, the higher.
type way uint8

const (
	unseen   way = iota
	byIFUNC      // an IFUNC has chosen it, or what goes there
	byOthers     // others lead to it
)

// maxChoices is the most code of a file whose functions are told apart by that.
const maxChoices = 32 << 20

// choices are the functions, by their starts, that run if an IFUNC of the file has chosen
// them and not otherwise, as libatomic's: no symbol, no pointer in its data and no other
// code leads there. The slots of the IFUNC tell whether they do. One that was chosen may go
// on in others, if these need no more than it does itself; where it takes the address of
// another, that may have been kept.
func (f *file) choices() map[uint64]bool {
	resolvers := map[uint64]bool{}
	for addr := range f.ifuncs().resolvers {
		resolvers[addr] = true
	}
	for r := range f.obj.relocations {
		if r.kind == elf.R_X86_64_IRELATIVE {
			resolvers[r.addend] = true
		}
	}
	if len(resolvers) == 0 || !f.obj.pie { // code of others may have addresses as numbers
		return nil
	}
	functions := f.obj.functions().all()
	var size uint64
	for i, fn := range functions {
		if size += min(fn.end-fn.start, maxChoices+1); size > maxChoices {
			return nil
		}
		if i > 0 && fn.start < functions[i-1].end { // an address would be of two
			return nil
		}
	}
	// find returns the function that has an address, or the last one before it.
	find := func(addr uint64) (i int, in bool) {
		i, in = slices.BinarySearchFunc(functions, addr, func(fn function, addr uint64) int { return cmp.Compare(fn.start, addr) })
		if !in {
			i--
		}
		return i, i >= 0 && addr < functions[i].end
	}

	nodes := make([]node, len(functions))
	var todo []int
	mark := func(i int, w way) {
		if nodes[i].way < w {
			nodes[i].way = w
			todo = append(todo, i)
		}
	}
	root := func(addr uint64) {
		if i, in := find(addr); in {
			mark(i, byOthers)
		}
	}
	for i, fn := range functions {
		if !f.obj.executable(fn.start) {
			continue
		}
		n := &nodes[i]
		var on bool
		n.needs, on = leads(f.obj.table(fn.start, fn.end-fn.start), fn.start, func(to uint64, goes bool) {
			switch j, in := find(to); {
			case !in || j == i:
			case goes:
				n.to = append(n.to, j)
			default:
				n.addresses = append(n.addresses, j)
			}
		})
		if on && i+1 < len(functions) {
			n.to = append(n.to, i+1)
		}
	}
	for _, sec := range f.obj.codeSections() { // and the code between them
		for at, end := sec.Addr, sec.Addr+sec.Size; at < end; {
			i, in := find(at)
			if in {
				at = functions[i].end
				continue
			}
			next := end
			if i+1 < len(functions) {
				next = min(end, functions[i+1].start)
			}
			code := f.obj.table(at, next-at)
			some := bytes.TrimLeft(code, "\x00") // behind padding
			if _, on := leads(some, at+uint64(len(code)-len(some)), func(to uint64, _ bool) { root(to) }); on {
				root(next)
			}
			at = next
		}
	}
	pointers := f.obj.pointers()
	if len(pointers) >= maxPacked { // there may be more
		return nil
	}
	for _, to := range pointers {
		root(to)
	}
	for i := range f.obj.symbolCount() {
		if s, _ := f.obj.symbol(i); s.index != elf.SHN_UNDEF {
			root(s.value)
		}
	}
	for r := range f.obj.relocations {
		if s, _ := f.obj.symbol(r.symbol); s.index != elf.SHN_UNDEF {
			root(s.value + r.addend)
		}
	}
	for addr := range resolvers {
		root(addr)
	}
	follow := func() {
		for len(todo) > 0 {
			i := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			n := &nodes[i]
			for _, j := range n.to {
				if n.way == byIFUNC && nodes[j].needs.And(f.reached(functions[i].start).features) == nodes[j].needs {
					mark(j, byIFUNC)
				} else {
					mark(j, byOthers)
				}
			}
			for _, j := range n.addresses {
				if resolvers[functions[i].start] {
					mark(j, byIFUNC)
				} else {
					mark(j, byOthers)
				}
			}
		}
	}
	follow()
	for i := range nodes { // run by who knows
		if nodes[i].way == unseen {
			mark(i, byOthers)
		}
	}
	follow()
	list := map[uint64]bool{}
	for i, n := range nodes {
		if n.way == byIFUNC {
			list[functions[i].start] = true
		}
	}
	return list
}

// leads calls f for every address that code at an address has, and says whether it goes
// there. on tells that it goes on behind its end.
func leads(code []byte, at uint64, f func(to uint64, goes bool)) (needs isa.Features, on bool) {
	for at, i := range instructions(code, at) {
		if i.IsNop() {
			continue
		}
		needs = needs.Or(i.Faults())
		switch flow := i.Flow(); flow {
		case isa.Call, isa.Jump, isa.Branch:
			f(i.Target(at), true)
			on = flow == isa.Branch // what is called last does not return
		default:
			if i.Prefix&isa.HasModRM != 0 && i.ModRM&0xc7 == 0x05 { // of RIP
				f(at+uint64(i.Len)+uint64(int64(i.Disp)), false)
			}
			on = flow == isa.Next || flow == isa.Syscall
		}
	}
	return needs, on
}
