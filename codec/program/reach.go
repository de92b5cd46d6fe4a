package program

import (
	"fmt"
	"slices"

	"github.com/fpuimg/fpuimg/codec/isa"
)

// reach is what can be reached from an address before the function returns, calls not
// followed.
type reach struct {
	features   isa.Features
	incomplete string // why features may lack some; "" if they are all
}

// maxReach bounds the instructions of a walk, maxWalked those of all walks in a file.
// glibc's largest functions have some thousand, all its implementations some 100,000.
const (
	maxReach  = 1 << 16
	maxWalked = 1 << 25
)

// reach walks forward from an address as linked. needs says what an instruction needs.
//
// Where the FDE of a function ends, the walk goes on into the FDE that begins there, as
// some of glibc's functions do, unless the last instruction was a call, which then does
// not return. At a jump through a register or memory all of the FDE counts.
func (f *file) reach(entry uint64, needs func(*isa.Inst) isa.Features) reach {
	return f.walk(entry, needs, nil)
}

// walk is reach, with a look at the address of each instruction.
func (f *file) walk(entry uint64, needs func(*isa.Inst) isa.Features, visit func(at uint64)) (r reach) {
	var seen addresses
	todo := []uint64{entry}
	whole := map[function]bool{}
	incomplete := func(at uint64, why string) {
		if r.incomplete == "" {
			r.incomplete = fmt.Sprintf("%s at %#x", why, at)
		}
	}
	if f.walked > maxWalked {
		incomplete(entry, "more code than any file has")
		return r
	}
	defer func() { f.walked += seen.n }()
	var fn function
	var known, ok bool
	var i isa.Inst
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !known || at < fn.start || at >= fn.end {
			fn, known = f.obj.functions().find(at)
		}
		gap := false // between functions
		for seen.add(at) {
			if seen.n > maxReach || len(todo) > 2*maxReach {
				incomplete(at, "more code than any function has")
				return r
			}
			if known && at >= fn.end {
				fn, known = f.obj.functions().find(at)
				gap = !known
			}
			code := f.obj.inst(at)
			if n, next := isa.Skip(code); next && !gap {
				if visit != nil {
					visit(at)
				}
				at += uint64(n)
				continue
			}
			i, ok = isa.Decode(code)
			if !ok {
				incomplete(at, "an unknown instruction")
				break
			}
			if gap && !i.IsNop() { // padding leads into the next function
				incomplete(at, "no function")
				break
			}
			if gap {
				fn, known = f.obj.functions().find(at + uint64(i.Len))
				gap = !known
			}
			r.features = r.features.Or(needs(&i))
			if visit != nil {
				visit(at)
			}
			next := at + uint64(i.Len)
			switch i.Flow() {
			case isa.Branch:
				todo = append(todo, i.Target(at))
			case isa.Jump:
				next = i.Target(at)
				if known && (next < fn.start || next >= fn.end) {
					fn, known = f.obj.functions().find(next)
				}
			case isa.Call, isa.IndirectCall:
				if known && next >= fn.end {
					next = at // it does not return
				}
			case isa.Indirect:
				switch next = at; {
				case !known && i.Prefix&isa.HasModRM != 0 && i.ModRM&0xc7 == 0x05: // of a PLT: its slot is another's
				case !known:
					incomplete(at, "a jump that cannot be followed")
				case !whole[fn]:
					whole[fn] = true
					todo = append(todo, f.linear(fn)...)
				}
			case isa.Return, isa.Stop:
				next = at
			}
			at = next
		}
	}
	return r
}

// addresses is a set of them, by stretches of 512.
type addresses struct {
	n        int
	stretch  map[uint64]*[8]uint64
	last     *[8]uint64 // where the one before was
	lastFrom uint64
}

// add reports whether the address is new.
func (s *addresses) add(at uint64) bool {
	if from := at >> 9; s.last == nil || from != s.lastFrom {
		if s.last = s.stretch[from]; s.last == nil {
			if s.stretch == nil {
				s.stretch = map[uint64]*[8]uint64{}
			}
			s.last = new([8]uint64)
			s.stretch[from] = s.last
		}
		s.lastFrom = from
	}
	w, bit := &s.last[at>>6&7], uint64(1)<<(at&63)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	s.n++
	return true
}

// next is what the instructions need that a thread executes before it can branch.
func (f *file) next(at uint64) (features isa.Features) {
	for range 64 {
		i, ok := f.obj.decode(at)
		if !ok {
			break
		}
		features = features.Or(i.Faults())
		switch i.Flow() {
		case isa.Next:
			at += uint64(i.Len)
		case isa.Jump:
			at = i.Target(at)
		default:
			return features
		}
	}
	return features
}

// linear lists the instructions of a function one after the other, as far as they can be
// decoded.
func (f *file) linear(fn function) (list []uint64) {
	for at := fn.start; at < fn.end && len(list) < maxReach; {
		code := f.obj.inst(at)
		n, _ := isa.Skip(code)
		if n == 0 {
			i, _ := isa.Decode(code)
			n = i.Len
		}
		if n == 0 {
			break
		}
		list = append(list, at)
		at += uint64(n)
	}
	return list
}

// flagNames are the names of features, sorted.
func flagNames(set isa.Features) []string {
	names := []string{}
	for f := range set.All() {
		names = append(names, f.String())
	}
	slices.Sort(names)
	return names
}
