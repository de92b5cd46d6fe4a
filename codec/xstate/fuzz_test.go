package xstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// FuzzArea reads XSAVE areas of both formats, by the layouts of both vendors and by
// one that no CPU has. What is accepted can be built and read again.
func FuzzArea(f *testing.F) {
	for _, truth := range testimg.All(f) {
		for _, task := range truth.Tasks {
			if area := task.Threads[0].Area(); area != nil {
				f.Add(area, uint64(task.XCR0), uint16(0))
			}
		}
	}
	compact := make([]byte, 2496)
	binary.LittleEndian.PutUint64(compact[AreaBVOffset:], 0xe2)
	binary.LittleEndian.PutUint64(compact[offXCompBV:], 0xe7|1<<63)
	f.Add(compact, uint64(0xe7), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, mask uint64, odd uint16) {
		set := Features(mask)
		layouts := []Layout{nil, IntelLayout(set), AMDLayout(set), GuessLayout(set, len(b)),
			{{Feature(odd), int(int16(odd)), int(odd >> 8), odd&1 != 0}, {AVX, int(odd), 256, false}}}
		AreaXCR0(b)
		if s, err := ParseFXArea(b); err == nil && s.Format != FormatFXSave {
			t.Fatalf("format %v, want fxsave", s.Format)
		}
		for _, l := range layouts {
			s, err := ParseArea(b, l)
			if err != nil {
				var ae *AreaError
				if !errors.As(err, &ae) || ae.Field == "" || ae.Offset < 0 || ae.Offset > len(b) {
					t.Fatalf("error %v of type %T, want an *AreaError", err, err)
				}
				continue
			}
			for feature := range s.Present() {
				s.View(feature)
				s.Used(feature)
			}
			s.Vectors()
			// Its bits without those that name no component or that the area had
			// no data for, in standard format of a machine with every component.
			s.BV &= Known &^ s.With(Lost)
			big := IntelLayout(Known &^ APX.Mask())
			area, err := s.MarshalArea(big, big.End(Known))
			if s.BV.Has(APX) { // where MPX lies
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseArea(area, big)
			if err != nil {
				t.Fatal(err)
			}
			if again.FX != s.FX || again.BV != s.BV|Legacy {
				t.Fatalf("legacy area or XSTATE_BV %v differ, want %v", again.BV, s.BV|Legacy)
			}
			for feature := range s.BV.All() {
				if !bytes.Equal(again.View(feature), s.View(feature)) {
					t.Fatalf("%v differs", feature)
				}
			}
		}
	})
}
