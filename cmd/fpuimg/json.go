package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// jsonStream writes a document whose long lists are not in memory. Its bytes are
// those of [cli.IO.WriteJSON].
type jsonStream struct {
	s    *cli.IO
	full []bool // the lists that are open, outermost first: does it have an element?
}

// open writes an object whose last field is a list, empty in v, and leaves the list
// open for the elements that follow.
func (w *jsonStream) open(v any) error {
	b, err := w.encode(v)
	if err != nil {
		return err
	}
	at := bytes.LastIndex(b, []byte("[]"))
	w.full = append(w.full, false)
	_, err = w.s.Out.Write(b[:at+1])
	return err
}

// element writes an element of the innermost list.
func (w *jsonStream) element(v any) error {
	b, err := w.encode(v)
	if err == nil {
		_, err = w.s.Out.Write(b)
	}
	return err
}

// encode spells a value, after what separates it from its place's last element.
func (w *jsonStream) encode(v any) ([]byte, error) {
	column := 4 * len(w.full)
	b, err := cli.EncodeJSON(v, column)
	if len(w.full) == 0 || err != nil {
		return b, err
	}
	start := "\n" + strings.Repeat(" ", column)
	if last := len(w.full) - 1; w.full[last] {
		start = "," + start
	} else {
		w.full[last] = true
	}
	return append([]byte(start), b...), nil
}

// close ends the innermost list and its object.
func (w *jsonStream) close() error {
	last := len(w.full) - 1
	indent := strings.Repeat(" ", 4*last)
	var end string
	if w.full[last] {
		end = "\n" + indent + "  "
	}
	end += "]\n" + indent + "}"
	if last == 0 {
		end += "\n"
	}
	w.full = w.full[:last]
	_, err := w.s.Out.WriteString(end)
	return err
}

func baseName(path string) string {
	if path == "-" {
		return path
	}
	return filepath.Base(path)
}

// profileJSON returns the profile document of a CPU, null for an unknown one.
func profileJSON(c *xstate.CPU) (json.RawMessage, error) {
	if c == nil {
		return json.RawMessage("null"), nil
	}
	return json.Marshal(cpuid.NewProfile(c))
}
