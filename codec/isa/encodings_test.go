package isa

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// answer is what a decoder says of an encoding, or nothing if it decodes none.
type answer struct {
	len           int
	features      Features
	reads, writes Upper
}

func (a answer) String() string {
	if a.len == 0 {
		return "undefined"
	}
	var names []string
	for f := range a.features.All() {
		names = append(names, f.String())
	}
	return fmt.Sprintf("%d bytes, %q, reads %x, writes %x", a.len, names, a.reads, a.writes)
}

// all adds what the features imply.
func (a answer) all() answer {
	if a.features.Has(AVX512VL) {
		a.features = a.features.With(AVX512F)
	}
	return a
}

// iced's names of features that are not called so here.
var icedNames = map[string]Feature{
	"SSE3": SSE3, "SHA": SHA, "LZCNT": LZCNT, "CMPXCHG16B": CX16, "D3NOW": Amd3DNow, "D3NOWEXT": Amd3DNowExt, "MONITORX": MONITORX,
	"HLE_or_RTM": RTM, "CET_SS": SHSTK, "SGX1": SGX, "OSS": SGX, "SKINIT_or_SVM": SVM, "SEV_ES": SVM, "INVEPT": VMX, "INVVPID": VMX,
}

// What every x86-64 CPU has, or the kernel alone may use, or runs as a NOP elsewhere.
const icedBaseline = "INTEL8086 INTEL186 INTEL286 INTEL386 INTEL486 X64 FPU FPU287 FPU387 CMOV MMX SSE SSE2 CX8 FXSR CLFSH SYSCALL SEP MSR TSC " +
	"CPUID RDPMC MONITOR SMM SMAP WBNOINVD " +
	"MULTIBYTENOP PAUSE PREFETCHW PREFETCHWT1 PREFETCHITI CLDEMOTE CET_IBT"

// What Linux has no flag for, or never enables: the decoder does not know it.
const icedUnknown = "PADLOCK_ACE PADLOCK_PHE PADLOCK_RNG PADLOCK_GMI PADLOCK_UNDOC KL AESKLE WIDE_KL UINTR RAO_INT PTWRITE MCOMMIT " +
	"FRED LKGS WRMSRNS MSRLIST PCONFIG TSE TDX SEV_SNP RMPQUERY INVLPGB"

var disagreements = []struct {
	why   string
	where func(i *Inst, iced answer, features string) bool
	so    func(iced *answer, i *Inst)
}{
	{
		"Linux has no name for it, or never enables it",
		func(_ *Inst, _ answer, features string) bool {
			return features != "" && slices.Contains(strings.Fields(icedUnknown), strings.Fields(features)[0])
		},
		func(iced *answer, _ *Inst) { *iced = answer{} },
	}, {
		"iced 1.21 knows no APX",
		func(i *Inst, iced answer, _ string) bool {
			return iced.len == 0 && (i.Prefix&REX2 != 0 || i.Map == EVEX4)
		},
		func(iced *answer, i *Inst) { *iced = answer{len: i.Len, features: Features{}.With(APX)} },
	}, {
		"SDM vol. 2, LAHF: 64-bit mode needs the feature",
		func(i *Inst, _ answer, _ string) bool {
			return i.Map == OneByte && i.Prefix&REX2 == 0 && i.Op>>1 == 0x9e>>1
		},
		func(iced *answer, _ *Inst) { iced.features = iced.features.With(LAHF) },
	}, {
		"RDSSP runs as a NOP elsewhere",
		func(i *Inst, iced answer, _ string) bool {
			return i.Map == Map0F && i.Op == 0x1e && iced.features.Has(SHSTK)
		},
		func(iced *answer, _ *Inst) { iced.features = Features{} },
	}, {
		"XSAVE reads state that iced does not list",
		func(i *Inst, _ answer, _ string) bool {
			return i.Map == Map0F && (i.Op == 0xae || i.Op == 0xc7) && forms[i.row].attr&special != 0
		},
		func(iced *answer, _ *Inst) { iced.reads = HiYMM | ZMM16 | Mask },
	},
}

// The decoder says what iced-x86 says of encodings made systematically: of each map and
// opcode with what may stand before and behind it, or every [testcmd.Step]th of these.
// internal/test/encodings makes the file, and describes it.
func TestEncodings(t *testing.T) {
	f, err := os.Open("testdata/x86-encodings.tsv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	total, wrong := 0, 0
	counts := make([]int, len(disagreements))
	var bytes [15]byte
	check := func(at int, iced answer, features string, value uint8) {
		bytes[at] = value
		if total++; total%testcmd.Step != 0 {
			return
		}
		checkSkip(t, bytes[:])
		i, ok := Decode(bytes[:])
		var got answer
		if ok {
			got = answer{len: i.Len, features: i.Features()}
			got.reads, got.writes = i.Upper()
			if whole, ok := Decode(bytes[:i.Len]); !ok || whole != i {
				t.Errorf("%x: decoded as %v without what follows", bytes[:i.Len], whole)
			}
			if part, ok := Decode(bytes[:i.Len-1]); ok {
				t.Errorf("%x: decoded as %v without its last byte", bytes[:i.Len], part)
			}
		}
		if i.evex&7 != 0 && i.evex&128 == 0 {
			iced.writes &^= iced.reads &^ got.writes // what merges is only read here
		}
		want := iced.all()
		for n, d := range disagreements {
			if d.where(&i, iced, features) {
				d.so(&want, &i)
				counts[n]++
			}
		}
		if got.all() != want {
			if wrong++; wrong <= 20 {
				t.Errorf("%x: %v; iced says %v", bytes, got, iced)
			}
		}
	}
	var before int
	var defined [256]bool
	undefined := func() {
		for v, said := range defined {
			if !said {
				check(before, answer{}, "", uint8(v))
			}
		}
		defined = [256]bool{}
	}
	features := map[string]Features{}
	in := bufio.NewScanner(z)
	for n := 1; in.Scan(); n++ {
		col := strings.Split(in.Text(), "\t")
		if len(col) != 7 {
			t.Fatalf("line %d: %q", n, col)
		}
		if col[0] != "" || col[1] != "" {
			if n > 1 {
				undefined()
			}
			bytes = [15]byte{}
			before = copy(bytes[:], unhex(t, col[0]))
			copy(bytes[before+1:], unhex(t, col[1]))
		}
		set, ok := features[col[3]]
		if !ok {
			set = icedSet(t, col[3])
			features[col[3]] = set
		}
		length, err := strconv.Atoi(col[2])
		if err != nil {
			t.Fatal(err)
		}
		iced := answer{length, set, registers(t, col[4]), registers(t, col[5])}
		for _, v := range unhex(t, col[6]) {
			defined[v] = true
			check(before, iced, col[3], v)
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	undefined()
	for n, d := range disagreements {
		if counts[n] == 0 {
			t.Errorf("nowhere in the file: %s", d.why)
		}
		t.Logf("%d encodings: %s", counts[n], d.why)
	}
	if total < 4<<20 {
		t.Errorf("the file has only %d encodings", total)
	}
	t.Logf("%d of %d encodings differ from what iced says, besides these", wrong, total)
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// icedSet returns the features that iced names.
func icedSet(t *testing.T, s string) (set Features) {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "") }
	for _, name := range strings.Fields(s) {
		if slices.Contains(strings.Fields(icedBaseline+" "+icedUnknown), name) {
			continue
		}
		f, ok := icedNames[name]
		for g := range numFeatures {
			if plain(g.String()) == plain(name) {
				f, ok = g, true
			}
		}
		if !ok {
			t.Fatalf("iced's feature %s has no counterpart", name)
		}
		set = set.With(f)
	}
	return set
}

// registers returns the state above XMM of registers by name.
func registers(t *testing.T, s string) (set Upper) {
	for _, name := range strings.Fields(s) {
		n, err := strconv.ParseUint(strings.TrimLeft(name, "xyzmk"), 10, 5)
		if err != nil {
			t.Fatal(err)
		}
		if name[0] == 'k' {
			set |= maskReg(uint8(n))
		} else {
			set |= 1 << n
		}
	}
	return set
}
