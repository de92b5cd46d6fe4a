package codec

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// message walks the fields of one protobuf message, knowing where in the file
// each byte lies. Decoding by hand instead of through generated types is what
// makes errors point at an offset, splicing possible, and ten thousand images
// cheap.
//
// The walk takes what CRIU's parser takes (protobuf-c 1.4,
// protobuf_c_message_unpack), with its values, and fails where that fails: on the
// wrong wire type of a known field, on a required field that is missing and on
// groups. That goes for submessages that nobody descends into, too.
type message struct {
	img  *image
	as   *fieldType // the field that holds it
	head int        // offset in the file of that field
	base int        // offset in the file of b
	b    []byte
	at   int    // next field
	met  uint64 // the numbers of the fields so far, as bits

	// The current field.
	start   int // offset in b of its tag
	num     uint32
	typ     protowire.Type
	payload int    // offset in b of what its length stands before
	u       uint64 // the value of a varint
	open    bool   // the payload is still to be looked into
}

// message returns the message of an entry, whose type the schema names so.
func (m *image) message(e entry, is string) message {
	return message{img: m, as: &fieldType{message: messageTypes()[is]}, head: e.start, base: e.start, b: e.payload}
}

// fail records the first fault of the image, which ends every walk over it.
func (m *message) fail(off int, field string, err error) {
	if m.img.err == nil {
		m.img.err = &FormatError{m.img.path, int64(m.base + off), field, err}
	}
}

// Faults of the wire format, which stand in the place of a length.
const (
	badTag = -iota - 1
	badVarint
	badLength
	badGroup
	badType
	cutOff
)

var wireErrors = [...]error{
	-badTag:    errors.New("not a field number"),
	-badVarint: errors.New("varint of more than 64 bits"),
	-badLength: errors.New("length of more than 5 bytes"),
	-badGroup:  errors.New("a group, which CRIU's parser refuses"),
	-badType:   errors.New("wire type that does not exist"),
	-cutOff:    errors.New("the message ends inside the field"),
}

// next moves to the next field. It returns false at the end of the message and
// on what CRIU's parser refuses, and then sets err.
func (m *message) next() bool {
	if m.open {
		m.lookInside()
	}
	switch {
	case m.img.err != nil:
		return false
	case m.at == len(m.b):
		missing := m.as.message.required &^ m.met
		switch {
		case m.img.met != nil:
			m.img.met[m.as.message] |= m.met
		case missing != 0 && !m.img.sound:
			m.fail(m.head-m.base, m.path(bits.TrailingZeros64(missing)), errMissing)
		}
		return false
	}
	num, typ, n := consumeTag(m.b[m.at:])
	if n <= 0 {
		m.fail(m.at, m.name(), wireErrors[-n])
		return false
	}
	m.start, m.num, m.typ = m.at, num, typ
	m.at += n
	rest := m.b[m.at:]
	switch typ {
	case protowire.VarintType:
		m.u, n = consumeVarint(rest)
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		var size int
		size, n = consumeLength(rest)
		m.payload = m.at + n
		n += size
	case protowire.StartGroupType, protowire.EndGroupType:
		n = badGroup
	default:
		n = badType
	}
	if n > len(rest) {
		n = cutOff
	}
	if n < 0 {
		m.fail(m.at, fmt.Sprintf("%s field %d", m.name(), num), wireErrors[-n])
		return false
	}
	m.at += n
	m.met |= 1 << num
	f := m.field()
	if f.types&(1<<typ) == 0 {
		where := m.path(int(num))
		if f.message != nil { // it goes by its own name, as its fields do
			where = f.name
		}
		m.fail(m.start, where, fmt.Errorf("wire type %d, want %d", typ, bits.TrailingZeros8(uint8(f.types))))
		return false
	}
	m.open = typ == protowire.BytesType && (f.message != nil || f.types == packable)
	return true
}

// lookInside walks the payload that the caller did not ask for: a submessage or a
// packed array. It does so once for an image, since then it is known to be sound.
func (m *message) lookInside() {
	m.open = false
	switch {
	case m.img.sound:
	case m.field().message != nil:
		sub := m.sub()
		for sub.next() {
		}
	default:
		for b := m.val(); len(b) > 0; {
			_, n := consumeVarint(b)
			if n < 0 {
				m.fail(m.at-len(b), m.path(int(m.num)), wireErrors[-n])
				return
			}
			b = b[n:]
		}
	}
}

// field is what the schema says of the current field.
func (m *message) field() *fieldType {
	if fields := m.as.message.fields; m.num < uint32(len(fields)) {
		return &fields[m.num]
	}
	return &unknownField
}

// name names the message, for errors.
func (m *message) name() string { return cmp.Or(m.as.name, m.as.message.name) }

// path names a field that the schema knows, for errors.
func (m *message) path(num int) string {
	field := m.as.message.fields[num].name
	if m.as.name == "" {
		return field
	}
	return m.as.name + "." + field
}

// raw returns the bytes of the current field, tag included.
func (m *message) raw() []byte { return m.b[m.start:m.at] }

// val returns the payload of the current field, a length-delimited one.
func (m *message) val() []byte { return m.b[m.payload:m.at:m.at] }

// text returns the value of the current field, a string. To CRIU it ends at the
// first NUL.
func (m *message) text() string {
	s, _, _ := bytes.Cut(m.val(), []byte{0})
	return string(s)
}

// sub returns the current field, a submessage, as a message of its own.
func (m *message) sub() message {
	m.open = false
	return message{img: m.img, as: m.field(), head: m.base + m.start, base: m.base + m.payload, b: m.val()}
}

// consumeTag reads a field's number and wire type (protobuf-c,
// parse_tag_and_wiretype): five bytes at most, of which 32 bits are the number. The
// number 0 is one if it is spelled in more than one byte.
func consumeTag(b []byte) (num uint32, typ protowire.Type, n int) {
	if b[0]&0xf8 == 0 {
		return 0, 0, badTag
	}
	num, typ = uint32(b[0]&0x7f)>>3, protowire.Type(b[0]&7)
	for n = 1; b[n-1] >= 0x80; n++ {
		if n == 5 || n == len(b) {
			return 0, 0, badTag
		}
		num |= uint32(b[n]&0x7f) << (7*n - 3)
	}
	return num, typ, n
}

// consumeVarint reads a varint of ten bytes at most. What is in them beyond 64 bits,
// which protowire refuses, does not count.
func consumeVarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	if v, n = protowire.ConsumeVarint(b); n > 0 {
		return v, n
	}
	switch {
	case len(b) < 10:
		return 0, cutOff
	case b[9] >= 0x80:
		return 0, badVarint
	}
	for i := range 10 {
		v |= uint64(b[i]&0x7f) << (7 * i)
	}
	return v, 10
}

// consumeLength reads a length of five bytes at most, and checks that so many follow.
func consumeLength(b []byte) (size, n int) {
	v, n := consumeVarint(b)
	switch {
	case n == badVarint || n > 5:
		return 0, badLength
	case n < 0:
		return 0, n
	case v > uint64(len(b)-n):
		return 0, cutOff
	}
	return int(v), n
}

// array appends the current field to dst as little-endian words of width bytes.
// Unpacked arrays are the form that CRIU writes: one tag and varint per element;
// the run that follows is consumed at once. Packed arrays, which every protobuf
// parser must accept, are one field. Words that would make dst longer than room are
// not kept, but counted: over is their bytes. wide reports that some value did not fit.
func (m *message) array(dst []byte, width, room int) (out []byte, over int, wide bool) {
	m.open = false
	var cut uint64
	add := func(v uint64) {
		cut |= v >> (8*width - 1) >> 1
		if len(dst)+width > room {
			over += width
			return
		}
		dst = appendWord(dst, v, width)
	}
	if m.typ == protowire.BytesType {
		for b := m.val(); len(b) > 0; {
			v, n := consumeVarint(b)
			if n < 0 {
				m.fail(m.at-len(b), m.path(int(m.num)), wireErrors[-n])
				return dst, over, cut != 0
			}
			b = b[n:]
			add(v)
		}
		return dst, over, cut != 0
	}
	add(m.u)
	// The tag of a field below 16 is one byte.
	if tag := m.b[m.start]; tag < 0x80 {
		for m.at < len(m.b) && m.b[m.at] == tag {
			v, n := consumeVarint(m.b[m.at+1:])
			if n < 0 {
				m.fail(m.at+1, m.path(int(m.num)), wireErrors[-n])
				return dst, over, cut != 0
			}
			m.at += 1 + n
			add(v)
		}
	}
	return dst, over, cut != 0
}

func appendWord(dst []byte, v uint64, width int) []byte {
	if width == 4 {
		return append(dst, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	return append(dst, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
}

// rewrite copies the message, asking f about each field: what f returns stands in
// its place, m.raw() to keep it.
func (m *message) rewrite(f func(m *message) []byte) []byte {
	out := make([]byte, 0, len(m.b))
	for m.next() {
		out = append(out, f(m)...)
	}
	return out
}

// replace returns the current field, a submessage, with other content. With the
// same content it is the field as it stands, whose tag and length may be spelled
// in more bytes than they need.
func (m *message) replace(body []byte) []byte {
	if bytes.Equal(body, m.val()) {
		return m.raw()
	}
	return appendSub(nil, m.num, body)
}

// appendSub appends a submessage field.
func appendSub(b []byte, num uint32, sub []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, protowire.Number(num), protowire.BytesType), sub)
}

// appendUint appends a varint field.
func appendUint(b []byte, num uint32, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(num), protowire.VarintType), v)
}

// appendArray appends little-endian words of width bytes as CRIU writes arrays,
// one field per element.
func appendArray(b []byte, num uint32, data []byte, width int) []byte {
	for ; len(data) >= width; data = data[width:] {
		var v uint64
		for i := range width {
			v |= uint64(data[i]) << (8 * i)
		}
		b = appendUint(b, num, v)
	}
	return b
}
