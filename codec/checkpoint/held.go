package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// held is image files that are held in memory, and can only be read.
type held struct {
	files map[string][]byte
	label func(name string) string
	left  map[string]bool // images of memory that are there, and are not held
}

func (h *held) Open(name string) (io.ReaderAt, int64, error) {
	b, ok := h.files[name]
	switch {
	case ok:
	case h.left[name]:
		return nil, 0, fmt.Errorf("%s: %w", h.label(name), errLeft)
	default:
		return nil, 0, &fs.PathError{Op: "open", Path: h.label(name), Err: fs.ErrNotExist}
	}
	return bytes.NewReader(b), int64(len(b)), nil
}

func (h *held) Names() ([]string, error) {
	return slices.AppendSeq(slices.Collect(maps.Keys(h.files)), maps.Keys(h.left)), nil
}

func (h *held) Label(name string) string { return h.label(name) }

// leave notes an image that is not held, if it tells what memory a task has.
func (h *held) leave(name string) {
	if strings.HasPrefix(name, "mm-") && strings.HasSuffix(name, ".img") {
		h.left[name] = true
	}
}

var errLeft = errors.New("memory is not read from such files; unpack them")

// maxLeft bounds the images of memory whose names are remembered.
const maxLeft = 1 << 16
