package vmtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// row is one line of the verdict table.
type row struct {
	image, on, cap      string
	predicted, happened string
	agree               bool
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

// tsv is the whole table, for programs.
func tsv(rows []row) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "image\trestored on\t--cpu-cap\tpredicted\thappened\tagree")
	for _, r := range rows {
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\t%s\n", r.image, r.on, r.cap, r.predicted, r.happened, yesNo(r.agree))
	}
	return b.Bytes()
}

// folded is the table for readers: values of --cpu-cap and machines with the same
// outcome share a line.
func folded(rows []row) []byte {
	// The lines of one image on one machine, by outcome.
	var lines []row
	for _, r := range rows {
		i := slices.IndexFunc(lines, func(l row) bool {
			return l.image == r.image && l.on == r.on && l.predicted == r.predicted && l.happened == r.happened && l.agree == r.agree
		})
		if i < 0 {
			lines = append(lines, r)
		} else {
			lines[i].cap += "," + r.cap
		}
	}
	var out []row
	for _, r := range lines {
		i := slices.IndexFunc(out, func(l row) bool {
			return l.image == r.image && l.cap == r.cap && l.predicted == r.predicted && l.happened == r.happened && l.agree == r.agree
		})
		if i < 0 {
			out = append(out, r)
		} else {
			out[i].on += " " + r.on
		}
	}
	slices.SortStableFunc(out, func(a, b row) int { return strings.Compare(a.image, b.image) })
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\t--cpu-cap\tPREDICTED\tHAPPENED\tAGREE\tRESTORED ON")
	for _, r := range out {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.image, r.cap, r.predicted, r.happened, yesNo(r.agree), r.on)
	}
	w.Flush()
	return b.Bytes()
}

func TestFolded(t *testing.T) {
	rows := []row{
		{"a", "x", "default", "intact", "intact", true},
		{"a", "x", "fpu", "refuses", "refuses", true},
		{"a", "x", "cpu", "refuses", "refuses", true},
		{"a", "y", "default", "intact", "intact", true},
		{"a", "y", "fpu", "refuses", "intact", false},
		{"a", "y", "cpu", "refuses", "refuses", true},
		{"b", "x", "default", "intact", "intact", true},
	}
	const want = `IMAGE  --cpu-cap  PREDICTED  HAPPENED  AGREE  RESTORED ON
a      default    intact     intact    yes    x y
a      fpu,cpu    refuses    refuses   yes    x
a      fpu        refuses    intact    NO     y
a      cpu        refuses    refuses   yes    y
b      default    intact     intact    yes    x
`
	if got := string(folded(rows)); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	if got := strings.Count(string(tsv(rows)), "\n"); got != 1+len(rows) {
		t.Errorf("%d lines for %d rows", got, len(rows))
	}
}
