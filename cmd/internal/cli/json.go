package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// WriteJSON prints a document.
func (s *IO) WriteJSON(doc any) error {
	b, err := EncodeJSON(doc, 0)
	if err == nil {
		s.Out.Write(b) // what fails shows in the next write, too
		err = s.Out.WriteByte('\n')
	}
	return err
}

// EncodeJSON spells a value whose first line starts at a column, without a newline at
// the end.
func EncodeJSON(v any, column int) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent(strings.Repeat(" ", column), "  ")
	err := enc.Encode(v)
	return escapeJSON(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), err
}

// escapeJSON spells the characters of a document that a terminal would obey or not
// show as \u escapes: encoding/json leaves all above U+001F as they are. The document
// decodes to the same.
func escapeJSON(doc []byte) []byte {
	plain := 0
	for plain < len(doc) && doc[plain] < 0x7f { // to the end of nearly all
		plain++
	}
	out, doc := doc[:plain:plain], doc[plain:]
	for len(doc) > 0 {
		r, n := utf8.DecodeRune(doc)
		switch {
		case !escaped(r):
			out = append(out, doc[:n]...)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		doc = doc[n:]
	}
	return out
}

// escaped reports whether a character of a document has to be escaped: those below
// U+0020 are white space between its tokens.
func escaped(r rune) bool { return r >= ' ' && !printable(r) }
