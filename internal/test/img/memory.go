package testimg

import (
	"bytes"
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message builds a message of numbers of fields and their values, in pairs.
func Message(fields ...any) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		num := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
		case uint64:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
		}
	}
	return b
}

// Magics of images of memory (criu/include/magic.h).
const (
	MagicInventory = 0x58313116
	MagicMM        = 0x57492820
	MagicPagemap   = 0x56084025
	MagicFiles     = 0x56303138
	MagicRegFiles  = 0x50363636
	MagicMemfd     = 0x48453499
)

// Image builds an image file of its entries.
func Image(magic uint32, entries ...[]byte) []byte {
	var b []byte
	if magic != MagicInventory { // which stands alone
		b = binary.LittleEndian.AppendUint32(b, 0x54564319)
	}
	b = binary.LittleEndian.AppendUint32(b, magic)
	for _, e := range entries {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	return b
}

// MM builds mm-PID.img with an auxiliary vector, types and values in turn, and mappings.
func MM(auxv []int, vmas ...[]byte) []byte {
	var fields []any
	for num := 1; num <= 12; num++ {
		fields = append(fields, num, 7)
	}
	for _, v := range append(auxv, 0, 0) {
		fields = append(fields, 13, v)
	}
	for _, v := range vmas {
		fields = append(fields, 14, v)
	}
	return Image(MagicMM, Message(fields...))
}

// VMA is a mapping for MM.
func VMA(start, end, offset, id, prot, flags, status int) []byte {
	return Message(1, start, 2, end, 3, offset, 4, id, 5, prot, 6, flags, 7, status, 8, 1)
}

// RegFile is a regular file for reg-files.img.
func RegFile(id int, name string, buildID ...int) []byte {
	fown := Message(1, 0, 2, 0, 3, 0, 4, 0, 5, 0)
	fields := []any{1, id, 2, 0, 3, 0, 5, fown, 6, name}
	for _, w := range buildID {
		fields = append(fields, 11, w)
	}
	return Message(fields...)
}

// File is a regular file for files.img.
func File(id int, name string, buildID ...int) []byte {
	return Message(1, 1, 2, id, 3, RegFile(id, name, buildID...))
}

// Pages is pages, each filled with its own letter.
func Pages(letters string) (b []byte) {
	for _, c := range letters {
		b = append(b, bytes.Repeat([]byte{byte(c)}, 4096)...)
	}
	return b
}
