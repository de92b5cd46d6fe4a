package codec_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// seeds adds the real images to the corpus; of the 200 threads of one process one
// will do.
func seeds(f *testing.F, globs ...string) {
	f.Helper()
	for _, glob := range globs {
		for _, path := range testimg.Glob(f, glob) {
			name := testimg.Name(f, path)
			if !strings.HasPrefix(name, "h-threads200/core-") || strings.HasSuffix(name, "000.img") {
				f.Add(testimg.Read(f, name))
			}
		}
	}
}

// bounded fails if decoding takes more memory than a small multiple of the input. A
// packed array grows eightfold, and append takes up to four times what it needs.
func bounded(t *testing.T, input int, decode func()) {
	t.Helper()
	if got, limit := testimg.Allocated(decode), uint64(64<<10+32*input); got > limit {
		// What else runs in the process counts too: try again.
		if got = testimg.Allocated(decode); got > limit {
			t.Fatalf("%d bytes allocated for an input of %d, want %d at most", got, input, limit)
		}
	}
}

func FuzzImage(f *testing.F) {
	seeds(f, "*/core-*.img", "bad/*.img")
	f.Fuzz(func(t *testing.T, b []byte) {
		var c *codec.Core
		var err error
		decode := func() { c, err = codec.ParseCore("core.img", b) }
		decode()
		if len(b) > 0 && b[len(b)-1]%16 == 0 { // reading the statistics stops the world
			bounded(t, len(b), decode)
		}
		if err != nil {
			typed(t, "core.img", len(b), err)
			return
		}
		s := &c.State
		look(s)
		if c.Dead {
			return
		}
		out, err := c.Encode(s.Clone())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out, b) {
			t.Fatal("the same state gives other bytes")
		}
		for _, format := range []xstate.Format{xstate.FormatNone, xstate.FormatFXSave, xstate.FormatXSave} {
			want := to(s, format)
			out, err := c.Encode(want)
			if err != nil {
				t.Fatalf("to %v: %v", format, err)
			}
			again, err := codec.ParseCore("core.img", out)
			if err != nil {
				t.Fatalf("to %v: %v", format, err)
			}
			got := again.State.Clone()
			got.Wide, want.Wide = nil, nil
			if !reflect.DeepEqual(normal(got), normal(want)) {
				t.Fatalf("to %v: state\n%+v, want\n%+v", format, got, want)
			}
			twice, err := again.Encode(to(&again.State, format))
			if err != nil || !bytes.Equal(twice, out) {
				t.Fatalf("to %v twice: other bytes, error %v", format, err)
			}
			back, err := again.Encode(s)
			if err != nil {
				t.Fatalf("to %v and back: %v", format, err)
			}
			last, err := codec.ParseCore("core.img", back)
			if err != nil {
				t.Fatalf("to %v and back: %v", format, err)
			}
			got, want = last.State.Clone(), s.Clone()
			got.Wide, want.Wide = nil, nil
			if s.STLen == 128 && s.XMMLen == 256 && !reflect.DeepEqual(normal(got), normal(want)) {
				t.Fatalf("to %v and back: state\n%+v, want\n%+v", format, got, want)
			}
		}
	})
}

// normal makes an empty array an absent one: they mean the same.
func normal(s *xstate.State) *xstate.State {
	for f := range (xstate.Features(codec.Storable) &^ s.Recorded()).All() {
		s.SetData(f, nil)
	}
	return s
}

func FuzzCPUInfo(f *testing.F) {
	seeds(f, "*/cpuinfo.img")
	f.Fuzz(func(t *testing.T, b []byte) {
		var c *codec.CPUInfo
		var err error
		bounded(t, len(b), func() { c, err = codec.ParseCPUInfo("cpuinfo.img", b) })
		if err != nil {
			typed(t, "cpuinfo.img", len(b), err)
			return
		}
		if !bytes.Equal(c.Encode(c), b) {
			t.Fatal("the same values give other bytes")
		}
		to := *c
		to.XFeaturesMask, to.XSaveSize, to.XSaveSizeMax = nil, nil, new(uint32(832))
		to.Capability = make([]uint32, len(c.Capability))
		out := c.Encode(&to)
		again, err := codec.ParseCPUInfo("cpuinfo.img", out)
		if err != nil {
			t.Fatal(err)
		}
		if again.XFeaturesMask != nil || again.XSaveSize != nil || *again.XSaveSizeMax != 832 ||
			!reflect.DeepEqual(again.Capability, to.Capability) || again.ModelID != c.ModelID {
			t.Fatalf("values %+v, want %+v", again, to)
		}
		if twice := again.Encode(&to); !bytes.Equal(twice, out) {
			t.Fatal("a second time gives other bytes")
		}
	})
}

func FuzzPstree(f *testing.F) {
	seeds(f, "*/pstree.img")
	f.Fuzz(func(t *testing.T, b []byte) {
		var err error
		bounded(t, len(b), func() { _, err = codec.ParsePstree("pstree.img", b) })
		if err != nil {
			typed(t, "pstree.img", len(b), err)
		}
	})
}
