package rawtar

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/xi2/xz"
)

// Compression is how an archive is compressed.
type Compression string

const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	XZ    Compression = "xz"
	Bzip2 Compression = "bzip2"
	LZ4   Compression = "lz4"
)

var magics = []struct {
	c     Compression
	magic string
}{{Gzip, "\x1f\x8b"}, {Zstd, "\x28\xb5\x2f\xfd"}, {XZ, "\xfd7zXZ\x00"}, {Bzip2, "BZh"},
	{LZ4, "\x04\x22\x4d\x18"}, {LZ4, "\x02\x21\x4c\x18"}}

// HeadSize is how much of a file Detect looks at.
const HeadSize = blockSize

// Detect tells a tar archive, compressed or not, by the first bytes of a file; what
// it is named does not count. A compressed file is taken to hold an archive.
func Detect(head []byte) (Compression, bool) {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.c, true
		}
	}
	// A zstd frame may be preceded by skippable ones (RFC 8878, 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" {
		return Zstd, true
	}
	if len(head) < blockSize {
		return None, false
	}
	head = head[:blockSize]
	sum, err := parseNumber(fieldSum.of(head))
	return None, err == nil && !allZero(head) && (sum == checksum(head, false) || sum == checksum(head, true))
}

// maxWindow bounds the memory that a compressed file can ask for. zstd and xz at
// their highest ordinary levels need 128 MiB and 64 MiB.
const maxWindow = 128 << 20

// NewDecoder decompresses r within the budget, which counts the bytes of r if they go
// through [Budget.Count]; nil is one of its own. What it returns must be closed.
func NewDecoder(r io.Reader, c Compression, b *Budget) (io.ReadCloser, error) {
	if c == None {
		return io.NopCloser(r), nil
	}
	if b == nil {
		b = new(Budget)
		r = b.Count(r)
	}
	in := bufio.NewReaderSize(r, 256<<10) // zstd reads three bytes before each block
	var out io.Reader
	var err error
	closer := func() {}
	switch c {
	case Gzip:
		out, err = newGzipReader(in)
	case Zstd:
		var d *zstd.Decoder
		// One goroutine: the walk does nothing worth waiting for in parallel.
		d, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			out, closer = d, d.Close
		}
	case XZ:
		// Of the xz libraries this one bounds the dictionary, which each block names.
		out, err = xz.NewReader(in, maxWindow)
	case Bzip2:
		out = bzip2.NewReader(in)
	case LZ4:
		out = &lz4Reader{in, lz4.NewReader(in)}
	default:
		err = errors.New("unknown compression")
	}
	if err != nil {
		return nil, c.wrap(cut(err))
	}
	return &decoder{r: out, b: b, c: c, close: closer}, nil
}

// wrap names the compression, which only some of the libraries do, and the limit.
func (c Compression) wrap(err error) error {
	if errors.Is(err, xz.ErrMemlimit) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = fmt.Errorf("%w: more than %d MiB", err, maxWindow>>20)
	}
	if strings.HasPrefix(err.Error(), string(c)) {
		return err
	}
	return fmt.Errorf("%s: %w", c, err)
}

// gzipReader reads the members of a gzip file, and ignores zeros after them, as gzip
// does: tapes and block devices pad files.
type gzipReader struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func newGzipReader(in *bufio.Reader) (*gzipReader, error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gzipReader{in, z}, nil
}

func (g *gzipReader) Read(b []byte) (int, error) {
	n, err := g.z.Read(b)
	if err != io.EOF {
		return n, err
	}
	next, err := g.in.ReadByte()
	for err == nil && next == 0 {
		next, err = g.in.ReadByte()
	}
	if err != nil {
		return n, err
	}
	_ = g.in.UnreadByte() // what was just read
	if err := g.z.Reset(g.in); err != nil {
		return n, cut(err)
	}
	g.z.Multistream(false)
	return n, nil
}

// lz4Reader reads the frames of an lz4 file, of which the library reads one.
type lz4Reader struct {
	in *bufio.Reader
	z  *lz4.Reader
}

func (l *lz4Reader) Read(b []byte) (int, error) {
	for {
		n, err := l.z.Read(b)
		if err != io.EOF || n > 0 {
			return n, err
		}
		if _, err := l.in.Peek(1); err != nil {
			return 0, err
		}
		l.z.Reset(l.in)
	}
}

// cut makes the same of each library's error about a file that ends where it may not.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, xz.ErrBuf) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Budget bounds what compressed files may become, all that share it together.
type Budget struct {
	In  int64 // bytes of the files
	out int64 // bytes that they became
}

// Files that become more than bombSize bytes in all, and more than bombRatio times what
// they have, are a bomb. gzip cannot reach the ratio; what the others do to zeros takes
// seconds for bombSize.
const (
	bombSize  = 1 << 30
	bombRatio = 1100
)

// counter counts the bytes of a compressed file.
type counter struct {
	r io.Reader
	b *Budget
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.b.In += int64(n)
	return n, err
}

// Count has the budget count what is read of a compressed file. What another one
// became does not go through it: else a bomb in a bomb would pay for itself.
func (b *Budget) Count(r io.Reader) io.Reader { return &counter{r, b} }

type decoder struct {
	r     io.Reader
	b     *Budget
	c     Compression
	close func()
}

func (d *decoder) Read(b []byte) (int, error) {
	n, err := d.r.Read(b)
	d.b.out += int64(n)
	if err != nil && err != io.EOF {
		return n, d.c.wrap(cut(err))
	}
	if d.b.out > bombSize && d.b.out/bombRatio > d.b.In {
		return n, fmt.Errorf("%s: %d bytes became more than %d GiB: refused as a decompression bomb", d.c, d.b.In, bombSize>>30)
	}
	return n, err
}

func (d *decoder) Close() error {
	d.close()
	return nil
}

// ErrNoWriter is a compression that can be read but not written.
var ErrNoWriter = errors.New("can be read, but not written")

// NewEncoder compresses to w at the level that the compression's own program has by
// default. Closing it completes the file and leaves w open.
func NewEncoder(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case None:
		return nopCloser{w}, nil
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return nil, fmt.Errorf("%s: %w", c, ErrNoWriter)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
