package testimg

import (
	"bytes"
	"encoding/binary"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// Split cuts a core image into its FPU record, nil if it has none, and all the
// rest, without the length words around the record. It walks the protobuf message
// by itself: what it says does not rest on package codec.
func Split(tb testing.TB, image []byte) (record, rest []byte) {
	tb.Helper()
	head, payload, trailing := frame(image)
	rest = append(rest, head...)
	walk(tb, payload, func(num protowire.Number, field, content []byte) {
		if num != 2 { // core_entry.thread_info
			rest = append(rest, field...)
			return
		}
		rest = append(rest, "thread_info:"...)
		walk(tb, content, func(num protowire.Number, field, _ []byte) {
			if num == 3 { // thread_info_x86.fpregs
				record = append(record, field...)
			} else {
				rest = append(rest, field...)
			}
		})
	})
	return record, append(rest, trailing...)
}

// frame cuts an image of one entry into what stands before its length word, the
// entry and what follows.
func frame(image []byte) (head, payload, trailing []byte) {
	at := 4
	if binary.LittleEndian.Uint32(image) == 0x54564319 { // the magic that V1.1 images begin with
		at = 8
	}
	size := int(binary.LittleEndian.Uint32(image[at:]))
	return image[:at], image[at+4:][:size], image[at+4+size:]
}

// SplitCPUInfo cuts a cpuinfo.img into its fields by number, and what stands
// around the entry.
func SplitCPUInfo(tb testing.TB, image []byte) (fields map[int][]byte, around []byte) {
	tb.Helper()
	head, payload, trailing := frame(image)
	fields = map[int][]byte{}
	walk(tb, payload, func(num protowire.Number, _, content []byte) {
		if num != 1 { // cpuinfo_entry.x86_entry
			tb.Fatalf("cpuinfo.img has field %d", num)
		}
		walk(tb, content, func(num protowire.Number, field, _ []byte) {
			fields[int(num)] = append(fields[int(num)], field...)
		})
	})
	return fields, append(bytes.Clone(head), trailing...)
}

// walk calls f with each field of a message, whole, and for a submessage with its
// content.
func walk(tb testing.TB, b []byte, f func(num protowire.Number, field, content []byte)) {
	tb.Helper()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			tb.Fatalf("malformed message: %v", protowire.ParseError(n))
		}
		var content []byte
		if typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(b)
			content, _ = protowire.ConsumeBytes(b[tag:])
		}
		f(num, b[:n], content)
		b = b[n:]
	}
}
