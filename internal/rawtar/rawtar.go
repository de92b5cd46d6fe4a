// Package rawtar walks a tar archive block by block and keeps the bytes: what was
// read can be written again as it stood, which archive/tar cannot do, since it
// normalises headers. It understands what archive/tar does: ustar, pax and GNU
// members, long names, and the sizes that sparse members have in the archive.
//
// The walker trusts nothing. Every length is checked before anything is allocated,
// and names are only reported, never used as paths.
package rawtar

import (
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

// Limits on the headers of one member. archive/tar has the same for each of its
// special files.
const (
	maxSpecial = 1 << 20  // one pax header or long name
	maxHeader  = 16 << 20 // all header blocks of a member, sparse map included
)

// Error is a malformed archive.
type Error struct {
	Offset int64 // of the block, in the uncompressed archive
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("tar: offset %#x: %s", e.Offset, e.Reason) }

// Types of members (POSIX.1-1988 and GNU).
const (
	TypeReg     = '0'
	TypeRegA    = 0
	TypeLink    = '1'
	TypeSymlink = '2'
	TypeChar    = '3'
	TypeBlock   = '4'
	TypeDir     = '5'
	TypeFIFO    = '6'
	TypeCont    = '7'
	TypePax     = 'x'
	TypeGlobal  = 'g'
	TypeSparse  = 'S' // old GNU sparse
	typeLong    = 'L'
	typeLink    = 'K'
)

// Member is one entry of an archive.
type Member struct {
	Name   string // as it is recorded, with pax and GNU records applied
	Type   byte
	Size   int64 // bytes that follow the header, padding excluded
	Sparse bool  // the data is not the file's content but a map and its pieces
	Offset int64 // of the first header block

	// Header is the member's header blocks: what pax and GNU records stand before
	// it, and its own.
	Header []byte
	main   int // where in Header its own block stands
	pax    int // where its pax header stands, -1 without one
}

// Regular reports whether the member is a plain file.
func (m *Member) Regular() bool {
	return (m.Type == TypeReg || m.Type == TypeRegA || m.Type == TypeCont) && !m.Sparse
}

// Reader walks an archive.
type Reader struct {
	r    *bufio.Reader
	file io.ReadSeeker // nil: what is skipped must be read
	size int64         // of the file
	at   int64
	left int64 // of the current member's data
	pad  int64
}

// NewReader walks a stream.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// NewSeeker walks a file of the given size from its present place, start, and skips
// over data without reading it.
func NewSeeker(f io.ReadSeeker, start, size int64) *Reader {
	return &Reader{r: bufio.NewReaderSize(f, 16<<10), file: f, at: start, size: size}
}

// Offset returns the place of the next byte.
func (r *Reader) Offset() int64 { return r.at }

func (r *Reader) fail(off int64, format string, args ...any) error {
	return &Error{off, fmt.Sprintf(format, args...)}
}

// Truncated reports whether an error is that the archive ends too early.
func Truncated(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }

// cut says that the archive ends too early. A compressed file that does has said so
// itself, in an error that wraps one of these.
func (r *Reader) cut(err error) error { return r.cutInside("a member", err) }

func (r *Reader) cutInside(what string, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %w", r.fail(r.at, "the archive ends inside %s", what), io.ErrUnexpectedEOF)
	}
	return err
}

func (r *Reader) full(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.at += int64(n)
	if err != nil {
		return r.cut(err)
	}
	return nil
}

// skip moves n bytes on.
func (r *Reader) skip(n int64) error {
	if r.file == nil || n <= int64(r.r.Buffered()) {
		done, err := io.CopyN(io.Discard, r.r, n)
		r.at += done
		if err != nil {
			return r.cut(err)
		}
		return nil
	}
	if n > r.size-r.at {
		r.at = r.size
		return r.cut(io.ErrUnexpectedEOF)
	}
	if _, err := r.file.Seek(r.at+n, io.SeekStart); err != nil {
		return err
	}
	r.r.Reset(r.file)
	r.at += n
	return nil
}

// Read reads the current member's data as it stands in the archive.
func (r *Reader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(b[:min(int64(len(b)), r.left)])
	r.at += int64(n)
	r.left -= int64(n)
	if err != nil {
		err = r.cut(err)
	}
	return n, err
}

// CopyData writes the current member's data and padding as they stand.
func (r *Reader) CopyData(w io.Writer) error {
	n := r.left + r.pad
	done, err := io.CopyN(w, r.r, n)
	r.at += done
	r.left, r.pad = 0, 0
	if err != nil {
		return r.cut(err)
	}
	return nil
}

// Rest writes everything from the current place on: the blocks that end the
// archive, and what follows them.
func (r *Reader) Rest(w io.Writer) error {
	n, err := io.Copy(w, r.r)
	r.at += n
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
	m = &Member{Offset: r.at, pax: -1}
	var pax map[string]string
	var longName string
	var isLong bool
	for {
		at := r.at
		start := len(m.Header)
		b, err := r.block(m)
		if err != nil {
			if errors.Is(err, io.EOF) && start > 0 {
				err = r.cut(err)
			}
			return nil, m.Header, err
		}
		if b == nil { // two zero blocks
			if start > 0 {
				return nil, nil, r.fail(at, "the archive ends after a member's extended header")
			}
			return nil, m.Header, io.EOF
		}
		h, err := r.parse(at, b)
		if err != nil {
			return nil, nil, err
		}
		if len(m.Header) > maxHeader {
			return nil, nil, r.fail(m.Offset, "more than %d MiB of headers before a member", maxHeader>>20)
		}
		switch h.typ {
		case TypePax, TypeGlobal, typeLong, typeLink:
			if h.size > maxSpecial {
				return nil, nil, r.fail(at, "an extended header of %d bytes; more than %d are refused", h.size, maxSpecial)
			}
			data, err := r.special(m, h.size)
			if err != nil {
				return nil, nil, err
			}
			switch h.typ {
			case TypePax:
				if pax, err = parsePax(data); err != nil {
					return nil, nil, r.fail(at, "%v", err)
				}
				m.pax = start
			case typeLong:
				longName, isLong = cstring(data), true
			case TypeGlobal:
				global, err := parsePax(data)
				if err != nil {
					return nil, nil, r.fail(at, "%v", err)
				}
				for key := range global { // tar obeys it, other readers do not
					if key == "path" || key == "size" || strings.HasPrefix(key, "GNU.sparse.") {
						return nil, nil, r.fail(at, "a global header that gives every member the %s %q", key, global[key])
					}
				}
			}
			continue
		}
		m.Name, m.Type, m.Size, m.main = h.name, h.typ, h.size, start
		if err := m.applyPax(pax); err != nil {
			return nil, nil, r.fail(at, "%v", err)
		}
		if isLong && longName != "" {
			m.Name = longName
		}
		switch m.Type {
		case TypeLink, TypeSymlink, TypeChar, TypeBlock, TypeDir, TypeFIFO:
			m.Size = 0 // as archive/tar has it
		case TypeReg, TypeRegA, TypeCont: // as tar has it
			if strings.HasSuffix(m.Name, "/") {
				m.Type = TypeDir
			}
		case TypeSparse:
			m.Sparse = true
			if err := r.sparseMap(m, b); err != nil {
				return nil, nil, err
			}
		}
		r.left, r.pad = m.Size, -m.Size&(blockSize-1)
		return m, nil, nil
	}
}

// block appends one block to the member's header and returns it. It returns nil for
// the two zero blocks that end an archive, io.EOF where there is nothing more.
func (r *Reader) block(m *Member) ([]byte, error) {
	at := len(m.Header)
	m.Header = append(m.Header, make([]byte, blockSize)...)
	n, err := io.ReadFull(r.r, m.Header[at:])
	r.at += int64(n)
	if n == 0 && errors.Is(err, io.EOF) {
		m.Header = m.Header[:at]
		return nil, io.EOF
	}
	if err != nil {
		return nil, r.cut(err)
	}
	b := m.Header[at:]
	if !allZero(b) {
		return b, nil
	}
	second := make([]byte, blockSize)
	n, err = io.ReadFull(r.r, second)
	r.at += int64(n)
	m.Header = append(m.Header, second[:n]...)
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil // one zero block and the end: archive/tar accepts that
	case err != nil:
		return nil, r.cutInside("the blocks that end it", err)
	case !allZero(second):
		return nil, r.fail(r.at-blockSize, "a block follows the zero block that ends the archive")
	}
	return nil, nil
}

func allZero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

// special reads the data of an extended header, and its padding, into the member's
// header.
func (r *Reader) special(m *Member, size int64) ([]byte, error) {
	at := len(m.Header)
	m.Header = append(m.Header, make([]byte, (size+blockSize-1)&^(blockSize-1))...)
	if err := r.full(m.Header[at:]); err != nil {
		return nil, err
	}
	return m.Header[at:][:size], nil
}

// sparseMap reads the blocks that continue the map of an old GNU sparse member.
func (r *Reader) sparseMap(m *Member, b []byte) error {
	const more, moreExt = 482, 504 // isextended in the header and in what continues it
	for extended := b[more] != 0; extended; {
		if len(m.Header) > maxHeader {
			return r.fail(m.Offset, "a sparse map of more than %d MiB", maxHeader>>20)
		}
		ext, err := r.special(m, blockSize)
		if err != nil {
			return err
		}
		extended = ext[moreExt] != 0
	}
	return nil
}

// header is what one header block says.
type header struct {
	name string
	typ  byte
	size int64
}

// Fields of a header block: POSIX.1-1988, with the magic and prefix of ustar.
type field struct{ off, len int }

var (
	fieldName   = field{0, 100}
	fieldSize   = field{124, 12}
	fieldSum    = field{148, 8}
	fieldType   = 156
	fieldMagic  = field{257, 8}
	fieldPrefix = field{345, 155}
)

func (f field) of(b []byte) []byte { return b[f.off:][:f.len] }

func (r *Reader) parse(at int64, b []byte) (header, error) {
	sum, err := parseNumber(fieldSum.of(b))
	if err != nil || sum != checksum(b, false) && sum != checksum(b, true) {
		return header{}, r.fail(at, "not a tar header: the checksum does not fit")
	}
	h := header{name: cstring(fieldName.of(b)), typ: b[fieldType]}
	if h.size, err = parseNumber(fieldSize.of(b)); err != nil || h.size < 0 {
		return header{}, r.fail(at, "the size %q is not a number", fieldSize.of(b))
	}
	if string(fieldMagic.of(b)[:6]) == "ustar\x00" {
		prefix := fieldPrefix.of(b)
		if string(b[508:]) == "tar\x00" { // star keeps times there
			prefix = prefix[:131]
		}
		if p := cstring(prefix); p != "" {
			h.name = p + "/" + h.name
		}
	}
	return h, nil
}

func cstring(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

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

// parsePax reads the records of a pax header: "LEN KEY=VALUE\n" each.
func parsePax(b []byte) (map[string]string, error) {
	out := map[string]string{}
	for len(b) > 0 {
		rec, key, value, err := paxRecord(b)
		if err != nil {
			return nil, err
		}
		out[key] = value
		b = b[rec:]
	}
	return out, nil
}

var errPax = errors.New("malformed pax header")

// paxRecord reads the first record of b and returns its length.
func paxRecord(b []byte) (n int, key, value string, err error) {
	space := bytes.IndexByte(b, ' ')
	if space <= 0 || space > 20 {
		return 0, "", "", errPax
	}
	v, err := strconv.ParseUint(string(b[:space]), 10, 31)
	if err != nil || v < 5 || int(v) > len(b) || int(v) <= space+1 || b[v-1] != '\n' {
		return 0, "", "", errPax
	}
	key, value, ok := strings.Cut(string(b[space+1:v-1]), "=")
	if !ok || key == "" {
		return 0, "", "", errPax
	}
	return int(v), key, value, nil
}

// applyPax puts the records of a pax header over the member's own fields. The data
// of a sparse member is its map and pieces; the name of one may be a record of its
// own (GNU tar manual, "Storing Sparse Files").
func (m *Member) applyPax(pax map[string]string) error {
	if v, ok := pax["path"]; ok && v != "" {
		m.Name = v
	}
	if v, ok := pax["size"]; ok && v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("pax record size=%q is not a number", v)
		}
		m.Size = n
	}
	for key := range pax {
		if strings.HasPrefix(key, "GNU.sparse.") {
			m.Sparse = true
		}
	}
	if v := pax["GNU.sparse.name"]; v != "" {
		m.Name = v
	}
	return nil
}
