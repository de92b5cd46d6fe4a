package codec

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Magic numbers of criu/include/magic.h.
const (
	magicCommon    = 0x54564319 // IMG_COMMON, before the type's magic since v1.6
	magicInventory = 0x58313116
	magicPstree    = 0x50273030
	magicCore      = 0x55053847
	magicCPUInfo   = 0x61404013
)

func magicName(v uint32) string {
	switch v {
	case magicInventory:
		return "inventory"
	case magicPstree:
		return "pstree"
	case magicCore:
		return "core"
	case magicCPUInfo:
		return "cpuinfo"
	}
	return ""
}

// image is a framed image file: magic words, then entries.
type image struct {
	path string
	raw  []byte
	at   int   // end of what was consumed
	err  error // the first fault that a walk over an entry met
	// met is the required fields of each type of message, as bits, where a walk asks
	// for them only at its end, over all messages of the type together; else nil.
	met map[*messageType]uint64
	// sound: the entry was walked whole, and a walk need not look everywhere again.
	sound bool
}

// entry is one protobuf message in an image.
type entry struct {
	size    int // offset of the length word
	start   int // offset of the payload
	payload []byte
}

func (m *image) errorf(off int, field, format string, args ...any) *FormatError {
	return &FormatError{m.path, int64(off), field, fmt.Errorf(format, args...)}
}

// word reads the 32-bit word at m.at and moves past it.
func (m *image) word(field string) (uint32, error) {
	if n := len(m.raw) - m.at; n < 4 {
		return 0, m.errorf(m.at, field, "want 4 bytes, have %d", n)
	}
	v := binary.LittleEndian.Uint32(m.raw[m.at:])
	m.at += 4
	return v, nil
}

// newImage checks the magic words of b. The path serves the errors, which are of
// type [*FormatError].
func newImage(path string, b []byte, want uint32) (image, error) {
	m := image{path: path, raw: b}
	v, err := m.word("magic")
	if err == nil && v == magicCommon {
		v, err = m.word("magic")
	}
	if err != nil {
		return m, err
	}
	if v != want {
		kind := "unknown magic"
		if n := magicName(v); n != "" {
			kind = "magic of a " + n + " image"
		}
		return m, m.errorf(m.at-4, "magic", "%s, %#08x; want %#08x of a %s image", kind, v, want, magicName(want))
	}
	return m, nil
}

// more reports whether bytes follow the last entry.
func (m *image) more() bool { return m.at < len(m.raw) }

// next consumes one entry.
func (m *image) next() (entry, error) {
	at := m.at
	n, err := m.word("size")
	if err != nil {
		return entry{}, err
	}
	if have := len(m.raw) - m.at; uint64(n) > uint64(have) {
		return entry{}, m.errorf(at, "size", "entry of %d bytes, but only %d follow", n, have)
	}
	e := entry{at, m.at, m.raw[m.at:][:n:n]}
	m.at += int(n)
	return e, nil
}

// CheckInventory checks that CRIU could read an inventory.img, of whose values none
// is needed here. The error is a [*FormatError].
func CheckInventory(path string, b []byte) error {
	img, err := newImage(path, b, magicInventory)
	if err != nil {
		return err
	}
	e, err := img.next()
	if err != nil {
		return err
	}
	m := img.message(e, "inventory")
	for m.next() {
	}
	return img.err
}

// splice returns the file with e's payload replaced and its length word set.
func (m *image) splice(e entry, payload []byte) []byte {
	out := make([]byte, 0, len(m.raw)-len(e.payload)+len(payload))
	out = append(out, m.raw[:e.size]...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(payload)))
	out = append(out, payload...)
	return append(out, m.raw[e.start+len(e.payload):]...)
}

// newFile returns an image file of one entry, in the envelope of today's CRIU.
func newFile(magic uint32, payload []byte) []byte {
	out := make([]byte, 0, 12+len(payload))
	out = binary.LittleEndian.AppendUint32(out, magicCommon)
	out = binary.LittleEndian.AppendUint32(out, magic)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(payload)))
	return slices.Concat(out, payload)
}
