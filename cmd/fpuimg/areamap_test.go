package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// area builds the states of components from words as the map draws them: "[AVX]",
// "(PKRU)", "!TILECFG!", and a bare name for init.
func area(t *testing.T, words string) (out statuses) {
	t.Helper()
	for word := range strings.FieldsSeq(words) {
		state := xstate.Init
		for _, k := range marks {
			if k.open != " " && strings.HasPrefix(word, k.open) {
				state = k.state
			}
		}
		set, err := xstate.ParseFeatures(strings.Trim(word, "[]()!"))
		if err != nil {
			t.Fatal(err)
		}
		out[state] |= set
	}
	return out
}

func TestAreaMap(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	s := cli.NewIO("fpuimg", nil, io.Discard, io.Discard)
	const everything = ^xstate.Features(0)
	tests := []struct {
		name  string
		areas []string
		shown xstate.Features
		width int
		want  []string // of all areas, one after the other
	}{
		{"one line", []string{"[x87] SSE [AVX]"}, everything, 40,
			[]string{"[x87] SSE [AVX]"}},
		{"MPX is a gap", []string{"[x87] [SSE] AVX opmask"}, everything, 40,
			[]string{"[x87][SSE] AVX - opmask "}},
		{"APX has the place of MPX", []string{"[x87] [SSE] AVX [APX] opmask"}, everything, 40,
			[]string{"[x87][SSE] AVX [APX] opmask "}},
		{"MPX has the place of APX", []string{"[x87] SSE AVX (BNDREGS) [BNDCSR] [opmask]"}, everything, 60,
			[]string{"[x87] SSE  AVX (BNDREGS)[BNDCSR][opmask]"}},
		{"half of MPX", []string{"[x87] SSE AVX BNDREGS opmask"}, everything, 60,
			[]string{"[x87] SSE  AVX  BNDREGS - opmask "}},
		{"AMX after a hole", []string{"[Hi16_ZMM] !TILECFG! !TILEDATA!"}, everything, 60,
			[]string{"-[Hi16_ZMM]-!TILECFG!!TILEDATA!"}},
		{"what is not shown is no gap", []string{"[AVX] (PKRU)"}, 1<<xstate.AVX | 1<<xstate.PKRU, 40,
			[]string{"[AVX](PKRU)"}},
		{"kernel components are no gap", []string{"[PKRU] [PASID] [TILECFG]"}, everything, 40,
			[]string{"-[PKRU][PASID][TILECFG]"}},
		{"equal components below each other", []string{"[x87] SSE AVX opmask", "[x87] [SSE]", "[x87] [SSE] [opmask] (PKRU)"}, everything, 60,
			[]string{"[x87] SSE  AVX - opmask ", "[x87][SSE]", "[x87][SSE]------[opmask]-(PKRU)"}},
		{"a line that has nothing for one area", []string{"[x87] [SSE] [AVX] [PKRU]", "[x87] [SSE]", "[x87] [SSE] PKRU"}, everything, 15,
			[]string{"[x87][SSE][AVX]", "-[PKRU]", "[x87][SSE]", "[x87][SSE]-----", "- PKRU "}},
		{"nothing", []string{"", "[x87]"}, everything, 40,
			[]string{"-", "[x87]"}},
		{"no room at all", []string{"[x87] [ZMM_Hi256]"}, everything, -3,
			[]string{"[x87]", "-[ZMM_Hi256]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var areas []statuses
			for _, words := range tt.areas {
				areas = append(areas, area(t, words))
			}
			m := newAreaMap(areas, tt.shown, tt.width)
			var got []string
			for i := range areas {
				got = append(got, m.draw(s, &areas[i])...)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// TestAreaMapOfEverything fits all components at once into what a usual row leaves of
// 80 columns, in three lines.
func TestAreaMapOfEverything(t *testing.T) {
	s := cli.NewIO("fpuimg", nil, io.Discard, io.Discard)
	var all statuses
	for f := range xstate.Known.All() {
		if !f.Component().Supervisor {
			all[xstate.InUse] |= f.Mask()
		}
	}
	const width = 45
	lines := newAreaMap([]statuses{all}, xstate.Known, width).draw(s, &all)
	for _, line := range lines {
		if len(line) > width {
			t.Errorf("wider than %d: %s", width, line)
		}
	}
	if len(lines) > 3 {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}

func TestAreaMapLegend(t *testing.T) {
	tests := []struct {
		area  string
		width int
		want  string
	}{
		{"[x87] SSE", 40, "AREA: [in use] init"},
		{"[x87] SSE (AVX) !TILECFG!", 40, "AREA: [in use] (zero) init !lost!"},
		{"[x87] SSE (AVX) !TILECFG!", 20, "AREA"},
		{"", 40, "AREA"},
	}
	for _, tt := range tests {
		m := newAreaMap([]statuses{area(t, tt.area)}, xstate.Known, tt.width)
		if got := m.legend(tt.width); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.area, got, tt.want)
		}
	}
}
