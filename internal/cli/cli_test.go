package cli

import (
	"errors"
	"testing"
)

func TestUnknown(t *testing.T) {
	words := []string{"none", "fxsave", "xsave", "f32", "f64"}
	const all = "the formats are none, fxsave, xsave, f32, f64"
	tests := []struct{ word, want string }{
		{"xsav", "did you mean --to=xsave? " + all},
		{"XSAVE", "did you mean --to=xsave? " + all},
		{"fx", "did you mean --to=fxsave? " + all},     // begins so
		{"f65", "did you mean --to=f64? " + all},       // one letter off
		{"fxxsav", "did you mean --to=fxsave? " + all}, // two
		{"f46", all}, // two of three say nothing
		{"x87", all},
		{"", all},
	}
	for _, tt := range tests {
		got := Unknown(errors.New("unknown"), "--to=", tt.word, "the formats", words).Hint
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.word, got, tt.want)
		}
	}
}
