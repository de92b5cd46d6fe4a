package checkpoint

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fpuimg/fpuimg/codec"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of a marker (criu-image-streamer, proto/image.proto). The bytes of the
// current file follow a marker that has fileData.
const (
	markerFilename = 2
	markerFileData = 3
	markerImageEOF = 5

	maxMarker = 300 // a file name of 255 bytes, and the rest
)

// marker is what stands between the pieces of files in a capture.
type marker struct {
	name string
	data uint64
	end  bool
}

// parseMarker returns ok false for what is no marker.
func parseMarker(b []byte) (m marker, ok bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return m, false
		}
		b = b[n:]
		switch {
		case num == markerFilename && typ == protowire.BytesType:
			name, n := protowire.ConsumeString(b)
			if n < 0 {
				return m, false
			}
			m.name, b = name, b[n:]
		case num >= 1 && num <= markerImageEOF && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return m, false
			}
			switch num {
			case markerFileData:
				m.data = v
			case markerImageEOF:
				m.end = v != 0
			}
			b = b[n:]
		default:
			return m, false
		}
	}
	return m, true
}

// isCapture tells a capture of criu-image-streamer by its first marker, which names a file.
func isCapture(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	n := binary.LittleEndian.Uint32(head)
	if n > maxMarker || len(head)-4 < int(n) {
		return false
	}
	m, ok := parseMarker(head[4:][:n])
	return ok && m.name != ""
}

// readCapture reads the checkpoint that criu-image-streamer captured. One that is cut off
// has a problem.
func readCapture(path string, r *bufio.Reader, b *budget) ([]Found, error) {
	c := &capture{path: path, r: r, budget: b, files: map[string]*bytes.Buffer{}}
	c.held = &held{map[string][]byte{}, func(name string) string { return path + ":" + name }, map[string]bool{}}
	fault := c.read()
	if c.tooMuch {
		return nil, fault
	}
	for name, data := range c.files {
		c.held.files[name] = data.Bytes()
	}
	ckpt, err := newCheckpoint(path, KindCRIU, c.held)
	if err != nil {
		return nil, cmp.Or(fault, err)
	}
	ckpt.problem(fault)
	ckpt.ReadOnly = "a capture of criu-image-streamer; unpack it first: criu-image-streamer extract"
	return found(ckpt, nil)
}

// capture is markers, each after its length of 32 bits, and between them the pieces of
// the files.
type capture struct {
	path    string
	r       *bufio.Reader
	at      int64 // of what was read
	budget  *budget
	held    *held
	files   map[string]*bytes.Buffer // that are needed
	tooMuch bool                     // it asks for more than is held of any input
}

func (c *capture) fail(field string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &codec.FormatError{Path: c.path, Offset: c.at, Field: field, Err: err}
}

// refuse is fail for what no checkpoint asks for.
func (c *capture) refuse(err error) error {
	c.tooMuch = true
	return c.fail("file_data", err)
}

// read reads the files to the end of the image.
func (c *capture) read() error {
	var current *bytes.Buffer
	for {
		m, err := c.marker()
		if err != nil || m.end {
			return err
		}
		if m.name != "" {
			if current, err = c.file(m.name); err != nil {
				return err
			}
		}
		if err := c.data(current, m.data); err != nil {
			return err
		}
	}
}

func (c *capture) marker() (m marker, err error) {
	var word [4]byte
	if _, err := io.ReadFull(c.r, word[:]); err != nil {
		return m, c.fail("marker", err)
	}
	n := binary.LittleEndian.Uint32(word[:])
	if n > maxMarker {
		return m, c.fail("marker", fmt.Errorf("of %d bytes is longer than any", n))
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(c.r, raw); err != nil {
		return m, c.fail("marker", err)
	}
	m, ok := parseMarker(raw)
	if !ok {
		return m, c.fail("marker", errors.New("malformed"))
	}
	c.at += 4 + int64(n)
	return m, nil
}

// file returns what holds a file, nil for one that is not needed.
func (c *capture) file(name string) (*bytes.Buffer, error) {
	f := c.files[name]
	switch {
	case f != nil:
	case isImage(name) || isPagemap(name):
		f = new(bytes.Buffer)
		c.files[name] = f
		if !c.budget.hold(fileHeld) {
			return nil, c.refuse(errTooMuch)
		}
	case len(c.held.left) < maxLeft:
		c.held.leave(name)
	}
	return f, nil
}

// data reads bytes of the current file.
func (c *capture) data(current *bytes.Buffer, n uint64) error {
	size := int64(n)
	if size < 0 {
		return c.fail("file_data", fmt.Errorf("%d bytes", n))
	}
	w := io.Writer(io.Discard)
	if current != nil {
		if size > codec.MaxImage-int64(current.Len()) {
			return c.refuse(codec.ErrTooLarge)
		}
		if !c.budget.hold(size) {
			return c.refuse(errTooMuch)
		}
		w = current
	}
	copied, err := io.CopyN(w, c.r, size)
	if c.at += copied; err != nil {
		return c.fail("file_data", err)
	}
	return nil
}
