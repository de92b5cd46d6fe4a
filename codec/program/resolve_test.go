package program

import (
	"debug/elf"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// Every resolver chooses what the slot that it filled holds.
func TestResolve(t *testing.T) {
	for _, name := range testcmd.Rows(corpus.Names(t)) {
		truth := corpus.Load(t, name)
		for _, proc := range truth.Processes {
			p := lookAt(t, name, proc.PID)
			slots, _ := p.slots()
			n := 0
			for _, s := range slots {
				if s.kind != elf.R_X86_64_IRELATIVE {
					continue
				}
				n++
				got, err := p.choice(s.irelative())
				if err != nil {
					t.Errorf("%s: %v", name, err)
				} else if got != s.value {
					t.Errorf("%s: resolver %#x of %v chooses %#x, want %#x", name, s.irelative(), s.names, got, s.value)
				}
			}
			t.Logf("%s %d: %d", name, proc.PID, n)
		}
	}
}

// TestChooseOf: what a resolver chooses with any of many records is what it chooses with
// each, whatever it has been run with before.
func TestChooseOf(t *testing.T) {
	const at = 0x800 // of the record, in the data
	data := make([]byte, codec.PageSize)
	code := data[:0]
	code = append(code, 0xf6, 0x05)                         // test $1, record+20
	code = binary.LittleEndian.AppendUint32(code, at+20-7)  //
	code = append(code, 1, 0x74, 6)                         // je 15
	code = append(code, 0xb8, 0x22, 0, 0, 0, 0xc3)          // mov $0x22, %eax; ret
	code = append(code, 0x0f, 0xb6, 0x05)                   // movzbl record+24, %eax
	code = binary.LittleEndian.AppendUint32(code, at+24-22) //
	_ = append(code, 0x3c, 7, 0x75, 1, 0xf4, 0xc3)          // cmp $7, %al; jne 27; hlt; ret
	open := func() *Process {
		l, err := small(t, exe(t), data, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		p, err := l.Open(7, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	together, each := open(), open()
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var list []*Features
		want := map[uint64]bool{}
		for range 30 {
			f := &Features{record{addr: smallData + at, shape: shapes[0], b: make([]byte, before+behind)}}
			f.b[before+20], f.b[before+24] = byte(random.IntN(4)), byte(random.IntN(40))
			list = append(list, f)
			if to, err := each.Choose(smallData, f); err == nil {
				want[to] = true
			} else if f.b[before+24] != 7 {
				t.Fatal(err)
			}
		}
		got := together.ChooseOf(smallData, list)
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Errorf("any of them chooses %#x, each %#x", got, slices.Sorted(maps.Keys(want)))
		}
	}
}
