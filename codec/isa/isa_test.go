package isa

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// TestFeatureNames: the policy looks features up by these names.
func TestFeatureNames(t *testing.T) {
	seen := map[string]bool{}
	for f := none + 1; f < numFeatures; f++ {
		if _, ok := xstate.LookupFlag(f.String()); !ok {
			t.Errorf("feature %d: xstate knows no flag %q", f, f)
		}
		if seen[f.String()] {
			t.Errorf("%s is there twice", f)
		}
		seen[f.String()] = true
	}
}

func decodeHex(t *testing.T, s string) (Inst, bool) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return Decode(b)
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name, code string
		len        int
		features   string
		flow       Flow
		reads      Upper
		writes     Upper
	}{
		{"endbr64", "f3 0f 1e fa", 4, "", Next, 0, 0},
		{"vzeroupper", "c5 f8 77", 3, "avx", Next, 0, HiYMM},
		{"vpxor ymm16, ymm16, ymm16", "62 a1 7d 20 ef c0", 6, "avx512f avx512vl", Next, 0, 1 << 16},
		{"vmovdqu64 zmm17{k1}, [rdi]", "62 e1 fe 49 6f 0f", 6, "avx512f", Next, 1<<17 | 1<<33, 0},
		{"vmovdqu64 zmm17{k1}{z}, [rdi]", "62 e1 fe c9 6f 0f", 6, "avx512f", Next, 1 << 33, 1 << 17},
		{"vpcmpeqb k2{k1}, ymm16, [rsi]", "62 f1 7d 21 74 16", 6, "avx512bw avx512vl", Next, 1<<16 | 1<<33, 1 << 34},
		{"vpaddd xmm1, xmm2, xmm3", "c5 e9 fe cb", 4, "avx", Next, 0, 1 << 1},
		{"vpaddd ymm1, ymm2, ymm3", "c5 ed fe cb", 4, "avx2", Next, 1<<2 | 1<<3, 1 << 1},
		{"paddd xmm1, xmm2", "66 0f fe ca", 4, "", Next, 0, 0},
		{"xsavec [rsp+0x40]", "0f c7 64 24 40", 5, "xsavec", Next, HiYMM | ZMM16 | Mask, 0},
		{"syscall", "0f 05", 2, "", Syscall, 0, 0},
		{"jmp rax", "ff e0", 2, "", Indirect, 0, 0},
		{"tzcnt", "f3 0f bc c1", 4, "bmi1", Next, 0, 0},
		{"movabs", "48 b8 01 02 03 04 05 06 07 08", 10, "", Next, 0, 0},
	} {
		i, ok := decodeHex(t, tt.code)
		if !ok {
			t.Errorf("%s: not decoded", tt.name)
			continue
		}
		var features []string
		for f := range i.Features().All() {
			features = append(features, f.String())
		}
		reads, writes := i.Upper()
		if i.Len != tt.len || strings.Join(features, " ") != tt.features || i.Flow() != tt.flow || reads != tt.reads || writes != tt.writes {
			t.Errorf("%s: %d bytes, %q, flow %d, reads %x, writes %x; want %d, %q, %d, %x, %x",
				tt.name, i.Len, features, i.Flow(), reads, writes, tt.len, tt.features, tt.flow, tt.reads, tt.writes)
		}
	}
}

// Lengths of APX instructions, which iced knows none of, as binutils 2.44 has them; 0 is
// undefined.
func TestAPX(t *testing.T) {
	for code, want := range map[string]int{
		"d5 18 8b 04 24 90":                5,  // mov rax, [r20]
		"d5 48 c7 c0 11 22 33 44 90":       8,  // mov rax, 0x44332211, with r0 to r15 alone
		"d5 00 a1 11 22 33 44 55 66 77 88": 11, // jmpabs
		"d5 00 74 11":                      0,
		"d5 80 30 00":                      0,
		"62 f4 fc 10 01 c8":                6,  // add r16, rax, rcx
		"62 f4 7c 18 81 1c 24 11 22 33 44": 11, // sbb eax, [rsp], 0x44332211
		"62 f4 7d 18 81 1c 24 11 22 33 44": 9,  // sbb ax, [rsp], 0x2211
		"62 f4 7c 08 f6 c0 11 22":          7,  // ctests al, 0x11
		"62 f4 7c 08 50 c0":                0,
	} {
		i, ok := decodeHex(t, code)
		if i.Len != want || ok != (want > 0) || ok && (!i.Features().Has(APX) || i.Flow() != Stop) {
			t.Errorf("%s: %d bytes, want %d", code, i.Len, want)
		}
	}
}

// Bytes behind an instruction do not matter, and no part of one is an instruction.
func FuzzDecode(f *testing.F) {
	for _, code := range []string{"f30f1efa", "c5f877", "62e1fe496f0f", "c4e2699014cd12345678", "8fe8688dca35", "0f0f0b12bf", "c8123456", "66f20f7800", "d50c0f05", "62f47c1881c01234", "9bd93c24", "f048b0"} {
		b, err := hex.DecodeString(code)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i, ok := Decode(b)
		if ok != (i.Len > 0) || i.Len > min(len(b), 15) {
			t.Fatalf("%x: %v, %d bytes", b, ok, i.Len)
		}
		for n := range min(len(b), 16) + 1 {
			part, decoded := Decode(b[:n])
			if decoded != (ok && n >= i.Len) || decoded && part != i {
				t.Fatalf("%x: %v, of which %d bytes are %v", b, i, n, part)
			}
		}
		checkSkip(t, b)
		if !ok {
			return
		}
		if reads, writes := i.Upper(); (reads|writes)&^(HiYMM|ZMM16|Mask) != 0 {
			t.Errorf("%x: reads %x, writes %x", b, reads, writes)
		}
		all := i.Features()
		if faults := i.Faults(); faults.Or(all) != all {
			t.Errorf("%x: needs %x, without which of %x it faults", b, all, faults)
		}
		if flow := i.Flow(); flow > Stop {
			t.Errorf("%x: flow %d", b, flow)
		}
		i.Target(0)
	})
}

// checkSkip checks that what is skipped is what Decode says, and nothing that matters.
func checkSkip(t *testing.T, b []byte) {
	n, next := Skip(b)
	if n == 0 {
		return
	}
	i, ok := Decode(b)
	if !ok || i.Len != n || i.Features() != (Features{}) || next != (i.Flow() == Next) || i.Map > Map0F || i.Map == Map0F && i.Op == 0xa2 {
		t.Errorf("%x: %d bytes are skipped, of %v", b, n, i)
	}
}
