package codec

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// message walks the fields of one protobuf message, knowing where in the file
// each byte lies. Decoding by hand instead of through generated types is what
// makes errors point at an offset, splicing possible, and ten thousand images
// cheap.
type message struct {
	img  *image
	name string // for errors: "fpregs"
	base int    // offset of b in the file
	b    []byte
	at   int // next field

	// The current field.
	start int // offset in b of its tag
	num   protowire.Number
	typ   protowire.Type
	val   []byte // the payload of a length-delimited field
	u     uint64 // the value of a varint, fixed32 or fixed64
}

// fail records the first fault of the image, which ends every walk over it.
func (m *message) fail(off int, field string, err error) {
	if m.img.err == nil {
		m.img.err = &FormatError{m.img.path, int64(m.base + off), field, err}
	}
}

// next moves to the next field. It returns false at the end of the message and
// on malformed bytes, and then sets err.
func (m *message) next() bool {
	if m.img.err != nil || m.at == len(m.b) {
		return false
	}
	m.start = m.at
	num, typ, n := protowire.ConsumeTag(m.b[m.at:])
	if n < 0 {
		m.fail(m.at, m.name, wireError(n))
		return false
	}
	m.at += n
	m.num, m.typ, m.val, m.u = num, typ, nil, 0
	switch typ {
	case protowire.VarintType:
		m.u, n = protowire.ConsumeVarint(m.b[m.at:])
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(m.b[m.at:])
		m.u = uint64(v)
	case protowire.Fixed64Type:
		m.u, n = protowire.ConsumeFixed64(m.b[m.at:])
	case protowire.BytesType:
		m.val, n = protowire.ConsumeBytes(m.b[m.at:])
	default:
		n = protowire.ConsumeFieldValue(num, typ, m.b[m.at:])
	}
	if n < 0 {
		m.fail(m.at, fmt.Sprintf("%s field %d", m.name, num), wireError(n))
		return false
	}
	m.at += n
	return true
}

// field returns the bytes of the current field, tag included.
func (m *message) field() []byte { return m.b[m.start:m.at] }

// is checks the current field's wire type, and fails the walk if it is another, as
// CRIU's parser does (protobuf-c, parse_member).
func (m *message) is(typ protowire.Type, field string) bool {
	if m.typ == typ {
		return true
	}
	m.fail(m.start, field, fmt.Errorf("wire type %d, want %d", m.typ, typ))
	return false
}

// uint returns the value of the current field, a varint.
func (m *message) uint(field string) uint64 {
	m.is(protowire.VarintType, field)
	return m.u
}

// text returns the value of the current field, a string.
func (m *message) text(field string) string {
	m.is(protowire.BytesType, field)
	return string(m.val)
}

// sub returns the current field, a submessage, as a message of its own. On a wrong
// wire type the result is empty and the walk fails.
func (m *message) sub(name string) message {
	if !m.is(protowire.BytesType, name) {
		return message{img: m.img, name: name, base: m.base + m.start}
	}
	return message{img: m.img, name: name, base: m.base + m.at - len(m.val), b: m.val}
}

// wireErrors are the faults that protowire tells by negative numbers. Its own
// messages hold a blank that differs from build to build, on purpose.
var wireErrors = [...]string{
	1: "the message ends inside the field",
	2: "not a field number",
	3: "varint of more than 64 bits",
	4: "wire type that does not exist",
	5: "end of a group that was not begun",
}

func wireError(n int) error {
	if -n < len(wireErrors) {
		return errors.New(wireErrors[-n])
	}
	return errors.New("groups nested too deep")
}

// array appends the current field to dst as little-endian words of width bytes.
// Unpacked arrays are the form that CRIU writes: one tag and varint per element;
// the run that follows is consumed at once. Packed arrays, which every protobuf
// parser must accept, are one field. wide reports that some value did not fit.
func (m *message) array(dst []byte, width int, field string) (out []byte, wide bool) {
	var cut uint64
	switch m.typ {
	case protowire.BytesType:
		for b := m.val; len(b) > 0; {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				m.fail(m.at-len(b), field, wireError(n))
				return dst, wide
			}
			b = b[n:]
			cut |= v >> (8*width - 1) >> 1
			dst = appendWord(dst, v, width)
		}
	case protowire.VarintType:
		cut |= m.u >> (8*width - 1) >> 1
		dst = appendWord(dst, m.u, width)
		// The tag of a field below 16 is one byte.
		if tag := m.b[m.start]; tag < 0x80 {
			for m.at < len(m.b) && m.b[m.at] == tag {
				v, n := protowire.ConsumeVarint(m.b[m.at+1:])
				if n < 0 {
					m.fail(m.at+1, field, wireError(n))
					return dst, wide
				}
				m.at += 1 + n
				cut |= v >> (8*width - 1) >> 1
				dst = appendWord(dst, v, width)
			}
		}
	default:
		m.is(protowire.VarintType, field)
	}
	return dst, cut != 0
}

func appendWord(dst []byte, v uint64, width int) []byte {
	if width == 4 {
		return append(dst, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	return append(dst, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
}

// rewrite copies the message, asking f about each field: what f returns stands in
// its place, m.field() to keep it.
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
	if bytes.Equal(body, m.val) {
		return m.field()
	}
	return appendSub(nil, m.num, body)
}

// appendSub appends a submessage field.
func appendSub(b []byte, num protowire.Number, sub []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), sub)
}

// appendUint appends a varint field.
func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// appendArray appends little-endian words of width bytes as CRIU writes arrays,
// one field per element.
func appendArray(b []byte, num protowire.Number, data []byte, width int) []byte {
	for ; len(data) >= width; data = data[width:] {
		var v uint64
		for i := range width {
			v |= uint64(data[i]) << (8 * i)
		}
		b = appendUint(b, num, v)
	}
	return b
}
