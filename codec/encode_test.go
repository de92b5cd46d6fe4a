package codec_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// field is one field of a protobuf message, as a walk of the test's own sees it:
// nothing here is shared with the code under test.
type field struct {
	num int
	raw []byte // tag and value
	val []byte // the content of a length-delimited field, the bytes of another
}

// walk cuts a message into fields. It panics on malformed bytes.
func walk(b []byte) []field {
	var out []field
	for len(b) > 0 {
		f := first(b)
		out = append(out, f)
		b = b[len(f.raw):]
	}
	return out
}

// first returns the field that b begins with.
func first(b []byte) field {
	tag, n := binary.Uvarint(b)
	val, end := n, 0
	switch tag & 7 {
	case 0:
		_, k := binary.Uvarint(b[n:])
		end = n + k
	case 1:
		end = n + 8
	case 2:
		size, k := binary.Uvarint(b[n:])
		val, end = n+k, n+k+int(size)
	case 3: // a group: up to its end tag, which has the same number
		for end = n; ; end += len(first(b[end:]).raw) {
			if t, k := binary.Uvarint(b[end:]); t == tag+1 {
				end += k
				break
			}
		}
	case 5:
		end = n + 4
	}
	return field{int(tag >> 3), b[:end], b[val:end]}
}

// outside returns everything in a core image but its FPU record and the length
// words around it: the headers, the other fields in their order, what follows the
// entry. record is the fields of the record, in order.
func outside(t *testing.T, b []byte) (rest []string, record []field) {
	t.Helper()
	at := headers(b)
	size := int(binary.LittleEndian.Uint32(b[at:]))
	rest = append(rest, fmt.Sprintf("%x", b[:at]))
	for _, f := range walk(b[at+4:][:size]) {
		if f.num != 2 {
			rest = append(rest, fmt.Sprintf("%x", f.raw))
			continue
		}
		rest = append(rest, "thread_info")
		for _, g := range walk(f.val) {
			if g.num == 3 {
				record = append(record, walk(g.val)...)
				continue
			}
			rest = append(rest, fmt.Sprintf("thread_info: %x", g.raw))
		}
	}
	return append(rest, fmt.Sprintf("%x", b[at+4+size:])), record
}

// everyCore calls f with every real core image that has registers, and the odd ones.
func everyCore(t *testing.T, f func(t *testing.T, name string, b []byte, c *codec.Core)) {
	for _, path := range append(testimg.Cores(t), testimg.Glob(t, "bad/*.img")...) {
		name := testimg.Name(t, path)
		b := testimg.Read(t, name)
		c, err := codec.ParseCore(name, b)
		if strings.HasPrefix(name, "bad/b") && err != nil {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.Dead {
			continue
		}
		t.Run(name, func(t *testing.T) { f(t, name, b, c) })
	}
}

func encode(t *testing.T, c *codec.Core, s *xstate.State) []byte {
	t.Helper()
	b, err := c.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t *testing.T, name string, b []byte) *codec.Core {
	t.Helper()
	c, err := codec.ParseCore(name, b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// to returns the state in another format, as a conversion would make it.
func to(s *xstate.State, format xstate.Format) *xstate.State {
	out := s.Clone()
	if out.Format == xstate.FormatNone && format != xstate.FormatNone {
		out.FX = xstate.InitFXArea()
		out.STLen, out.XMMLen = 128, 256
	}
	if format == xstate.FormatXSave && out.Format != xstate.FormatXSave {
		out.BV = xstate.Legacy
		out.SetData(xstate.AVX, make([]byte, 256))
	}
	out.Format = format
	if format != xstate.FormatXSave {
		out.BV, out.ShadowStack = 0, nil
		for f := range out.Recorded().All() {
			out.SetData(f, nil)
		}
	}
	if format == xstate.FormatNone {
		out.FX, out.STLen, out.XMMLen, out.Wide = xstate.FXArea{}, 0, 0, nil
	}
	return out
}

// TestEncodeSame: the state that was read gives the bytes that were read.
func TestEncodeSame(t *testing.T) {
	everyCore(t, func(t *testing.T, name string, b []byte, c *codec.Core) {
		if got := encode(t, c, c.State.Clone()); !bytes.Equal(got, b) {
			t.Error("the same state does not give the same bytes")
		}
	})
}

// TestEncodeFormats writes each image in every format. Nothing but the record may
// change, what is written must be read back as the state it came from, and from
// there the way back must give the first file.
func TestEncodeFormats(t *testing.T) {
	everyCore(t, func(t *testing.T, name string, b []byte, c *codec.Core) {
		before := slices.Clone(b)
		rest, _ := outside(t, b)
		for _, format := range []xstate.Format{xstate.FormatNone, xstate.FormatFXSave, xstate.FormatXSave} {
			want := to(&c.State, format)
			out := encode(t, c, want)
			if got, _ := outside(t, out); !slices.Equal(got, rest) {
				t.Errorf("to %v: other bytes than those of the FPU record change", format)
			}
			again := parse(t, name, out)
			if format == xstate.FormatFXSave || format == c.State.Format {
				want.Wide = again.State.Wide // the words that stay keep what is too wide in them
			}
			if !reflect.DeepEqual(&again.State, want) {
				t.Errorf("to %v: state\n%+v, want\n%+v", format, again.State, want)
			}
			if again.Comm != c.Comm || again.Leader != c.Leader || again.Trailing != c.Trailing {
				t.Errorf("to %v: the rest of the image reads otherwise", format)
			}
			// Down twice is down once.
			if got := encode(t, again, to(&again.State, format)); !bytes.Equal(got, out) {
				t.Errorf("to %v: a second time gives other bytes", format)
			}
			if format >= c.State.Format { // up, or the same: nothing is lost on the way back
				if got := encode(t, again, &c.State); !bytes.Equal(got, b) {
					t.Errorf("to %v and back to %v: other bytes than at first", format, c.State.Format)
				}
			}
		}
		if !bytes.Equal(b, before) {
			t.Error("Encode changed the bytes that it was given")
		}
	})
}

// TestEncodeStripped compares with what crit made of the same image, which real
// CRIU restored on every CPU.
func TestEncodeStripped(t *testing.T) {
	for _, tt := range []struct{ from, want string }{
		{"g-haswell-criu42-sse/core-8050.img", "s-haswell-criu42-sse/core-8050.img"},
		{"h-sse/core-20600.img", "s-host-sse/core-20600.img"},
	} {
		b := testimg.Read(t, tt.from)
		c := parse(t, tt.from, b)
		out := encode(t, c, to(&c.State, xstate.FormatFXSave))
		if want := testimg.Read(t, tt.want); !bytes.Equal(out, want) {
			t.Errorf("%s: stripped, it differs from %s", tt.from, tt.want)
		}
	}
}

// TestEncodeAddedRecord gives an image without a record the one that was taken from
// it, and compares with the original.
func TestEncodeAddedRecord(t *testing.T) {
	for _, dir := range []string{"h-init", "h-avx512", "h-compat32", "h-tree3", "g-qemu64-criu42-init", "g-max-criu42-auto"} {
		name := testimg.Name(t, testimg.Glob(t, dir+"/core-*.img")[0])
		b := testimg.Read(t, name)
		c := parse(t, name, b)
		bare := parse(t, name, encode(t, c, new(xstate.State)))
		if bare.State.Format != xstate.FormatNone {
			t.Fatalf("%s: format %v, want none", name, bare.State.Format)
		}
		if got := encode(t, bare, &c.State); !bytes.Equal(got, b) {
			t.Errorf("%s: the record taken out and put back gives other bytes", name)
		}
	}
}

// TestEncodeComponents changes the components of an XSAVE record one by one.
func TestEncodeComponents(t *testing.T) {
	shadow := &xstate.ShadowStack{Status: 1, SSP: 0x7fff12345678}
	tests := []struct {
		name   string
		change func(s *xstate.State)
		fields string // numbers of the fields of xsave, runs as one
	}{
		{"same", func(*xstate.State) {}, "1 2 5 6 7"},
		{"bits", func(s *xstate.State) { s.BV = 3 }, "1 2 5 6 7"},
		{"one removed", func(s *xstate.State) { s.BV &^= xstate.Hi16ZMM.Mask(); s.SetData(xstate.Hi16ZMM, nil) }, "1 2 5 6"},
		{"AVX only", func(s *xstate.State) {
			s.BV = 7
			for f := range xstate.AVX512.All() {
				s.SetData(f, nil)
			}
		}, "1 2"},
		{"one cleared", func(s *xstate.State) { s.BV &^= xstate.Opmask.Mask(); s.SetData(xstate.Opmask, make([]byte, 64)) }, "1 2 6 7 5"},
		{"one added", func(s *xstate.State) {
			s.BV |= xstate.PKRU.Mask()
			s.SetData(xstate.PKRU, []byte{4, 0, 0, 0x55, 0, 0, 0, 0})
		}, "1 2 5 6 7 8"},
		{"shadow stack", func(s *xstate.State) { s.ShadowStack = shadow }, "1 2 5 6 7 9"},
		{"legacy only", func(s *xstate.State) {
			s.BV = 3
			for f := range s.Recorded().All() {
				s.SetData(f, nil)
			}
		}, "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good(t)
			want := c.State.Clone()
			tt.change(want)
			out := encode(t, c, want)
			got := parse(t, "core.img", out)
			if !reflect.DeepEqual(&got.State, want) {
				t.Errorf("state %+v, want %+v", got.State, want)
			}
			_, record := outside(t, out)
			if nums := runs(walk(record[len(record)-1].val)); nums != tt.fields {
				t.Errorf("fields of xsave %q, want %q", nums, tt.fields)
			}
			if back := encode(t, got, &c.State); tt.name == "bits" && !bytes.Equal(back, testimg.Read(t, "h-avx512", "core-20000.img")) {
				t.Error("the way back gives other bytes")
			}
		})
	}
	// A shadow stack that changes or goes.
	c := good(t)
	with := c.State.Clone()
	with.ShadowStack = shadow
	c2 := parse(t, "core.img", encode(t, c, with))
	with.ShadowStack = &xstate.ShadowStack{SSP: 8}
	if got := parse(t, "core.img", encode(t, c2, with)).State.ShadowStack; !reflect.DeepEqual(got, with.ShadowStack) {
		t.Errorf("shadow stack %v, want %v", got, with.ShadowStack)
	}
	if got := encode(t, c2, &c.State); !bytes.Equal(got, testimg.Read(t, "h-avx512", "core-20000.img")) {
		t.Error("a shadow stack added and taken away leaves other bytes")
	}
}

// runs lists the numbers of fields, equal ones in a row once.
func runs(fields []field) string {
	var out []string
	last := 0
	for _, f := range fields {
		if f.num != last {
			out = append(out, fmt.Sprint(f.num))
		}
		last = f.num
	}
	return strings.Join(out, " ")
}

// TestEncodeKeepsUnknown: v02 has unknown fields of every wire type in xsave.
func TestEncodeKeepsUnknown(t *testing.T) {
	b := testimg.Read(t, "bad", "v02-unknown-fields.img")
	c := parse(t, "v02", b)
	want := c.State.Clone()
	want.BV = 3
	want.SetData(xstate.ZMMHi256, nil)
	out := encode(t, c, want)
	unknown := func(b []byte) []string {
		_, record := outside(t, b)
		var out []string
		for _, f := range walk(record[len(record)-1].val) {
			if f.num > 9 {
				out = append(out, fmt.Sprintf("%x", f.raw))
			}
		}
		return out
	}
	if got, want := unknown(out), unknown(b); !slices.Equal(got, want) || len(got) != 4 {
		t.Errorf("unknown fields %v, want %v", got, want)
	}
	if got := parse(t, "v02", out); !reflect.DeepEqual(&got.State, want) {
		t.Errorf("state %+v, want %+v", got.State, want)
	}
}

// TestEncodeSplit: messages that stand in several pieces, each of them whole.
func TestEncodeSplit(t *testing.T) {
	odd := func(num int) func(field) []byte { // the field again, with another fcw
		return func(f field) []byte {
			again := sub(num, slices.Concat(f.val, []byte{1 << 3, 0x7f}))
			if num == 2 {
				again = sub(2, edit(f.val, []int{3}, func(f field) []byte { return sub(3, slices.Concat(f.val, []byte{1 << 3, 0x7f})) }))
			}
			return slices.Concat(f.raw, again)
		}
	}
	for name, path := range map[string][]int{"thread_info": {2}, "fpregs": {2, 3}, "xsave": {2, 3, 13}, "v03": nil} {
		if path == nil { // fpregs in two pieces, neither of them whole
			testSplit(t, name, parse(t, name, testimg.Read(t, "bad", "v03-split-fpregs.img")))
			continue
		}
		change := odd(path[len(path)-1])
		if name == "xsave" {
			change = func(f field) []byte { return slices.Concat(f.raw, sub(13, []byte("\x08\xe7\x01"))) }
		}
		c, err := edited(t, path, change)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := good(t).State.Clone()
		switch name {
		case "thread_info": // the last counts
			want.FX.SetFCW(0x7f)
		case "fpregs": // the arrays stand there twice
			want.FX.SetFCW(0x7f)
			want.STLen, want.XMMLen = 256, 512
			for f := range want.Recorded().All() {
				want.SetData(f, slices.Repeat(want.Data(f), 2))
			}
		}
		if !reflect.DeepEqual(&c.State, want) {
			t.Errorf("%s: state\n%+v, want\n%+v", name, &c.State, want)
		}
		testSplit(t, name, c)
	}
}

// testSplit writes an image with messages in pieces in every format.
func testSplit(t *testing.T, name string, c *codec.Core) {
	t.Helper()
	down := parse(t, name, encode(t, c, to(&c.State, xstate.FormatFXSave)))
	if want := to(&c.State, xstate.FormatFXSave); !reflect.DeepEqual(&down.State, want) {
		t.Errorf("%s, down: state %+v, want %+v", name, down.State, want)
	}
	up := parse(t, name, encode(t, down, &c.State))
	if !reflect.DeepEqual(&up.State, &c.State) {
		t.Errorf("%s, up: state %+v, want %+v", name, up.State, c.State)
	}
	none := parse(t, name, encode(t, c, to(&c.State, xstate.FormatNone)))
	if want := to(&c.State, xstate.FormatNone); !reflect.DeepEqual(&none.State, want) {
		t.Errorf("%s, away: state %+v, want %+v", name, none.State, want)
	}
}

// TestEncodeScalars changes the words of the legacy area, and nothing beside them.
func TestEncodeScalars(t *testing.T) {
	c := good(t)
	for name, change := range map[string]func(*xstate.FXArea){
		"fcw":   func(fx *xstate.FXArea) { fx.SetFCW(0x27e) },
		"fdp":   func(fx *xstate.FXArea) { fx.SetFDP(1 << 63) },
		"mxcsr": func(fx *xstate.FXArea) { fx.SetMXCSR(0x1f80) },
	} {
		want := c.State.Clone()
		change(&want.FX)
		out := encode(t, c, want)
		got := parse(t, "core.img", out)
		if !reflect.DeepEqual(&got.State, want) {
			t.Errorf("%s: state %+v, want %+v", name, got.State, want)
		}
		if back := encode(t, got, &c.State); !bytes.Equal(back, testimg.Read(t, "h-avx512", "core-20000.img")) {
			t.Errorf("%s: the way back gives other bytes", name)
		}
	}
}

// TestEncodeRefuses: what a core image cannot hold is not written in part.
func TestEncodeRefuses(t *testing.T) {
	c := good(t)
	tests := []struct {
		name   string
		change func(s *xstate.State)
		want   string
	}{
		{"other st0", func(s *xstate.State) { s.FX.STSpace()[3]++ }, "core-20000.img: the ST and XMM registers of an existing record cannot be replaced"},
		{"other xmm15", func(s *xstate.State) { s.FX.XMMSpace()[255]++ }, "core-20000.img: the ST and XMM registers of an existing record cannot be replaced"},
		{"tiles", func(s *xstate.State) { s.SetData(xstate.TileCfg, make([]byte, 64)) }, "core-20000.img: core images have no field for TILECFG"},
	}
	for _, tt := range tests {
		s := c.State.Clone()
		tt.change(s)
		if _, err := c.Encode(s); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	dead := parse(t, "core-1.img", entry(0x55053847, zombie))
	if _, err := dead.Encode(&c.State); err == nil || err.Error() != "core-1.img: a dead task has no FPU record" {
		t.Errorf("dead task: error %v", err)
	}
}

func cpuinfo(t *testing.T, name string, b []byte) *codec.CPUInfo {
	t.Helper()
	c, err := codec.ParseCPUInfo(name, b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCPUInfoEncode: identity, and edits that change nothing else.
func TestCPUInfoEncode(t *testing.T) {
	for _, path := range testimg.Glob(t, "*/cpuinfo.img") {
		name := testimg.Name(t, path)
		b := testimg.Read(t, name)
		c := cpuinfo(t, name, b)
		if got := c.Encode(c); !bytes.Equal(got, b) {
			t.Errorf("%s: the same values give other bytes", name)
		}
		for _, tt := range []struct {
			name string
			edit func(to *codec.CPUInfo)
		}{
			{"no xsave fields", func(to *codec.CPUInfo) { to.XFeaturesMask, to.XSaveSize, to.XSaveSizeMax = nil, nil, nil }},
			{"other sizes", func(to *codec.CPUInfo) { to.XSaveSize, to.XSaveSizeMax = new(uint32(832)), new(uint32(11008)) }},
			{"other mask", func(to *codec.CPUInfo) { to.XFeaturesMask = new(uint64(0x2e5)) }},
			{"other words", func(to *codec.CPUInfo) {
				for i := range to.Capability {
					to.Capability[i] ^= 1<<31 | uint32(i)
				}
			}},
			{"one word", func(to *codec.CPUInfo) { to.Capability[4] = 0 }},
		} {
			want := *c
			want.Capability = slices.Clone(c.Capability)
			tt.edit(&want)
			out := c.Encode(&want)
			got := cpuinfo(t, name, out)
			values := func(c *codec.CPUInfo) []any {
				return []any{c.VendorID, c.Family, c.Model, c.Stepping, c.Version, c.Capability, c.ModelID,
					c.XFeaturesMask, c.XSaveSize, c.XSaveSizeMax}
			}
			if g, w := values(got), values(&want); !reflect.DeepEqual(g, w) {
				t.Errorf("%s: %s: values %v, want %v", name, tt.name, g, w)
			}
			if got := got.Encode(c); !bytes.Equal(got, b) {
				t.Errorf("%s: %s and back: other bytes than at first", name, tt.name)
			}
			if got, want := kept(out), kept(b); !slices.Equal(got, want) {
				t.Errorf("%s: %s: other fields change: %v, want %v", name, tt.name, got, want)
			}
		}
	}
}

// kept lists the fields of a cpuinfo.img that Encode never touches.
func kept(b []byte) []string {
	at := headers(b)
	out := []string{fmt.Sprintf("%x", b[:at])}
	for _, f := range walk(b[at+4:]) {
		for _, g := range walk(f.val) {
			if g.num != 6 && (g.num < 8 || g.num > 10) {
				out = append(out, fmt.Sprintf("%x", g.raw))
			}
		}
	}
	return out
}

// TestCPUInfoPacked: a capability array in packed form stays packed, and what the
// message does not name stays.
func TestCPUInfoPacked(t *testing.T) {
	x := []byte("\x08\x01\x10\x06\x18\x8f\x01\x20\x08\x28\x01") // vendor 1, family 6, model 143, stepping 8, version 1
	x = append(x, 6<<3|2, 12)
	for i := range 12 {
		x = append(x, byte(i))
	}
	x = append(x, "\x98\x06\x2a"...) // field 99
	b := entry(0x61404013, append([]byte{1<<3 | 2, byte(len(x))}, x...))
	c := cpuinfo(t, "cpuinfo.img", b)
	if got := c.Encode(c); !bytes.Equal(got, b) {
		t.Fatalf("bytes %x, want %x", got, b)
	}
	to := *c
	to.Capability = slices.Clone(c.Capability)
	to.Capability[3] = 77
	want := bytes.Replace(b, []byte{1, 2, 3, 4}, []byte{1, 2, 77, 4}, 1)
	if got := c.Encode(&to); !bytes.Equal(got, want) {
		t.Errorf("bytes %x, want %x", got, want)
	}
}

// TestCPUInfoErrors: what CRIU refuses is refused.
func TestCPUInfoErrors(t *testing.T) {
	one := "\x08\x01\x10\x06\x18\x01\x20\x01\x28\x01" // capability_ver 1
	words := strings.Repeat("\x30\x00", 12)
	tests := []struct{ name, x86, want string }{
		{"no stepping", "\x08\x01\x10\x06\x18\x01\x28\x01" + words, "cpuinfo.img: offset 0xc: x86_entry.stepping: required field is missing"},
		{"version 3", one[:9] + "\x03" + words, "cpuinfo.img: offset 0xc: capability_ver: version 3 is not 1 or 2"},
		{"11 words", one + words[2:], "cpuinfo.img: offset 0xc: capability: want 12 words, have 11"},
		{"mask of fixed width", one + words + "\x41\x01\x00\x00\x00\x00\x00\x00\x00", "cpuinfo.img: offset 0x30: x86_entry.xfeatures_mask: wire type 1, want 0"},
	}
	for _, tt := range tests {
		b := entry(0x61404013, append([]byte{1<<3 | 2, byte(len(tt.x86))}, tt.x86...))
		if _, err := codec.ParseCPUInfo("cpuinfo.img", b); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	x86 := string(sub(1, []byte(one+words)))
	if _, err := codec.ParseCPUInfo("cpuinfo.img", entry(0x61404013, []byte(x86))); err != nil {
		t.Error(err)
	}
	for _, payload := range []string{"", "\x0a\x00\x0a\x00", "\x12\x00", x86 + string(sub(1, []byte(one)))} {
		if _, err := codec.ParseCPUInfo("cpuinfo.img", entry(0x61404013, []byte(payload))); err == nil {
			t.Errorf("entry %q: no error", payload)
		}
	}
}
