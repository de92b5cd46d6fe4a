package codec_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// badErrors is what ParseCore says of each damaged file that it refuses.
var badErrors = map[string]string{
	"b01-empty.img":            "b01-empty.img: offset 0x0: magic: want 4 bytes, have 0",
	"b03-trunc4.img":           "b03-trunc4.img: offset 0x4: magic: want 4 bytes, have 0",
	"b05-trunc10.img":          "b05-trunc10.img: offset 0x8: size: want 4 bytes, have 2",
	"b07-trunc-half.img":       "b07-trunc-half.img: offset 0x8: size: entry of 4386 bytes, but only 2193 follow",
	"b09-magic2.img":           "b09-magic2.img: offset 0x4: magic: unknown magic, 0xefbeadde; want 0x55053847 of a core image",
	"b11-size-ffffffff.img":    "b11-size-ffffffff.img: offset 0x8: size: entry of 4294967295 bytes, but only 4386 follow",
	"b13-size0.img":            "b13-size0.img: offset 0xc: mtype: required field is missing",
	"b15-varint11.img":         "b15-varint11.img: offset 0xd: core field 1: varint of more than 64 bits",
	"b17-wiretype7.img":        "b17-wiretype7.img: offset 0xd: core field 1: wire type that does not exist",
	"b27-aarch64.img":          "b27-aarch64.img: offset 0xc: mtype: core image of architecture aarch64, not x86",
	"b31-nested-over.img":      "b31-nested-over.img: offset 0xf: core field 2: the message ends inside the field",
	"b33-no-cwd.img":           "b33-no-cwd.img: offset 0x85: fpregs.cwd: required field is missing",
	"b35-gzip.img":             "b35-gzip.img: offset 0x0: magic: unknown magic, 0x00088b1f; want 0x55053847 of a core image",
	"b39-fpregs-as-varint.img": "b39-fpregs-as-varint.img: offset 0x85: fpregs: wire type 0, want 2",
	"b41-inventory-magic.img":  "b41-inventory-magic.img: offset 0x0: magic: unknown magic, 0x00000000; want 0x55053847 of a core image",
}

// badAccepted is what is odd about each file that is read all the same, told by
// change, which makes the good state such a one.
var badAccepted = map[string]struct {
	trailing int
	change   func(s *xstate.State)
}{
	"b19-st31.img":   {0, func(s *xstate.State) { s.STLen = 124; clear(s.FX.STSpace()[124:]) }},
	"b21-ymmh63.img": {0, func(s *xstate.State) { s.SetData(xstate.AVX, s.Data(xstate.AVX)[:252]) }},
	"b23-zmm65.img": {0, func(s *xstate.State) {
		d := s.Data(xstate.ZMMHi256) // the first word stands at the end, too
		s.SetData(xstate.ZMMHi256, slices.Concat(d, d[:8]))
	}},
	"b25-st0.img":            {0, func(s *xstate.State) { s.STLen = 0; clear(s.FX.STSpace()) }},
	"b29-trailing7.img":      {7, func(*xstate.State) {}},
	"b37-cwd-huge.img":       {0, func(s *xstate.State) { s.Wide = []string{"fcw"}; s.FX.SetFCW(0xffff) }},
	"v01-packed.img":         {0, func(*xstate.State) {}},
	"v02-unknown-fields.img": {0, func(*xstate.State) {}},
	"v03-split-fpregs.img":   {0, func(*xstate.State) {}},
}

// good decodes the image that the files in bad/ were made from.
func good(t testing.TB) *codec.Core {
	t.Helper()
	c, err := codec.ParseCore("core-20000.img", testimg.Read(t, "h-avx512", "core-20000.img"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBad(t *testing.T) {
	for _, path := range testimg.Glob(t, "bad/*.img") {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			got, err := codec.ParseCore(name, testimg.Read(t, "bad", name))
			if want, ok := badErrors[name]; ok {
				var fe *codec.FormatError
				switch {
				case err == nil:
					t.Fatalf("no error, want %q", want)
				case !errors.As(err, &fe):
					t.Errorf("error of type %T, want a *FormatError", err)
				case strings.Contains(want, ": magic: ") != errors.Is(err, codec.ErrMagic):
					t.Errorf("is ErrMagic: %v, for %q", errors.Is(err, codec.ErrMagic), err)
				case err.Error() != want:
					t.Errorf("error %q, want %q", err, want)
				}
				return
			}
			tt, ok := badAccepted[name]
			if !ok {
				t.Fatalf("no expectation for this file: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			want := good(t).State.Clone()
			tt.change(want)
			if !reflect.DeepEqual(&got.State, want) {
				t.Errorf("state %+v, want %+v", got.State, want)
			}
			if got.Trailing != tt.trailing {
				t.Errorf("trailing = %d, want %d", got.Trailing, tt.trailing)
			}
		})
	}
	if got, want := len(testimg.Glob(t, "bad/*.img")), len(badErrors)+len(badAccepted); got != want {
		t.Errorf("%d files, want %d", got, want)
	}
}

// TestBadArch is about the one bad file that is a good image, of another machine.
func TestBadArch(t *testing.T) {
	_, err := codec.ParseCore("core.img", testimg.Read(t, "bad", "b27-aarch64.img"))
	var arch *codec.ArchError
	if !errors.As(err, &arch) || arch.Arch != "aarch64" {
		t.Errorf("error %v, want an *ArchError of aarch64", err)
	}
}

// parsers are the three decoders, each with the real images that it reads.
var parsers = []struct {
	name, glob string
	// parse returns nil for the state of what is no core image.
	parse func(path string, b []byte) (*xstate.State, error)
}{
	{"core", "*/core-*.img", func(path string, b []byte) (*xstate.State, error) {
		c, err := codec.ParseCore(path, b)
		if err != nil {
			return nil, err
		}
		return &c.State, nil
	}},
	{"cpuinfo", "*/cpuinfo.img", func(path string, b []byte) (*xstate.State, error) {
		_, err := codec.ParseCPUInfo(path, b)
		return nil, err
	}},
	{"pstree", "*/pstree.img", func(path string, b []byte) (*xstate.State, error) {
		_, err := codec.ParsePstree(path, b)
		return nil, err
	}},
}

// look asks a state everything that a program that prints it would.
func look(s *xstate.State) {
	for f, status := range s.Present() {
		_ = status.String()
		s.View(f)
		s.Used(f)
	}
	for _, v := range s.Vectors() {
		v.Hex()
	}
	for i := range 8 {
		s.FX.ST(i).Class()
		s.FX.Empty(i)
	}
	_ = s.FX.ST(0).String() // one will do: a large exponent takes its time
	xstate.FCWString(s.FX.FCW())
	xstate.FSWString(s.FX.FSW())
	xstate.MXCSRString(s.FX.MXCSR())
	s.Clone()
}

// typed checks an error of a decoder. It is called a million times, so it does not
// format the error.
func typed(t *testing.T, path string, size int, err error) {
	var fe *codec.FormatError
	if !errors.As(err, &fe) {
		t.Fatalf("error %v of type %T, want a *FormatError", err, err)
	}
	if fe.Path != path || fe.Field == "" || fe.Err == nil || fe.Offset < 0 || fe.Offset > int64(size) {
		t.Fatalf("error %q does not name file, offset and field", err)
	}
}

// TestParseErrorsAreTyped truncates every real image at every byte, or at every
// [testcmd.Step]th and between entries.
func TestParseErrorsAreTyped(t *testing.T) {
	for _, p := range parsers {
		t.Run(p.name, func(t *testing.T) {
			for turn, path := range testimg.Glob(t, p.glob) {
				name := testimg.Name(t, path)
				b := testimg.Read(t, name)
				whole := wholeUpTo(b)
				for n := range b {
					if (n+turn)%testcmd.Step != 0 && !slices.Contains(whole, n) {
						continue
					}
					_, err := p.parse(name, b[:n:n])
					if p.name == "pstree" && slices.Contains(whole, n) {
						if err != nil { // any number of entries is a pstree.img
							t.Fatalf("%s cut after %d bytes, between entries: %v", name, n, err)
						}
						continue
					}
					if err == nil {
						t.Fatalf("%s is accepted when cut after %d bytes", name, n)
					}
					typed(t, name, n, err)
				}
			}
		})
	}
}

// headers returns the bytes before the first length word.
func headers(b []byte) int {
	if binary.LittleEndian.Uint32(b) == 0x54564319 {
		return 8
	}
	return 4
}

// wholeUpTo returns where an image may be cut and be one still: between entries.
func wholeUpTo(b []byte) []int {
	var cuts []int
	for at := headers(b); at < len(b); at += 4 + int(binary.LittleEndian.Uint32(b[at:])) {
		cuts = append(cuts, at)
	}
	return cuts
}

// TestCutPayload cuts the entry of each kind of image at every byte, or every
// [testcmd.Step]th, and corrects its length word, so that the fault lies in the protobuf
// message.
func TestCutPayload(t *testing.T) {
	for _, p := range parsers {
		t.Run(p.name, func(t *testing.T) {
			for turn, path := range testimg.Glob(t, p.glob) {
				name := testimg.Name(t, path)
				if strings.HasPrefix(name, "h-threads") && !strings.HasSuffix(name, "000.img") {
					continue // many of one kind
				}
				b := testimg.Read(t, name)
				start := headers(b) + 4
				for n := range testcmd.Cases(len(b)-start, turn) {
					n += start
					cut := slices.Clone(b[:n])
					binary.LittleEndian.PutUint32(cut[start-4:], uint32(n-start))
					if _, err := p.parse(name, cut); err != nil {
						typed(t, name, n, err)
					}
				}
			}
		})
	}
}

// TestBitFlips flips each bit of some images of every kind, or of every [testcmd.Step]th byte.
func TestBitFlips(t *testing.T) {
	images := map[string][]string{
		"core": {"h-avx512/core-20000.img", "h-compat32/core-23300.img", "g-max-criu42-auto/core-3000.img",
			"old-v10-sse/core-20600.img", "old-nofpregs/core-20900.img", "bad/v01-packed.img", "bad/v03-split-fpregs.img"},
		"cpuinfo": {"h-avx512/cpuinfo.img"},
		"pstree":  {"h-tree3/pstree.img"},
	}
	for _, p := range parsers {
		t.Run(p.name, func(t *testing.T) {
			for turn, name := range images[p.name] {
				b := testimg.Read(t, name)
				for i := range testcmd.Cases(len(b), turn) {
					for bit := range 8 {
						b[i] ^= 1 << bit
						s, err := p.parse(name, b)
						switch {
						case err != nil:
							typed(t, name, len(b), err)
						case s != nil && i%64 == 0:
							look(s)
						}
						b[i] ^= 1 << bit
					}
				}
			}
		})
	}
}

// TestDecoder: one decoder, and one core image used again, give of many images, sound and
// damaged in turns, what ParseCore gives of each.
func TestDecoder(t *testing.T) {
	d, got := codec.NewDecoder(), new(codec.Core)
	compare := func(name string, b []byte) {
		want, wantErr := codec.ParseCore(name, b)
		err := d.Decode(got, name, b)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("%s: %v, want %v", name, err, wantErr)
		}
		if err == nil && !(reflect.DeepEqual(got.State, want.State) && reflect.DeepEqual(got.GPRegs, want.GPRegs) && got.Comm == want.Comm &&
			got.Leader == want.Leader && got.Dead == want.Dead && got.Trailing == want.Trailing && got.Split == want.Split) {
			t.Fatalf("%s: %+v, want %+v", name, got, want)
		}
	}
	images := append(testimg.Glob(t, "*/core-*.img"), testimg.Glob(t, "bad/*.img")...)
	for i, path := range testcmd.Rows(images) {
		name := testimg.Name(t, path)
		b := testimg.Read(t, name)
		for at := i % 97; at < len(b); at += 97 {
			compare(name, b)
			b[at] ^= 1 << (at % 8)
			compare(name, b)
			b[at] ^= 1 << (at % 8)
		}
	}
}

// TestReadFile: what is no image file is refused before it is read.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "core-1.img", nil)
	big := filepath.Join(dir, "big.img")
	write(t, dir, "big.img", nil)
	if err := os.Truncate(big, 64<<20+1); err != nil { // sparse
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.img")
	if err := os.Symlink("core-1.img", link); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, want string }{
		{dir, "offset 0x0: file: not a regular file"},
		{link, "offset 0x0: file: not a regular file"},
		{big, "offset 0x4000000: file: larger than 64 MiB, which no such image is"},
	}
	for _, tt := range tests {
		if _, err := codec.ReadFile(tt.path); err == nil || err.Error() != tt.path+": "+tt.want {
			t.Errorf("error %v, want %s: %s", err, tt.path, tt.want)
		}
	}
	if b, err := codec.ReadFile(filepath.Join(dir, "core-1.img")); err != nil || len(b) != 0 {
		t.Errorf("%d bytes, error %v", len(b), err)
	}
	if _, err := codec.ReadFile(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want one of a missing file", err)
	}
}

// TestStorable: the components that a core image has fields for, and no others, come
// back out of one.
func TestStorable(t *testing.T) {
	for f := range (xstate.Known &^ xstate.Legacy).All() {
		s := good(t).State.Clone()
		s.SetData(f, make([]byte, f.Component().Size))
		b, err := good(t).Encode(s)
		if got, want := err == nil, codec.Storable.Has(f); got != want {
			t.Errorf("%v: error %v, storable %v", f, err, want)
		}
		if err == nil && !parse(t, "core.img", b).State.Recorded().Has(f) {
			t.Errorf("%v is not read back", f)
		}
	}
}
