package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// hidden are characters that no terminal may get from a name, one of each kind.
var hidden = []rune{
	0x00, 0x07, 0x1B, 0x7F, 0x80, 0x85, 0x9B, 0x9D, 0x9F, // controls of the terminal
	0x061C, 0x200E, 0x200F, 0x202A, 0x202E, 0x2066, 0x2069, // of the direction of text
	0x2028, 0x2029, // of lines
	0xA0, 0xAD, 0x034F, 0x115F, 0x180E, 0x200B, 0x200D, 0x2060, 0x3000, 0x3164, 0xFE0F, 0xFEFF, 0xFFA0, // blank or without a shape
	0xE000, 0xFFFF, 0xE0041, 0xE0100, 0x10FFFD, // of no common meaning; above U+FFFF
}

func TestPrintable(t *testing.T) {
	for _, r := range hidden {
		if got := Printable("a" + string(r) + "b"); got != "a\uFFFDb" {
			t.Errorf("%U: %q", r, got)
		}
	}
	if got := Printable("a\xFF\x9Bb"); got != "a\uFFFD\uFFFDb" {
		t.Errorf("no UTF-8: %q", got)
	}
	for _, s := range []string{"plain text", "Straße", "名前", "é", "🙂"} {
		if got := Printable(s); got != s {
			t.Errorf("%q: %q", s, got)
		}
	}
}

// TestJSONIsPrintable puts each character into every place of a document that takes
// text.
func TestJSONIsPrintable(t *testing.T) {
	for _, r := range append(hidden, 'é', '名', '🙂', '<', '"', '\\') {
		text := "a" + string(r) + "b"
		doc := map[string][]string{text: {text, "\\" + text, text + text}}
		var out bytes.Buffer
		s := NewIO("test", nil, &out, io.Discard)
		if err := s.WriteJSON(doc); err != nil {
			t.Fatal(err)
		}
		s.Finish(OK, nil)
		if line := strings.ReplaceAll(out.String(), "\n", ""); Printable(line) != line {
			t.Errorf("%U: %q", r, line)
		}
		var back map[string][]string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || fmt.Sprint(back) != fmt.Sprint(doc) {
			t.Errorf("%U: %q, %v", r, back, err)
		}
	}
	b, err := EncodeJSON("a\xFF\x9Bb", 0)
	if line := string(b); err != nil || Printable(line) != line {
		t.Errorf("no UTF-8: %q, %v", line, err)
	}
}
