package convert

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
)

// TestEditor compares edits of a stream, read in pieces of every size, with edits of a
// slice.
func TestEditor(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		old := make([]byte, rnd.IntN(60))
		for i := range old {
			old[i] = byte(rnd.Uint32())
		}
		want, edits := slices.Clone(old), []Edit{}
		for at := 0; at < len(old); {
			n := min(1+rnd.IntN(12), len(old)-at)
			if rnd.IntN(2) == 0 {
				e := Edit{Offset: int64(at), Old: slices.Clone(old[at:][:n]), New: make([]byte, n)}
				for i := range e.New {
					e.New[i] = byte(rnd.Uint32())
				}
				copy(want[at:], e.New)
				edits = append(edits, e)
			}
			at += n
		}
		wrong := rnd.IntN(4) == 0 && len(edits) > 0
		if wrong {
			e := &edits[rnd.IntN(len(edits))]
			e.Old[rnd.IntN(len(e.Old))]++
		}
		for _, r := range []io.Reader{bytes.NewReader(old), iotest.OneByteReader(bytes.NewReader(old)), iotest.HalfReader(bytes.NewReader(old)), iotest.DataErrReader(bytes.NewReader(old))} {
			got, err := io.ReadAll(&editor{r: r, edits: edits})
			if wrong != errors.Is(err, ErrOldBytes) || !wrong && (err != nil || !bytes.Equal(got, want)) {
				t.Fatalf("%x by %v: %x, %v; want %x, wrong %t", old, edits, got, err, want, wrong)
			}
		}
	}
}
