package rawtar

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Compression is how an archive is compressed.
type Compression string

const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	XZ    Compression = "xz"
	Bzip2 Compression = "bzip2"
)

var magics = []struct {
	c     Compression
	magic string
}{{Gzip, "\x1f\x8b"}, {Zstd, "\x28\xb5\x2f\xfd"}, {XZ, "\xfd7zXZ\x00"}, {Bzip2, "BZh"}}

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

// NewDecoder decompresses r. What it returns must be closed.
func NewDecoder(r io.Reader, c Compression) (io.ReadCloser, error) {
	if c == None {
		return io.NopCloser(r), nil
	}
	// zstd reads three bytes before each block.
	in := &counter{r: bufio.NewReaderSize(r, 256<<10)}
	var out io.Reader
	var err error
	closer := func() {}
	switch c {
	case Gzip:
		out, err = gzip.NewReader(in)
	case Zstd:
		var d *zstd.Decoder
		// One goroutine: the walk does nothing worth waiting for in parallel.
		d, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			out, closer = d, d.Close
		}
	case XZ:
		head := make([]byte, 64)
		n, rerr := io.ReadFull(in, head)
		if rerr != nil && !errors.Is(rerr, io.ErrUnexpectedEOF) && !errors.Is(rerr, io.EOF) {
			return nil, rerr
		}
		if err := checkXZ(head[:n]); err != nil {
			return nil, err
		}
		out, err = xz.NewReader(io.MultiReader(bytes.NewReader(head[:n]), in))
	case Bzip2:
		out = bzip2.NewReader(in)
	default:
		err = fmt.Errorf("unknown compression %q", c)
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	return &decoder{r: out, in: in, c: c, close: closer}, nil
}

// checkXZ refuses a dictionary that is larger than any usual level needs, before it
// is allocated (xz file format 1.0.4, 3.1 and 5.3.1).
func checkXZ(head []byte) error {
	const streamHeader, lzma2 = 12, 0x21
	if len(head) < streamHeader+2 {
		return nil // the reader says what is wrong
	}
	b := head[streamHeader+2:]
	for flags := head[streamHeader+1]; flags&0xc0 != 0; flags <<= 1 {
		if flags&0x80 == 0 {
			continue
		}
		for len(b) > 0 && b[0]&0x80 != 0 { // a compressed or uncompressed size
			b = b[1:]
		}
		if len(b) > 0 {
			b = b[1:]
		}
	}
	if len(b) < 3 || b[0] != lzma2 || b[1] != 1 {
		return nil
	}
	if bits := b[2] & 0x3f; bits > 40 || int64(2|bits&1)<<(bits/2+11) > maxWindow {
		return fmt.Errorf("xz: a dictionary of more than %d MiB", maxWindow>>20)
	}
	return nil
}

// counter counts the bytes of the compressed file.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// A file that grows beyond both of these is a bomb: gzip cannot reach the ratio, and
// what the others do to zeros needs no more time than that.
const (
	bombSize  = 4 << 30
	bombRatio = 2000
)

type decoder struct {
	r     io.Reader
	in    *counter
	c     Compression
	out   int64
	close func()
}

func (d *decoder) Read(b []byte) (int, error) {
	n, err := d.r.Read(b)
	d.out += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("%s: %w", d.c, err)
	}
	if d.out > bombSize && d.out/bombRatio > d.in.n {
		return n, fmt.Errorf("%s: %d bytes became more than %d GiB: refused as a decompression bomb", d.c, d.in.n, bombSize>>30)
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
	case XZ:
		return xz.NewWriter(w)
	}
	return nil, fmt.Errorf("%s: %w", c, ErrNoWriter)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
