package convert

import (
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
)

// ErrNoWriter is a compression that can be read but not written.
var ErrNoWriter = checkpoint.ErrNoWriter

// ArchiveOptions are the choices of [WriteArchive] and [CopyArchive].
type ArchiveOptions struct {
	// Compression of the result: none, gzip or zstd; "" keeps that of the
	// archive.
	Compression string
	// Progress is called with the bytes of the archive that are copied so far; nil
	// is none.
	Progress func(done int64)
	// Spool is how many bytes of memory are kept of the new archive, if it is compressed,
	// for those that verify it; 0 keeps none.
	Spool int64
}

// WriteArchive writes the archive of the plans' checkpoints, converted, to the new
// file out, which must not exist. All plans must be of one archive.
//
// Only the planned core images and cpuinfo.img change, and in their headers the size
// and the checksum. Every other block is copied as it stands: member order, pax and
// GNU headers, sparse maps, links and what follows the end of the archive. The file
// appears by one rename once it is durable; on any failure nothing is left.
//
// The error is a [*codec.FormatError] if the archive is not the one that was
// planned, a [*ChangedError], a [*BusyError], [ErrStage] or from the file system.
func WriteArchive(plans []*Plan, out string, o ArchiveOptions) error {
	src, err := openArchive(plans)
	if err != nil {
		return err
	}
	defer src.Close()
	return build(out, func(s *stage) error {
		f, err := create(s.dir, result)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := copyArchive(plans, f, src, o); err != nil {
			return err
		}
		if err := verifyArchive(plans, s.path(result), o.Spool); err != nil {
			return err
		}
		if err := copyMeta(f, src, true); err != nil {
			return err
		}
		return f.Sync()
	})
}

// verifyArchive asks the plans about their checkpoints in the new archive.
func verifyArchive(plans []*Plan, file string, max int64) error {
	if !slices.ContainsFunc(plans, func(p *Plan) bool { return p.Verify != nil }) {
		return nil
	}
	spool := checkpoint.NewSpool(max)
	defer spool.Close()
	all, err := checkpoint.OpenAll(file, checkpoint.Options{Spool: spool})
	if err != nil {
		return err
	}
	for _, p := range plans {
		dir := p.Checkpoint.Archive().Dir
		i := slices.IndexFunc(all, func(f checkpoint.Found) bool { return f.Err == nil && f.Checkpoint.Archive().Dir == dir })
		if i < 0 {
			return fmt.Errorf("%s: the new archive has no checkpoint there", p.Checkpoint.Path)
		}
		if err := p.verify(all[i].Checkpoint.Files); err != nil {
			return err
		}
	}
	return nil
}

// openArchive opens the one archive of all plans.
func openArchive(plans []*Plan) (*os.File, error) {
	return openPath(plans[0].Checkpoint.Archive().Path)
}

// CanWriteArchive returns the error, [ErrNoWriter], with which every conversion of an
// archive would fail for want of a compressor.
func CanWriteArchive(archive string, o ArchiveOptions) error {
	f, err := openPath(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	return (&checkpoint.Rewrite{Path: archive, Compression: o.Compression}).Check(f)
}

// CopyArchive writes the converted archive to w. See [WriteArchive].
func CopyArchive(plans []*Plan, w io.Writer, o ArchiveOptions) error {
	src, err := openArchive(plans)
	if err != nil {
		return err
	}
	defer src.Close()
	return copyArchive(plans, w, src, o)
}

func copyArchive(plans []*Plan, w io.Writer, f *os.File, o ArchiveOptions) error {
	r := &checkpoint.Rewrite{Path: f.Name(), Compression: o.Compression, Progress: o.Progress,
		Replace: map[string]func([]byte) ([]byte, error){}, Patch: map[string]func(io.Reader) io.Reader{}}
	for _, p := range plans {
		for name, c := range p.files {
			place := path.Join(p.Checkpoint.Archive().Dir, name)
			if !c.whole() {
				r.Patch[place] = func(old io.Reader) io.Reader { return &editor{r: old, file: place, edits: c.edits} }
				continue
			}
			r.Replace[place] = func(old []byte) ([]byte, error) {
				if hash(old) != p.read[name] {
					return nil, &ChangedError{place}
				}
				return c.apply(place, old)
			}
		}
	}
	if err := r.Write(w, f); err != nil {
		return err
	}
	// The images that are replaced were compared; of the rest, what can be.
	now, err := f.Stat()
	if was := plans[0].archive; err == nil && !same(was, now) {
		err = &ChangedError{f.Name()}
	}
	return err
}
