package checkpoint

import (
	"errors"
	"fmt"
)

// CompressionError is a compressed archive that cannot be decompressed here. Its own
// program knows more filters, and takes memory that no file may ask for here.
type CompressionError struct {
	Path    string
	Program string // "gzip", "zstd", "xz" or "bzip2"
	Err     error
}

func (e *CompressionError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

func (e *CompressionError) Unwrap() error { return e.Err }

// PackedError is a compressed file in which no archive is found, though something else
// may be.
type PackedError struct {
	Program string // as in [CompressionError]
	Reason  string
}

func (e *PackedError) Error() string { return e.Reason }

// CPUInfoError is a fault of cpuinfo.img, without which CRIU restores a checkpoint all
// the same.
type CPUInfoError struct{ Err error }

func (e *CPUInfoError) Error() string { return e.Err.Error() }

func (e *CPUInfoError) Unwrap() error { return e.Err }

// ErrNoImages is a directory in which nothing is a checkpoint.
var ErrNoImages = errors.New("not a CRIU images directory: there is no pstree.img and no core-*.img")

// ErrPreDump is a directory that criu pre-dump wrote.
var ErrPreDump = errors.New("only a pre-dump, which holds memory but no registers")

// ErrNotKept is an image in a compressed archive, or in a stream of one, that was not
// kept as it came by.
var ErrNotKept = errors.New("in a compressed archive or a stream, and was not kept; unpack the archive")

var (
	errNoCheckpoint = errors.New("no checkpoint in the archive")
	errLinkAbove    = errors.New("a link, and images below its name: unpacked, they land elsewhere")
	errHardLink     = errors.New("a hard link, with the content in another place; pack it again with tar --hard-dereference")
	errNotExpanded  = errors.New("stored as a sparse file, of which only images of registers are read; unpack the archive")
	errSparse       = errors.New("stored as a sparse file, whose map would change; pack the archive without --sparse")
)
