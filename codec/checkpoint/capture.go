package checkpoint

import (
	"bufio"
	"bytes"
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

// readCapture reads the checkpoint that criu-image-streamer captured: markers, each after
// its length of 32 bits, and between them the pieces of the files. One that is cut off
// has a problem.
func readCapture(path string, r *bufio.Reader, b *budget) ([]Found, error) {
	h := &held{map[string][]byte{}, func(name string) string { return path + ":" + name }, map[string]bool{}}
	files := map[string]*bytes.Buffer{}
	var at int64
	fail := func(field string, err error) error {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return &codec.FormatError{Path: path, Offset: at, Field: field, Err: err}
	}
	var fault error
	var current *bytes.Buffer
	for fault == nil {
		var word [4]byte
		if _, err := io.ReadFull(r, word[:]); err != nil {
			fault = fail("marker", err)
			break
		}
		n := binary.LittleEndian.Uint32(word[:])
		if n > maxMarker {
			fault = fail("marker", fmt.Errorf("of %d bytes is longer than any", n))
			break
		}
		raw := make([]byte, n)
		if _, err := io.ReadFull(r, raw); err != nil {
			fault = fail("marker", err)
			break
		}
		m, ok := parseMarker(raw)
		if !ok {
			fault = fail("marker", errors.New("malformed"))
			break
		}
		at += 4 + int64(n)
		if m.end {
			break
		}
		if m.name != "" {
			if current = files[m.name]; current == nil && (isImage(m.name) || isPagemap(m.name)) {
				current = new(bytes.Buffer)
				files[m.name] = current
				if !b.hold(fileHeld) {
					return nil, fail("file_data", errTooMuch)
				}
			} else if current == nil && len(h.left) < maxLeft {
				h.leave(m.name)
			}
		}
		if m.data == 0 {
			continue
		}
		size := int64(m.data)
		if size < 0 {
			fault = fail("file_data", fmt.Errorf("%d bytes", m.data))
			break
		}
		w := io.Writer(io.Discard)
		if current != nil {
			if size > codec.MaxImage-int64(current.Len()) {
				return nil, fail("file_data", codec.ErrTooLarge)
			}
			if !b.hold(size) {
				return nil, fail("file_data", errTooMuch)
			}
			w = current
		}
		copied, err := io.CopyN(w, r, size)
		if at += copied; err != nil {
			fault = fail("file_data", err)
		}
	}
	for name, data := range files {
		h.files[name] = data.Bytes()
	}
	c, err := newCheckpoint(path, KindCRIU, h)
	if err != nil {
		if fault != nil {
			err = fault
		}
		return nil, err
	}
	c.problem(fault)
	c.ReadOnly = "a capture of criu-image-streamer; unpack it first: criu-image-streamer extract"
	return found(c, nil)
}
