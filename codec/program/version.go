package program

import (
	"encoding/binary"
)

// version is what a symbol says of its version: of a reference, the one that it asks for.
type version struct {
	name string // "" if it has none
	// hidden is a version that only who asks for it gets; old is that or any that an object
	// had first, which who asks for none gets too.
	hidden, old bool
}

// fits reports whether a definition serves a reference, as the dynamic loader decides
// (glibc, elf/dl-lookup.c:check_match).
func (v version) fits(want version) bool {
	switch {
	case want.name == "":
		return !v.hidden || v.old
	case v.name == "":
		return !v.hidden
	}
	return v.name == want.name
}

// Bits and values of .gnu.version (Linux Standard Base, Core, 10.7).
const (
	versionHidden = 1 << 15
	versionFirst  = 2 // the lowest index of a version with a name
)

// maxVersions bounds the versions of an object: glibc has some 50.
const maxVersions = 1 << 12

// version returns the version of a symbol by its index.
func (o *object) version(i uint32) version {
	if o.versions == nil {
		o.readVersions()
	}
	at := int(i) * 2
	if at+2 > len(o.versym) {
		return version{}
	}
	index := binary.LittleEndian.Uint16(o.versym[at:])
	v := version{hidden: index&versionHidden != 0}
	index &^= versionHidden
	if index >= versionFirst {
		v.name = o.versions[index]
	}
	v.old = index <= versionFirst
	return v
}

// readVersions reads the names of the versions that the object defines and asks for.
func (o *object) readVersions() {
	o.versions = map[uint16]string{}
	d := &o.dynamic
	if d.versym == 0 {
		return
	}
	o.versym = o.table(d.versym, 2*uint64(o.symbolCount()))
	left := 2 * maxVersions // of all chains: they may run into each other
	chain := func(at uint64, size, next int, visit func(at uint64, b []byte)) {
		var b [20]byte
		for ; left > 0; left-- {
			if at == 0 || o.readAt(b[:size], at) < size {
				return
			}
			visit(at, b[:size])
			step := le32(b[next:])
			if step == 0 {
				return
			}
			at += uint64(step)
		}
	}
	name := func(index uint16, at uint32) {
		if index >= versionFirst && len(o.versions) < maxVersions {
			o.versions[index] = o.name(at)
		}
	}
	// Elf64_Verdef with the first of its Elf64_Verdaux, Elf64_Verneed with all Elf64_Vernaux.
	chain(d.verdef, 20, 16, func(at uint64, b []byte) {
		var aux [8]byte
		if o.readAt(aux[:], at+uint64(le32(b[12:]))) == len(aux) {
			name(binary.LittleEndian.Uint16(b[4:]), le32(aux[:]))
		}
	})
	chain(d.verneed, 16, 12, func(at uint64, b []byte) {
		chain(at+uint64(le32(b[8:])), 16, 12, func(_ uint64, b []byte) {
			name(binary.LittleEndian.Uint16(b[6:]), le32(b[8:]))
		})
	})
}
