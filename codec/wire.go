package codec

import (
	"bytes"
	"cmp"
	"encoding/binary"
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
	field   *fieldType // what the schema says of it
	payload int        // offset in b of its value
	u       uint64     // the value of a varint
	open    bool       // the payload is still to be looked into
}

// message returns the message of an entry, whose type the schema names so.
func (m *image) message(e entry, is string) message {
	as := messageTypes()[is]
	as.message.parsed()
	return message{img: m, as: as, head: e.start, base: e.start, b: e.payload}
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
	num, typ, payload, end, u := consumeField(m.b, m.at)
	if payload < 0 {
		m.fail(m.at, m.name(), wireErrors[-payload])
		return false
	}
	m.start, m.num, m.typ, m.payload, m.u = m.at, num, typ, payload, u
	if end < 0 {
		m.fail(payload, fmt.Sprintf("%s field %d", m.name(), num), wireErrors[-end])
		return false
	}
	m.at = end
	m.met |= 1 << num
	f := m.as.message.field(num)
	m.field = f
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
	case m.field.message != nil:
		if m.img.met != nil || !m.img.conforms(m.field.message, m.val()) {
			sub := m.sub()
			for sub.next() {
			}
		}
		// Copies of it, as of what is to be done on most signals, are as sound.
		for raw := m.raw(); bytes.HasPrefix(m.b[m.at:], raw); {
			m.at += len(raw)
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

// conforms is that of the type, which is not asked about what conformed in an image before.
func (m *image) conforms(t *messageType, b []byte) bool {
	if m.known == nil {
		return t.conforms(b)
	}
	known := &m.known[t.number]
	if *known != nil && bytes.Equal(b, *known) {
		return true
	}
	ok := t.conforms(b)
	if ok && len(b) <= maxKnown {
		*known = append((*known)[:0], b...)
	}
	return ok
}

// conforms reports whether b is such a message to CRIU's parser, where that is plain
// to see: it is cheaper than a walk, which says where the fault is.
func (t *messageType) conforms(b []byte) bool {
	t.parsed()
	var met uint64
	for at := 0; at < len(b); {
		num, typ, payload, end, _ := consumeField(b, at)
		f := t.field(num)
		if payload < 0 || end < 0 || f.types&(1<<typ) == 0 || typ != protowire.VarintType && (typ != protowire.BytesType || f.types == packable) {
			return false
		}
		if f.message != nil && !f.message.conforms(b[payload:end]) {
			return false
		}
		met |= 1 << num
		at = end
	}
	return t.required&^met == 0
}

// field is what the schema says of a field by its number.
func (t *messageType) field(num uint32) *fieldType {
	if num < uint32(len(t.fields)) {
		return &t.fields[num]
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
	m.field.message.parsed()
	return message{img: m.img, as: m.field, head: m.base + m.start, base: m.base + m.payload, b: m.val()}
}

// consumeField reads the field at an offset of b: its number and wire type, where its
// payload begins and ends, and the value of a varint. A fault of the tag stands in the
// place of payload, one of the rest in that of end.
func consumeField(b []byte, at int) (num uint32, typ protowire.Type, payload, end int, u uint64) {
	n := 1
	if c := b[at]; c >= 8 && c < 0x80 { // as nearly all are, without a call
		num, typ = uint32(c>>3), protowire.Type(c&7)
	} else if num, typ, n = consumeTag(b[at:]); n < 0 {
		return 0, 0, n, 0, 0
	}
	payload = at + n
	rest := b[payload:]
	switch typ {
	case protowire.VarintType:
		if len(rest) > 0 && rest[0] < 0x80 {
			return num, typ, payload, payload + 1, uint64(rest[0])
		}
		u, n = consumeVarint(rest)
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		var size int
		if size, n = consumeLength(rest); n > 0 {
			return num, typ, payload + n, payload + n + size, 0
		}
	case protowire.StartGroupType, protowire.EndGroupType:
		n = badGroup
	default:
		n = badType
	}
	if n > len(rest) {
		n = cutOff
	}
	if n < 0 {
		return num, typ, payload, n, 0
	}
	return num, typ, payload, payload + n, u
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
	if len(b) >= 10 {
		v, n = joinVarint(binary.LittleEndian.Uint64(b))
		if n <= 8 {
			return v, n
		}
		if v |= uint64(b[8]&0x7f) << 56; b[8] < 0x80 {
			return v, 9
		}
		if v |= uint64(b[9]) << 63; b[9] < 0x80 {
			return v, 10
		}
		return 0, badVarint
	}
	for i, c := range b {
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, cutOff
}

// joinVarint returns the value of the varint that begins with these eight bytes, which are
// read at once as arrays are full of long ones, and its length, 9 if it does not end there.
func joinVarint(v uint64) (uint64, int) {
	end := ^v & 0x8080808080808080
	v &= end ^ (end - 1)
	// Close the gaps that the top bits of bytes, words and double words leave.
	v = v&0x007f007f007f007f | v&0x7f007f007f007f00>>1
	v = v&0x00003fff00003fff | v&0x3fff00003fff0000>>2
	v = v&0x000000000fffffff | v&0x0fffffff00000000>>4
	return v, bits.TrailingZeros64(end)/8 + 1
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
	var all uint64
	run, tag, at, b := m.typ == protowire.VarintType, m.b[m.start], m.payload, m.b
	if !run {
		b = b[:m.at]
	}
	for run || at < len(b) {
		if run && tag < 0x80 {
			n, used, bits := consumeRun(dst[len(dst):min(cap(dst), room)], b[at:], tag, width)
			dst, at, all = dst[:len(dst)+n], at+used, all|bits
		}
		v, n := consumeVarint(b[at:])
		if n < 0 {
			m.fail(at, m.path(int(m.num)), wireErrors[-n])
			break
		}
		at += n
		all |= v
		switch {
		case len(dst)+width > room:
			over += width
		case width == 4:
			dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
		default:
			dst = binary.LittleEndian.AppendUint64(dst, v)
		}
		if run {
			// The tag of a field below 16 is one byte.
			if m.at = at; at == len(b) || b[at] != tag || tag >= 0x80 {
				break
			}
			at++
		}
	}
	return dst, over, all>>(8*width-1)>>1 != 0
}

// consumeRun reads the elements of an unpacked array, from the value of the first on, into
// words of width bytes: those that dst has room for, and that another element follows. It
// returns how much of dst and b that is, and all bits of the values.
func consumeRun(dst, b []byte, tag byte, width int) (filled, used int, all uint64) {
	zeros := uint64(tag) * 0x0100_0100_0100_0100 // four elements, the tag after each
	five := uint64(tag)<<40 | 0x80808080         // the bits that tell a varint of five bytes and the tag
	mask := uint64(1)<<(8*width) - 1
	for len(b)-used > 10 && len(dst)-filled >= 8 {
		v := binary.LittleEndian.Uint64(b[used:])
		if v == zeros && len(dst)-filled >= 4*width {
			for range width / 2 {
				binary.LittleEndian.PutUint64(dst[filled:], 0)
				filled += 8
			}
			used += 8
			continue
		}
		if v&0xff8080808080 == five {
			v = v&0x7f | v>>1&(0x7f<<7) | v>>2&(0x7f<<14) | v>>3&(0x7f<<21) | v>>4&(0x7f<<28)
			used += 6
		} else {
			var n int
			if v, n = joinVarint(v); n > 8 {
				v |= uint64(b[used+8]&0x7f) << 56
				if b[used+8] >= 0x80 {
					if b[used+9] >= 0x80 {
						break
					}
					v |= uint64(b[used+9]) << 63
					n = 10
				}
			}
			if b[used+n] != tag {
				break
			}
			used += n + 1
		}
		binary.LittleEndian.PutUint64(dst[filled:], v&mask)
		filled += width
		all |= v
	}
	return filled, used, all
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
