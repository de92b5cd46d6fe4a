package codec_test

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// edit returns a message in which f stands for the fields at a path of numbers.
func edit(b []byte, path []int, f func(field) []byte) []byte {
	var out []byte
	for _, g := range walk(b) {
		switch {
		case g.num != path[0]:
			out = append(out, g.raw...)
		case len(path) == 1:
			out = append(out, f(g)...)
		default:
			out = append(out, sub(g.num, edit(g.val, path[1:], f))...)
		}
	}
	return out
}

// sub builds a length-delimited field.
func sub(num int, val []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(num<<3|2))
	return append(binary.AppendUvarint(b, uint64(len(val))), val...)
}

// edited parses h-avx512 with an edit.
func edited(t *testing.T, path []int, f func(field) []byte) (*codec.Core, error) {
	t.Helper()
	b := testimg.Read(t, "h-avx512", "core-20000.img")
	return codec.ParseCore("core.img", entry(0x55053847, edit(b[12:], path, f)))
}

func removed(field) []byte { return nil }

// TestRequired takes out each field that CRIU requires in the way to the FPU record,
// and gives it another wire type.
func TestRequired(t *testing.T) {
	type test struct {
		path []int
		name string
	}
	tests := []test{{[]int{1}, "mtype"}, {[]int{2}, "thread_info"}, {[]int{2, 1}, "thread_info.clear_tid_addr"},
		{[]int{2, 2}, "thread_info.gpregs"}, {[]int{2, 3, 13, 1}, "xsave.xstate_bv"}}
	for i, name := range strings.Fields("r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss fs_base gs_base ds es fs gs") {
		tests = append(tests, test{[]int{2, 2, i + 1}, "gpregs." + name})
	}
	for i, name := range strings.Fields("task_state exit_code personality flags blk_sigset comm") {
		tests = append(tests, test{[]int{3, i + 1}, "tc." + name})
	}
	for i, name := range []string{"cwd", "swd", "twd", "fop", "rip", "rdp", "mxcsr", "mxcsr_mask"} {
		tests = append(tests, test{[]int{2, 3, i + 1}, "fpregs." + name})
		_, err := edited(t, []int{2, 3, i + 1}, func(f field) []byte {
			return append([]byte{byte(f.num<<3 | 5)}, 0, 0, 0, 0)
		})
		if want := "fpregs." + name + ": wire type 5, want 0"; err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%v as a fixed32: error %v, want %s", name, err, want)
		}
	}
	for _, tt := range tests {
		_, err := edited(t, tt.path, removed)
		want := tt.name + ": required field is missing"
		if tt.name == "thread_info" {
			want = "thread_info: no thread_info, and the task is not dead"
		}
		if err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%v removed: error %v, want %q", tt.path, err, want)
		}
	}
	// Other messages of the type have it, and protobuf asks for no more.
	for i := range 4 {
		if c, err := edited(t, []int{3, 7, 2, i + 1}, removed); err != nil || !c.Split {
			t.Errorf("timer without field %d: split is not said, or error %v", i+1, err)
		}
	}
	// The shadow stack is optional, its parts are not.
	for cet, want := range map[string]string{"\x08\x01\x10\x02": "", "\x08\x01": "cet.ssp: required field is missing",
		"\x10\x01": "cet.cet: required field is missing", "\x08\x01\x11": "cet field 2: the message ends inside the field"} {
		_, err := edited(t, []int{2, 3, 13, 1}, func(f field) []byte { return slices.Concat(f.raw, sub(9, []byte(cet))) })
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("cet %q: error %v, want %q", cet, err, want)
		}
	}
	for _, path := range [][]int{{3}, {4}, {5}, {2, 3}, {2, 2, 28}} {
		if _, err := edited(t, path, removed); err != nil {
			t.Errorf("%v removed, which is optional: %v", path, err)
		}
	}
}

// TestScatteredArrays: the elements of an array need not stand in a row, and may be
// packed in part.
func TestScatteredArrays(t *testing.T) {
	want := good(t).State
	for _, path := range [][]int{{2, 3}, {2, 3, 13}} {
		got, err := edited(t, path, func(f field) []byte {
			type element struct {
				field
				index int // in its array
			}
			var scalars []field
			var elements []element
			n := map[int]int{}
			for _, g := range walk(f.val) {
				if f.num == 3 && g.num != 9 && g.num != 10 || f.num == 13 && g.num == 1 {
					scalars = append(scalars, g)
					continue
				}
				elements = append(elements, element{g, n[g.num]})
				n[g.num]++
			}
			// The first element of each array, the second of each, and so on.
			slices.SortStableFunc(elements, func(a, b element) int { return a.index - b.index })
			var out []byte
			for i, g := range elements {
				if i%3 == 0 {
					out = append(out, sub(g.num, g.val)...)
				} else {
					out = append(out, g.raw...)
				}
			}
			for _, g := range scalars {
				out = append(out, g.raw...)
			}
			return sub(f.num, out)
		})
		if err != nil {
			t.Errorf("%v: %v", path, err)
			continue
		}
		if !reflect.DeepEqual(got.State, want) {
			t.Errorf("%v: state\n%+v, want\n%+v", path, got.State, want)
		}
	}
}

// TestWide: values that do not fit their register are cut, and named once.
func TestWide(t *testing.T) {
	big := binary.AppendUvarint(nil, 1<<40|5)
	got, err := edited(t, []int{2, 3}, func(f field) []byte {
		b := slices.Clone(f.val)
		b = append(append(b, 10<<3), big...)         // after the xmm words: alone
		b = append(append(b, 9<<3, 1, 9<<3), big...) // the second of a run
		b = append(b, sub(10, slices.Concat([]byte{1}, big))...)
		for range 2 {
			b = append(append(b, 7<<3), big...)                                        // mxcsr
			b = append(b, sub(13, slices.Concat(sub(2, big), []byte{5 << 3}, big))...) // packed; k is 64 bits wide
		}
		return sub(3, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"xmm", "st", "mxcsr", "AVX"}; !slices.Equal(got.State.Wide, want) {
		t.Errorf("too wide: %q, want %q", got.State.Wide, want)
	}
	if v := got.State.FX.MXCSR(); v != 5 {
		t.Errorf("MXCSR %#x, want 5", v)
	}
	if s := &got.State; s.STLen != 136 || s.XMMLen != 268 {
		t.Errorf("st_space and xmm_space of %d and %d bytes, want 136 and 268", s.STLen, s.XMMLen)
	}
}
