package main

import (
	"bytes"
	"io"
	"testing"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

// TestJSONStream compares a document that is written piece by piece with the same
// one written at once.
func TestJSONStream(t *testing.T) {
	type head struct {
		Name string   `json:"name"`
		List []string `json:"list"`
	}
	type end struct {
		Last []string `json:"last"`
		Null *int     `json:"null"`
	}
	type inner struct {
		head
		end
	}
	type outer struct {
		Empty []string `json:"empty"`
		List  []inner  `json:"list"`
	}
	in := func(name string, list ...string) inner {
		return inner{head{name, append([]string{}, list...)}, end{Last: append([]string{"[]"}, list...)}}
	}
	tests := []outer{
		{List: []inner{}},
		{List: []inner{in("a")}},
		{List: []inner{in("a", "<x>")}},
		{List: []inner{in("a", "x", "[]"), in("[]"), in("b", "y")}},
	}
	for _, doc := range tests {
		doc.Empty = []string{}
		var got, want bytes.Buffer
		whole := cli.NewIO("test", nil, &want, io.Discard)
		if err := whole.WriteJSON(doc); err != nil {
			t.Fatal(err)
		}
		whole.Finish(0, nil)
		s := cli.NewIO("test", nil, &got, io.Discard)
		w := &jsonStream{s: s}
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check(w.open(outer{Empty: []string{}, List: []inner{}}))
		for _, in := range doc.List {
			check(w.open(head{in.Name, []string{}}))
			for _, v := range in.List {
				check(w.element(v))
			}
			check(w.close(in.end))
		}
		check(w.close(nil))
		s.Finish(0, nil)
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("got\n%s\nwant\n%s", &got, &want)
		}
	}
}
