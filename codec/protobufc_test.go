package codec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// protobufC is protobuf-c itself, CRIU's parser, with CRIU's schema: a program built
// from testdata.
type protobufC string

func newProtobufC(t *testing.T) protobufC {
	t.Helper()
	testcmd.Library(t, "libprotobuf-c")
	dir := t.TempDir()
	prog := filepath.Join(dir, "unpack")
	for _, cmd := range [][]string{
		{testcmd.Tool(t, "protoc-c"), "--c_out=" + dir, "--proto_path=testdata", "criu.proto"},
		{testcmd.Tool(t, "gcc"), "-O1", "-I" + dir, "-o", prog, "testdata/unpack.c", filepath.Join(dir, "criu.pb-c.c"), "-lprotobuf-c"},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	return protobufC(prog)
}

// unpack returns what protobuf-c packs again of each message that it unpacks, and nil
// of what it refuses.
func (p protobufC) unpack(t *testing.T, kind byte, msgs [][]byte) [][]byte {
	t.Helper()
	var in []byte
	for _, m := range msgs {
		in = binary.NativeEndian.AppendUint32(append(in, kind), uint32(len(m)))
		in = append(in, m...)
	}
	cmd := exec.Command(string(p))
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := make([][]byte, 0, len(msgs))
	for len(out) >= 4 {
		size := binary.NativeEndian.Uint32(out)
		out = out[4:]
		if size == 1<<32-1 {
			answers = append(answers, nil)
			continue
		}
		answers = append(answers, out[:size:size])
		out = out[size:]
	}
	if len(answers) != len(msgs) {
		t.Fatalf("%d answers to %d messages", len(answers), len(msgs))
	}
	return answers
}

// protoField is a field as testdata/criu.proto has it.
type protoField struct {
	num         int
	label, kind string
}

// protoMessages returns the messages of testdata/criu.proto.
func protoMessages(t *testing.T) map[string][]protoField {
	t.Helper()
	text, err := os.ReadFile("testdata/criu.proto")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]protoField{}
	for _, m := range regexp.MustCompile(`message (\w+) \{([^}]*)\}`).FindAllStringSubmatch(string(text), -1) {
		for _, f := range regexp.MustCompile(`(\w+) (\w+) \w+ = (\d+)`).FindAllStringSubmatch(m[2], -1) {
			num := 0
			fmt.Sscan(f[3], &num)
			out[m[1]] = append(out[m[1]], protoField{num, f[1], f[2]})
		}
	}
	return out
}

// node is a field of a message that is being changed. Whatever its parts are, it is
// written as they stand.
type node struct {
	num  int
	tag  []byte
	size []byte // the length as it is spelled; nil works it out
	val  []byte // what follows, unless there are fields in it
	kids *messageTree
}

// messageTree is a message that is being changed.
type messageTree struct {
	is     string // its type
	fields []*node
}

func (m *messageTree) bytes() []byte {
	var out []byte
	for _, n := range m.fields {
		val := n.val
		if n.kids != nil {
			val = n.kids.bytes()
		}
		out = append(out, n.tag...)
		switch {
		case n.size != nil:
			out = append(out, n.size...)
		case len(n.tag) > 0 && n.tag[0]&7 == 2:
			out = binary.AppendUvarint(out, uint64(len(val)))
		}
		out = append(out, val...)
	}
	return out
}

func (m *messageTree) clone() *messageTree {
	out := &messageTree{is: m.is}
	for _, n := range m.fields {
		c := *n
		c.tag, c.size, c.val = slices.Clone(n.tag), slices.Clone(n.size), slices.Clone(n.val)
		if n.kids != nil {
			c.kids = n.kids.clone()
		}
		out.fields = append(out.fields, &c)
	}
	return out
}

// all lists the message and those below it.
func (m *messageTree) all() []*messageTree {
	out := []*messageTree{m}
	for _, n := range m.fields {
		if n.kids != nil {
			out = append(out, n.kids.all()...)
		}
	}
	return out
}

// mutator changes messages at random.
type mutator struct {
	*rand.Rand
	messages map[string][]protoField
}

func (r *mutator) kind(is string, num int) string {
	for _, f := range r.messages[is] {
		if f.num == num {
			return f.kind
		}
	}
	return ""
}

// tree takes a sound message apart.
func (r *mutator) tree(is string, b []byte) *messageTree {
	m := &messageTree{is: is}
	for _, f := range walk(b) {
		n := &node{num: f.num, tag: binary.AppendUvarint(nil, uint64(f.num<<3)|uint64(f.raw[0]&7)), val: f.val}
		if kind := r.kind(is, f.num); r.messages[kind] != nil && f.raw[0]&7 == 2 {
			n.kids = r.tree(kind, f.val)
		}
		m.fields = append(m.fields, n)
	}
	return m
}

func (r *mutator) bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// varint is a number in its shortest form, a longer one, or more bits than it has.
func (r *mutator) varint() []byte {
	b := binary.AppendUvarint(nil, r.Uint64()>>r.IntN(64))
	switch r.IntN(4) {
	case 0: // up to eleven bytes
		for range r.IntN(11) {
			b[len(b)-1] |= 0x80
			b = append(b, byte(r.Uint32())&0x7f)
		}
	case 1:
		b = append(bytes.Repeat([]byte{0xff}, 9), byte(r.Uint32())&0x7f)
	}
	return b
}

// value is something of a wire type.
func (r *mutator) value(wire int) []byte {
	switch wire {
	case 0:
		return r.varint()
	case 1:
		return r.bytesOf(8)
	case 2:
		return r.bytesOf(r.IntN(12))
	case 5:
		return r.bytesOf(4)
	}
	return nil
}

// full is a message with most of what the schema has, at every level.
func (r *mutator) full(is string, depth int) *messageTree {
	m := &messageTree{is: is}
	for _, f := range r.messages[is] {
		for range 1 + r.IntN(2)*r.IntN(3) {
			if f.label != "required" && (r.IntN(3) == 0 || depth > 6) {
				break
			}
			n := &node{num: f.num}
			wire := 0
			switch {
			case r.messages[f.kind] != nil:
				wire, n.kids = 2, r.full(f.kind, depth+1)
			case f.kind == "string" || f.kind == "bytes":
				wire, n.val = 2, r.value(2)
			case f.label == "repeated" && r.IntN(4) == 0:
				wire, n.val = 2, bytes.Repeat([]byte{1}, r.IntN(4))
			default:
				n.val = binary.AppendUvarint(nil, r.Uint64()>>r.IntN(64))
			}
			n.tag = binary.AppendUvarint(nil, uint64(f.num<<3|wire))
			m.fields = append(m.fields, n)
			if f.label == "required" {
				break
			}
		}
	}
	return m
}

// change makes one change somewhere in the message.
func (r *mutator) change(root *messageTree) {
	all := root.all()
	m := all[r.IntN(len(all))]
	at := r.IntN(len(m.fields) + 1)
	if at == len(m.fields) || r.IntN(5) == 0 { // something new
		num, wire := r.IntN(24), r.IntN(8)
		n := &node{num: num, tag: binary.AppendUvarint(nil, uint64(num<<3|wire)), val: r.value(wire)}
		if r.IntN(4) == 0 {
			n.tag = binary.AppendUvarint(nil, r.Uint64()>>(29+r.IntN(35)))
			n.val = r.value(int(n.tag[0] & 7))
		}
		if r.IntN(6) == 0 { // a whole group
			n.tag, n.val = binary.AppendUvarint(nil, uint64(num<<3|3)), binary.AppendUvarint(nil, uint64(num<<3|4))
		}
		m.fields = slices.Insert(m.fields, at, n)
		return
	}
	n := m.fields[at]
	switch r.IntN(12) {
	case 0:
		m.fields = slices.Delete(m.fields, at, at+1)
	case 1, 2: // it again, at the end or beside it
		again := *n
		if n.kids != nil {
			again.kids = n.kids.clone()
			r.change(again.kids)
		}
		m.fields = slices.Insert(m.fields, []int{at, len(m.fields)}[r.IntN(2)], &again)
	case 3: // another wire type
		wire := r.IntN(8)
		n.tag = binary.AppendUvarint(nil, uint64(n.num<<3|wire))
		if n.kids, n.size = nil, nil; r.IntN(2) == 0 {
			n.val = r.value(wire)
		}
	case 4: // the tag in more bytes than it needs, and too many
		for range 1 + r.IntN(5) {
			n.tag[len(n.tag)-1] |= 0x80
			n.tag = append(n.tag, 0)
		}
	case 5: // the length too, or another one
		val := n.val
		if n.kids != nil {
			val = n.kids.bytes()
		}
		if n.tag[0]&7 == 2 {
			n.size = binary.AppendUvarint(nil, uint64(len(val)+r.IntN(2)*r.IntN(3)))
			for range r.IntN(6) {
				n.size[len(n.size)-1] |= 0x80
				n.size = append(n.size, 0)
			}
		}
	case 6:
		if n.tag[0]&7 == 0 {
			n.val = r.varint()
		}
	case 7: // an array that is packed, or anything that is not one
		if n.kids == nil && n.tag[0]&7 == 0 {
			n.tag, n.val = binary.AppendUvarint(nil, uint64(n.num<<3|2)), slices.Concat(n.val, r.varint())
		}
	case 8: // other places
		other := r.IntN(len(m.fields))
		m.fields[at], m.fields[other] = m.fields[other], n
	case 9: // any bytes in its place
		n.kids, n.val = nil, r.bytesOf(r.IntN(20))
	case 10: // cut off
		if n.kids != nil {
			b := n.kids.bytes()
			n.kids, n.val = nil, b[:r.IntN(len(b)+1)]
		}
	case 11: // a flipped bit
		if n.kids == nil && len(n.val) > 0 {
			n.val = slices.Clone(n.val)
			n.val[r.IntN(len(n.val))] ^= 1 << r.IntN(8)
		}
	}
}

// reading is what codec makes of a message: what it refuses, or values.
type reading struct {
	err    *codec.FormatError
	values any
	core   *codec.Core
}

// reader is one kind of image, and how codec reads it.
type reader struct {
	is, glob string
	magic    uint32
	read     func(t *testing.T, b []byte) (values any, core *codec.Core, err error)
}

// readers are the kinds of images, in the order of testdata/unpack.c.
var readers = []reader{
	{"core_entry", "*/core-*.img", 0x55053847, func(t *testing.T, b []byte) (any, *codec.Core, error) {
		c, err := codec.ParseCore("img", b)
		if err != nil {
			return nil, nil, err
		}
		s := c.State.Clone()
		s.Wide = nil // protobuf-c cuts what is too wide without a word
		return []any{s, c.Comm, c.Leader, c.Dead, c.GPRegs}, c, nil
	}},
	{"cpuinfo_entry", "*/cpuinfo.img", 0x61404013, func(t *testing.T, b []byte) (any, *codec.Core, error) {
		c, err := codec.ParseCPUInfo("img", b)
		if err != nil {
			return nil, nil, err
		}
		return []any{c.VendorID, c.Family, c.Model, c.Stepping, c.Version, c.Capability, c.ModelID,
			c.XFeaturesMask, c.XSaveSize, c.XSaveSizeMax}, nil, nil
	}},
	{"pstree_entry", "*/pstree.img", 0x50273030, func(t *testing.T, b []byte) (any, *codec.Core, error) {
		tasks, err := codec.ParsePstree("img", b)
		return tasks, nil, err
	}},
	{"inventory_entry", "*/inventory.img", 0x58313116, func(t *testing.T, b []byte) (any, *codec.Core, error) {
		inv, err := codec.ParseInventory("img", b)
		return inv, nil, err
	}},
}

func (r *reader) of(t *testing.T, msg []byte) reading {
	values, core, err := r.read(t, entry(r.magic, msg))
	var fe *codec.FormatError
	if err != nil && !errors.As(err, &fe) {
		t.Fatalf("error %v of type %T", err, err)
	}
	return reading{fe, values, core}
}

// TestProtobufC changes real images, and made ones that have every message of the
// schema, at random places, and compares what codec reads with what protobuf-c does,
// which CRIU uses: what one takes the other must take, with the same values. 30,000 changes,
// or one in [testcmd.Step] of so many.
func TestProtobufC(t *testing.T) {
	c := newProtobufC(t)
	mutations, batch := 30000/testcmd.Step, 2000
	r := &mutator{messages: protoMessages(t)}
	counts := map[string]int{}
	for kind := range readers {
		img := &readers[kind]
		var seeds [][]byte
		for _, path := range testimg.Glob(t, img.glob) {
			if b := testimg.Read(t, testimg.Name(t, path)); !strings.Contains(path, "h-threads200") || strings.HasSuffix(path, "0.img") {
				at := headers(b)
				seeds = append(seeds, b[at+4:][:binary.LittleEndian.Uint32(b[at:])])
			}
		}
		n := mutations
		if kind > 0 {
			n /= 10
		}
		for done := 0; done < n; done += batch {
			msgs := make([][]byte, 0, batch)
			for i := range min(batch, n-done) {
				r.Rand = rand.New(rand.NewPCG(uint64(kind), uint64(done+i)))
				var m *messageTree
				if r.IntN(4) == 0 {
					m = r.full(img.is, 0)
				} else {
					m = r.tree(img.is, seeds[(done+i)%len(seeds)])
				}
				for range r.IntN(4) {
					r.change(m)
				}
				msgs = append(msgs, m.bytes())
			}
			compare(t, c, byte(kind), img, msgs, counts)
		}
	}
	t.Logf("%v", counts)
	if counts["taken"] < mutations/5 || counts["refused"] < mutations/5 || counts["encoded"] < mutations/50 {
		t.Error("the changes are too harsh or too mild to tell much")
	}
}

func compare(t *testing.T, c protobufC, kind byte, img *reader, msgs [][]byte, counts map[string]int) {
	t.Helper()
	type converted struct {
		from []byte
		want *xstate.State // nil: it must unpack
	}
	var out [][]byte
	var states []converted
	differ := func(msg []byte, format string, args ...any) {
		t.Helper()
		if counts["differ"]++; counts["differ"] <= 10 {
			t.Errorf("%s %x: %s", img.is, msg, fmt.Sprintf(format, args...))
		}
	}
	for i, packed := range c.unpack(t, kind, msgs) {
		ours := img.of(t, msgs[i])
		if packed == nil {
			counts["refused"]++
			switch {
			case ours.core != nil && ours.core.Split:
				counts["split"]++
			case ours.err == nil && (ours.core == nil || ours.core.Dead || ours.core.State.Format != xstate.FormatNone):
				differ(msgs[i], "protobuf-c refuses it")
			case ours.err == nil: // because of the record alone: with one it is taken
				fx := to(&ours.core.State, xstate.FormatFXSave)
				out, states = append(out, encode(t, ours.core, fx)[12:]), append(states, converted{msgs[i], fx})
			case errors.As(ours.err, new(*codec.ArchError)):
				differ(msgs[i], "protobuf-c refuses it, and codec finds no more than %v", ours.err)
			}
			continue
		}
		counts["taken"]++
		theirs := img.of(t, packed)
		switch {
		case ours.err == nil && theirs.err != nil && strings.HasSuffix(theirs.err.Error(), "not a field number"):
			counts["number 0"]++ // protobuf-c takes it in more than one byte, and packs it in one
		case (ours.err == nil) != (theirs.err == nil):
			differ(msgs[i], "protobuf-c takes it, codec says %v; of what protobuf-c packs %v", ours.err, theirs.err)
		case ours.err != nil && (ours.err.Field != theirs.err.Field || ours.err.Err.Error() != theirs.err.Err.Error()):
			differ(msgs[i], "codec says %v, of what protobuf-c packs %v", ours.err, theirs.err)
		case !reflect.DeepEqual(ours.values, theirs.values):
			differ(msgs[i], "values\n%+v, of what protobuf-c packs\n%+v", ours.values, theirs.values)
		case ours.core != nil && ours.core.Split:
			differ(msgs[i], "protobuf-c takes it, codec says that it would not")
		case ours.core != nil && !ours.core.Dead && i%4 == 0:
			for _, format := range []xstate.Format{xstate.FormatFXSave, xstate.FormatXSave} {
				s := to(&ours.core.State, format)
				out, states = append(out, encode(t, ours.core, s)[12:]), append(states, converted{msgs[i], s})
			}
		}
	}
	if kind > 0 {
		return
	}
	// What is written, protobuf-c reads, and as it was meant.
	for i, packed := range c.unpack(t, kind, out) {
		counts["encoded"]++
		if packed == nil {
			differ(states[i].from, "protobuf-c refuses what is written of it")
			continue
		}
		got, err := codec.ParseCore("img", entry(img.magic, packed))
		if err != nil {
			differ(states[i].from, "what is written of it: %v", err)
			continue
		}
		s := got.State.Clone()
		s.Wide, states[i].want.Wide = nil, nil
		if !reflect.DeepEqual(s, states[i].want) {
			differ(states[i].from, "what is written of it has values\n%+v, want\n%+v", s, states[i].want)
		}
	}
}
