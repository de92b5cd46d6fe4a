package checkpoint

import (
	"errors"

	"github.com/fpuimg/fpuimg/codec/internal/rawtar"
)

// Limits on what an archive may make the reader hold. A core image is a few KiB.
const (
	maxHeld   = 256 << 20 // see budget
	heldRatio = 8         // see budget
	maxName   = 4 << 10   // of a member; no system takes a longer path
	dirHeld   = 16 << 10  // what a directory with images counts for, besides them
	fileHeld  = 256       // what an image counts for, besides its bytes
)

// budget bounds what one input costs, over all its blobs and their members together:
// what is held of them stays below maxHeld and heldRatio times what was read.
type budget struct {
	rawtar.Budget
	held  int64
	spool *Spool // nil: memory that can be read but once is not kept
}

// hold counts n bytes more. It reports whether they are within the bound.
func (b *budget) hold(n int64) bool {
	b.held += n
	return b.held <= b.mayHold()
}

func (b *budget) mayHold() int64 { return maxHeld + heldRatio*b.In }

var errTooMuch = errors.New("more images than a checkpoint has")
