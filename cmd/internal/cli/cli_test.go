package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestEmptyValues(t *testing.T) {
	tests := []struct{ arg, want string }{
		{"--file=", "--file has an empty value"},
		{"-f", "--file has an empty value"},
		{"--names=", "--names has an empty value"},
		{"--hosts=", "--hosts has an empty value"},
		{"--file=x", ""},
		{"--names=x", ""},
		{"--on", ""},
		{"argument", ""},
	}
	for _, tt := range tests {
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		fs.StringP("file", "f", "", "`FILE`")
		fs.StringSlice("names", nil, "names")
		fs.StringArray("hosts", nil, "hosts")
		fs.Bool("on", false, "on")
		got := ""
		if err := ParseFlags(fs, []string{tt.arg, ""}, "help"); err != nil {
			got = err.Error()
			if _, ok := errors.AsType[*UsageError](err); !ok {
				t.Errorf("%s: a %T", tt.arg, err)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.arg, got, tt.want)
		}
	}
}

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

// TestError gives each of joined errors a line, however they were joined.
func TestError(t *testing.T) {
	a, b, c := errors.New("a"), fmt.Errorf("b: %w", fs.ErrExist), errors.New("c")
	for _, err := range []error{
		errors.Join(a, b, c),
		errors.Join(errors.Join(a, b), errors.Join(errors.Join(c))),
		Hinted(errors.Join(a, errors.Join(b, c)), "do it"),
	} {
		var out strings.Builder
		NewIO("prog", nil, io.Discard, &out).Error(err)
		if want := "prog: error: a\nprog: error: b: file already exists\nprog: error: c\n"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
}

// TestRelease holds the version to the newest release of the changelog.
func TestRelease(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^## \[(\d.*)\] - (.*)$`).FindStringSubmatch(string(b))
	if m == nil || m[1] != Release || m[2] != ReleaseDate {
		t.Errorf("the newest release of CHANGELOG.md is %q, want [%s] - %s", m, Release, ReleaseDate)
	}
}

// full is a file system without room.
type full struct{}

var errFull = errors.New("no room")

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestFinish tells of a standard output that fails once, whoever met it first.
func TestFinish(t *testing.T) {
	for name, write := range map[string]func(s *IO) error{
		"at the end":   func(s *IO) error { _, err := s.Out.WriteString("x"); return err },
		"in the midst": func(s *IO) error { _, err := s.Out.Write(make([]byte, 1<<20)); return err },
	} {
		var talk strings.Builder
		s := NewIO("program", nil, full{}, &talk)
		code := s.Finish(OK, write(s))
		if n := strings.Count(talk.String(), "no room"); code != Damaged || n != 1 {
			t.Errorf("%s: exit code %d, told %d times: %s", name, code, n, talk.String())
		}
	}
}
