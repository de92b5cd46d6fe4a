// Package rawtar walks a tar archive member by member and keeps the bytes: what was
// read can be written again as it stood, which archive/tar cannot do, since it
// normalises headers. archive/tar parses each header, through a tap that keeps its
// blocks; where members stand, and how their data is skipped and copied, is told here.
//
// The walker trusts nothing. Every length is checked before anything is allocated,
// and names are only reported, never used as paths.
package rawtar

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

const blockSize = 512

// maxHeader bounds the header blocks of one member, sparse map included. archive/tar
// bounds each pax header and long name.
const maxHeader = 16 << 20

var errHeader = fmt.Errorf("more than %d MiB of headers before a member", maxHeader>>20)

// Error is a malformed archive.
type Error struct {
	Offset int64 // of the block, in the uncompressed archive
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("tar: offset %#x: %s", e.Offset, e.Reason) }

// Member is one entry of an archive.
type Member struct {
	Name   string // as it is recorded, with pax and GNU records applied
	Type   byte   // as archive/tar names it
	Size   int64  // bytes that follow the header, padding excluded
	Sparse bool   // the data is not the file's content but a map and its pieces
	Offset int64  // of the first header block

	// Header is the member's header blocks: what pax and GNU records stand before
	// it, and its own.
	Header []byte
	main   int // where in Header its own block stands
	pax    int // where its pax header stands, -1 without one
}

// Regular reports whether the member is a plain file.
func (m *Member) Regular() bool {
	return (m.Type == tar.TypeReg || m.Type == tar.TypeCont) && !m.Sparse
}

// Reader walks an archive.
type Reader struct {
	in   input
	file io.ReadSeeker // nil: what is skipped must be read
	size int64         // of the file
	left int64         // of the current member's data
	pad  int64
}

// input reads an archive and counts. back is read first.
type input struct {
	back []byte
	buf  *bufio.Reader
	at   int64
}

func (in *input) Read(b []byte) (n int, err error) {
	if len(in.back) > 0 {
		n = copy(b, in.back)
		in.back = in.back[n:]
	} else {
		n, err = in.buf.Read(b)
	}
	in.at += int64(n)
	return n, err
}

// tap reads header blocks and keeps them.
type tap struct {
	in   *input
	kept []byte
	err  error
}

func (t *tap) Read(b []byte) (n int, err error) {
	if len(t.kept) > maxHeader {
		t.err = errHeader
		return 0, errHeader
	}
	n, t.err = t.in.Read(b)
	t.kept = append(t.kept, b[:n]...)
	return n, t.err
}

// NewReader walks a stream.
func NewReader(r io.Reader) *Reader {
	return &Reader{in: input{buf: bufio.NewReaderSize(r, 64<<10)}}
}

// NewSeeker walks a file of the given size from its present place, start, and skips
// over data without reading it.
func NewSeeker(f io.ReadSeeker, start, size int64) *Reader {
	return &Reader{in: input{buf: bufio.NewReaderSize(f, 16<<10), at: start}, file: f, size: size}
}

// Offset returns the place of the next byte.
func (r *Reader) Offset() int64 { return r.in.at }

// cut says that the archive ends too early. A compressed file that does has said so
// itself, in an error that wraps one of these.
func (r *Reader) cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %w", &Error{r.in.at, "the archive ends inside a member"}, io.ErrUnexpectedEOF)
	}
	return err
}

// skip moves n bytes on.
func (r *Reader) skip(n int64) error {
	if r.file == nil || n <= int64(len(r.in.back)+r.in.buf.Buffered()) {
		_, err := io.CopyN(io.Discard, &r.in, n)
		return r.cut(err)
	}
	if n > r.size-r.in.at {
		r.in.at = r.size
		return r.cut(io.ErrUnexpectedEOF)
	}
	if _, err := r.file.Seek(r.in.at+n, io.SeekStart); err != nil {
		return err
	}
	r.in.buf.Reset(r.file)
	r.in.back = nil
	r.in.at += n
	return nil
}

// Read reads the current member's data as it stands in the archive.
func (r *Reader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.in.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	return n, r.cut(err)
}

// CopyData writes the current member's data and padding as they stand.
func (r *Reader) CopyData(w io.Writer) error {
	n := r.left + r.pad
	r.left, r.pad = 0, 0
	_, err := io.CopyN(w, &r.in, n)
	return r.cut(err)
}

// Rest writes everything from the current place on: the blocks that end the
// archive, and what follows them.
func (r *Reader) Rest(w io.Writer) error {
	_, err := io.Copy(w, &r.in)
	return err
}

// Next moves to the next member. The error is io.EOF at the end of the archive, an
// [*Error] if it is malformed, else from the reader. At the end, tail is the blocks
// that were read to see it.
func (r *Reader) Next() (m *Member, tail []byte, err error) {
	if err := r.skip(r.left + r.pad); err != nil {
		return nil, nil, err
	}
	r.left, r.pad = 0, 0
	m = &Member{Offset: r.in.at, pax: -1}
	t := &tap{in: &r.in}
	tr := tar.NewReader(t)
	h, err := tr.Next()
	for err == nil && h.Typeflag == tar.TypeXGlobalHeader {
		for key, value := range h.PAXRecords { // tar obeys it, archive/tar does not
			if key == "path" || key == "size" || strings.HasPrefix(key, sparseKeys) {
				return nil, nil, &Error{m.Offset, fmt.Sprintf("a global header that gives every member the %s %q", key, value)}
			}
		}
		h, err = tr.Next()
	}
	m.Header = t.kept
	if err != nil {
		return nil, m.Header, r.fault(m, t.err, err)
	}
	m.Name, m.Type, m.Size, m.Sparse = h.Name, h.Typeflag, h.Size, h.Typeflag == tar.TypeGNUSparse
	for key := range h.PAXRecords {
		m.Sparse = m.Sparse || strings.HasPrefix(key, sparseKeys)
	}
	if err := m.split(h.PAXRecords); err != nil {
		return nil, nil, err
	}
	if m.Sparse && m.Type != tar.TypeGNUSparse { // the map may stand in the data, and was read
		r.in.back = m.Header[m.main+blockSize:]
		r.in.at -= int64(len(r.in.back))
		m.Header = m.Header[:m.main+blockSize]
	}
	switch m.Type {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		m.Size = 0 // as archive/tar has it
	case tar.TypeReg, tar.TypeCont:
		if strings.HasSuffix(m.Name, "/") { // as tar has it
			m.Type = tar.TypeDir
		}
	}
	r.left, r.pad = m.Size, -m.Size&(blockSize-1)
	return m, nil, nil
}

// sparseKeys begin the pax records of a sparse file (GNU tar manual, "Storing Sparse
// Files").
const sparseKeys = "GNU.sparse."

// fault says why a header cannot be read. read is what the reader last returned.
func (r *Reader) fault(m *Member, read, err error) error {
	switch {
	case err == io.EOF && allZero(m.Header):
		return io.EOF
	case read == errHeader:
		return &Error{m.Offset, read.Error()}
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return r.cut(err)
	case errors.Is(err, tar.ErrFieldTooLong):
		return &Error{m.Offset, "an extended header of more than 1 MiB is refused"}
	case errors.Is(err, tar.ErrHeader):
		return &Error{max(m.Offset, r.in.at-blockSize), "not a tar header, or one that contradicts itself"}
	}
	return err
}

// split finds the parts of a member's header. The data of a sparse member has another
// size than the file.
func (m *Member) split(records map[string]string) (err error) {
	n := int64(0)
	for ; m.main+blockSize <= len(m.Header); m.main += blockSize + int((n+blockSize-1)&^(blockSize-1)) {
		b := m.Header[m.main:]
		if n, err = parseNumber(fieldSize.of(b)); err != nil {
			break
		}
		switch b[fieldType] {
		case tar.TypeXHeader:
			m.pax = m.main
			continue
		case tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			continue
		}
		if v := records["size"]; v != "" {
			n, err = strconv.ParseInt(v, 10, 64)
		}
		if m.Sparse {
			m.Size = n
		}
		return err
	}
	return &Error{m.Offset, "a size that is no number"}
}

func allZero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

// Fields of a header block: POSIX.1-1988.
type field struct{ off, len int }

var (
	fieldSize = field{124, 12}
	fieldSum  = field{148, 8}
	fieldType = 156
)

func (f field) of(b []byte) []byte { return b[f.off:][:f.len] }

// checksum adds up a header block with the checksum itself as spaces. Some old
// writers added signed bytes.
func checksum(b []byte, signed bool) int64 {
	var sum int64
	for i, c := range b {
		switch {
		case i >= fieldSum.off && i < fieldSum.off+fieldSum.len:
			sum += ' '
		case signed:
			sum += int64(int8(c))
		default:
			sum += int64(c)
		}
	}
	return sum
}

var errNumber = errors.New("not a number")

// parseNumber reads an octal number, or a binary one with its top bit set (GNU).
func parseNumber(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		var inverted byte
		if b[0]&0x40 != 0 {
			inverted = 0xff
		}
		var x uint64
		for i, c := range b {
			c ^= inverted
			if i == 0 {
				c &= 0x7f
			}
			if x>>56 > 0 {
				return 0, errNumber
			}
			x = x<<8 | uint64(c)
		}
		if x>>63 > 0 {
			return 0, errNumber
		}
		if inverted != 0 {
			return ^int64(x), nil
		}
		return int64(x), nil
	}
	s := strings.Trim(string(b), " \x00")
	s, _, _ = strings.Cut(s, "\x00")
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(s, 8, 64)
	if err != nil || v > math.MaxInt64 {
		return 0, errNumber
	}
	return int64(v), nil
}
