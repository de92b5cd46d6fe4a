package codec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/internal/testimg"
)

func openArea(t *testing.T, b []byte, l xstate.Layout) (*xstate.State, error) {
	t.Helper()
	cs, err := codec.ReadAll("area", bytes.NewReader(b), codec.Options{XSaveArea: true, Layout: l})
	if err != nil {
		return nil, err
	}
	if cs[0].Kind != codec.KindXSaveArea {
		t.Errorf("kind %q, want xsave-area", cs[0].Kind)
	}
	for th, err := range cs[0].Threads() {
		return &th.Core.State, err
	}
	return nil, errors.New("no thread")
}

// TestRawAreas reads the areas that real programs stored with XSAVE, as bare files,
// and compares their registers with what the programs said of them.
func TestRawAreas(t *testing.T) {
	n := 0
	for _, truth := range testimg.All(t) {
		for _, task := range truth.Tasks {
			for i := range task.Threads {
				th := &task.Threads[i]
				area := th.Area()
				if area == nil {
					continue
				}
				s, err := openArea(t, area, nil)
				if err != nil {
					t.Errorf("%s: %v", truth.Name, err)
					continue
				}
				n++
				c := comparison{map[string]int{}, map[string]string{}}
				s.Compat = task.Bits == 32
				c.thread(s, th)
				for class, diff := range c.differs {
					if class != "bnd" && class != "fip" && class != "fdp" && class != "fop" {
						t.Errorf("%s: %s", truth.Name, diff)
					}
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("%d areas read, want at least 40", n)
	}
}

// TestRawAreaForms reads one state in the forms that an area has: from a signal
// frame, compacted, by the layout of a machine, and FXSAVE alone.
func TestRawAreaForms(t *testing.T) {
	std := area(t, xstate.IntelLayout(0x207), 2696, 0x207)
	frame := slices.Clone(std)
	binary.LittleEndian.PutUint32(frame[464:], 0x46505853)
	binary.LittleEndian.PutUint32(frame[468:], 2696+4)
	binary.LittleEndian.PutUint64(frame[472:], 0x207)
	binary.LittleEndian.PutUint32(frame[480:], 2696)
	frame = append(frame, "EXPF"...)
	compact := make([]byte, 576+64+256)
	copy(compact, std[:576])
	binary.LittleEndian.PutUint64(compact[520:], 1<<63|0x27)
	copy(compact[576:], std[576:832])
	odd := xstate.Layout{{Feature: xstate.AVX, Offset: 1000, Size: 256}}
	dirty := slices.Clone(std)
	copy(dirty[464:], bytes.Repeat([]byte{0xaa}, 48))
	amd := area(t, xstate.AMDLayout(0x2e7), 2440, 0)
	tests := []struct {
		name   string
		b      []byte
		layout xstate.Layout
	}{
		{"ptrace", std, nil},
		{"signal frame", frame, nil},
		{"stale words", dirty, nil},
		{"compacted", compact, nil},
		{"AMD", amd, nil},
		{"a layout of its own", area(t, odd, 1256, 0x7), odd},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := openArea(t, tt.b, tt.layout)
			if err != nil {
				t.Fatal(err)
			}
			if got := ymm3(s); got != "5a" {
				t.Errorf("ymm3 has %s, want 5a", got)
			}
		})
	}
	if s, err := openArea(t, std[:512], nil); err != nil || s.Format != xstate.FormatFXSave {
		t.Errorf("512 bytes: %v, %v; want an FXSAVE area", s, err)
	}
	for _, b := range [][]byte{nil, std[:100], std[:1000], append(slices.Clone(std), 1), make([]byte, 1<<20+1)} {
		_, err := openArea(t, b, nil)
		var format *codec.FormatError
		if !errors.As(err, &format) || !strings.HasPrefix(format.Field, "area") {
			t.Errorf("%d bytes: error %v, want a *FormatError of the area", len(b), err)
		}
	}
}
