package checkpoint

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/internal/rawtar"
)

// walker collects the checkpoints of a tar archive in one pass.
type walker struct {
	path        string      // of the file
	inner       string      // the archive in it that is read, "" for itself
	depth       int         // how many archives that one lies in
	base        int64       // where it begins in the file
	file        io.ReaderAt // its bytes; nil if they come by once only
	stored      bool        // its bytes stand in the file as they are
	compression rawtar.Compression
	info        fs.FileInfo
	dirs        map[string]*Archive
	order       []string          // of dirs that are needed
	notes       map[string][]byte // config.dump and spec.dump, by their place
	links       map[string]int64  // where links stand, by their cleaned names
	budget      *budget
	alike       map[uint64][]byte // what is held, by hash: threads may have the same registers
	unnamed     []error           // members with images whose names cannot be used
	container   bool              // it is a container image
	index       []byte            // index.json of an OCI image layout
	manifests   map[string][]byte // its blobs that are JSON, by digest
	nested      []Found           // what archives in it hold
	nestedErr   error             // why the first that cannot be read cannot
}

// isArchive tells an archive by the first bytes of a file, whose size is -1 for a
// stream.
func isArchive(head []byte, size int64) (rawtar.Compression, bool) {
	if len(head) >= 2*rawtar.HeadSize && len(bytes.TrimLeft(head, "\x00")) == 0 {
		return rawtar.None, size < 0 || size%rawtar.HeadSize == 0 // the end, and nothing before it
	}
	return rawtar.Detect(head)
}

// maxDepth is how many archives may lie in each other below the outermost: the layers of
// a container image in an archive.
const maxDepth = 2

// readArchive reads the checkpoints of an archive. size is that of the file, which is nil
// for a stream. other reads what is compressed and no archive; nil refuses it.
func readArchive(name string, r io.Reader, file *os.File, size int64, c rawtar.Compression, b *budget, other func(*bufio.Reader) ([]Found, error)) ([]Found, error) {
	w := &walker{path: name, compression: c, stored: true, budget: b}
	var seeker io.ReadSeeker
	if file != nil {
		w.file, seeker = file, file
		if name != "-" && c == rawtar.None {
			var err error
			if w.info, err = file.Stat(); err != nil {
				return nil, err
			}
		}
	}
	all, err := w.read(r, seeker, size, other)
	if err == nil && len(all) > 1 {
		for i, f := range all {
			if f.Err == nil {
				all[i].Path = name + ":" + f.Checkpoint.Archive().place()
				f.Checkpoint.Path = all[i].Path
			}
		}
	}
	return all, err
}

// read reads the checkpoints of one archive.
func (w *walker) read(r io.Reader, seeker io.ReadSeeker, size int64, other func(*bufio.Reader) ([]Found, error)) ([]Found, error) {
	w.dirs, w.notes, w.links, w.alike = map[string]*Archive{}, map[string][]byte{}, map[string]int64{}, map[uint64][]byte{}
	w.manifests = map[string][]byte{}
	var err error
	switch {
	case w.compression == rawtar.None && seeker != nil:
		err = w.walk(rawtar.NewSeeker(seeker, 0, size))
	case w.compression == rawtar.None:
		err = w.walk(rawtar.NewReader(r))
	default:
		w.file, w.info = nil, nil
		if w.stored {
			r = w.budget.Count(r)
		}
		w.stored = false
		dec, derr := rawtar.NewDecoder(r, w.compression, &w.budget.Budget)
		if derr != nil {
			return nil, w.wrap(derr)
		}
		defer dec.Close()
		in := bufio.NewReaderSize(dec, 64<<10)
		head, derr := in.Peek(headSize)
		if derr != nil && derr != io.EOF {
			return nil, w.wrap(derr)
		}
		if inside, isTar := isArchive(head[:min(len(head), 2*rawtar.HeadSize)], -1); other != nil && !(isTar && inside == rawtar.None) {
			all, err := other(in)
			if err != nil {
				err = w.wrap(err)
			}
			return all, err
		}
		if err = w.walk(rawtar.NewReader(in)); err == nil {
			// What compressors check of the content stands at its end.
			if _, err = io.Copy(io.Discard, in); err != nil {
				err = w.wrap(err)
			}
		}
	}
	w.annotate()
	all := append(w.checkpoints(), w.nested...)
	switch {
	case err != nil && len(all) == 0:
		return nil, err
	case len(all) == 0 && w.nestedErr != nil:
		return nil, w.nestedErr
	case len(all) == 0 && len(w.order) > 0:
		return nil, fmt.Errorf("%s: %w: %w", w.label(), errNoCheckpoint, ErrPreDump)
	case len(all) == 0 && len(w.unnamed) > 0:
		return nil, w.unnamed[0]
	case len(all) == 0 && w.container:
		return nil, fmt.Errorf("%s: %w: a container image, but no layer of it holds a checkpoint", w.label(), errNoCheckpoint)
	case len(all) == 0:
		return nil, fmt.Errorf("%s: %w: no directory holds a pstree.img or a core-*.img", w.label(), errNoCheckpoint)
	}
	if err != nil {
		for _, f := range all {
			if f.Err == nil {
				f.Checkpoint.problem(err)
			}
		}
	}
	return all, nil
}

// label names the archive that is read.
func (w *walker) label() string {
	if w.inner == "" {
		return w.path
	}
	return w.path + ":" + w.inner
}

// archive looks into a member that is an archive, for the checkpoints in it. A plain one
// is told by content; a compressed one by its name too, for much is compressed.
func (w *walker) archive(tr *rawtar.Reader, m *rawtar.Member) error {
	name, err := memberName(m.Name)
	d, blob := digestOf(name)
	if err != nil || w.depth == maxDepth || !m.Regular() || m.Size < rawtar.HeadSize && !blob {
		return nil
	}
	at := tr.Offset()
	head := make([]byte, min(m.Size, rawtar.HeadSize))
	if _, err := io.ReadFull(tr, head); err != nil {
		return w.wrap(err)
	}
	if blob && bytes.HasPrefix(head, []byte("{")) && m.Size <= maxManifest {
		b := append(head, make([]byte, m.Size-int64(len(head)))...)
		if _, err := io.ReadFull(tr, b[len(head):]); err != nil {
			return w.wrap(err)
		}
		w.manifests[d.Digest] = b
		return w.hold(m, m.Size)
	}
	c, ok := rawtar.Detect(head)
	if !ok || c != rawtar.None && !blob && ArchiveSuffix(name) == "" && !strings.Contains(path.Base(name), ".tar.") {
		return nil
	}
	inner := &walker{path: w.path, inner: name, depth: w.depth + 1, base: w.base + at, stored: w.stored, compression: c, info: w.info, budget: w.budget}
	if w.inner != "" {
		inner.inner = w.inner + ":" + name
	}
	r, seeker, size := io.MultiReader(bytes.NewReader(head), tr), io.ReadSeeker(nil), m.Size
	if w.file != nil {
		section := io.NewSectionReader(w.file, at, m.Size)
		r, seeker, inner.file = section, section, section
	}
	h := newHash(d)
	if h != nil && w.file == nil {
		r = io.TeeReader(r, h)
	}
	all, err := inner.read(r, seeker, size, nil)
	if h != nil && len(all) > 0 {
		if w.file != nil {
			_, err = io.Copy(h, io.NewSectionReader(w.file, at, m.Size))
		} else {
			_, err = io.Copy(io.Discard, r)
		}
		if err == nil {
			err = d.check(inner.label(), h)
		}
		for _, f := range all {
			if f.Err == nil {
				f.Checkpoint.problem(err)
			}
		}
		err = nil
	}
	if err != nil && !errors.Is(err, errNoCheckpoint) && w.nestedErr == nil {
		w.nestedErr = err
	}
	w.nested = append(w.nested, all...)
	return nil
}

// suffixes are the ends of the names of archives.
var suffixes = []string{".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.lz4", ".tar"}

// ArchiveSuffix is the end by which a name is that of an archive, such as ".tar.gz"; "" if
// it has none.
func ArchiveSuffix(name string) string {
	for _, suffix := range suffixes {
		if strings.HasSuffix(name, suffix) && name != suffix {
			return suffix
		}
	}
	return ""
}

// wrap names the archive in an error of the walk.
func (w *walker) wrap(err error) error {
	var format *codec.FormatError
	var tarErr *rawtar.Error
	switch {
	case errors.As(err, &format):
		return err
	case errors.As(err, &tarErr) && tarErr.Offset == 0 && w.compression != rawtar.None:
		return &codec.FormatError{Path: w.label(), Offset: 0, Field: string(w.compression), Err: &PackedError{string(w.compression), "what it decompresses to is no tar archive"}}
	case errors.As(err, &tarErr):
		return &codec.FormatError{Path: w.label(), Offset: tarErr.Offset, Field: "tar", Err: errors.New(tarErr.Reason)}
	case w.compression != rawtar.None:
		return &CompressionError{w.label(), string(w.compression), err}
	}
	return fmt.Errorf("%s: %w", w.label(), err)
}

// memberName returns the place that a member has in the archive: "./" is taken off. The
// error goes on after "its name".
func memberName(name string) (string, error) {
	if len(name) > maxName {
		return "", fmt.Errorf("of %d bytes is longer than any path", len(name))
	}
	clean := path.Clean(name)
	if path.IsAbs(clean) || slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("%q leads out of the archive; pack it again with relative names", name)
	}
	return clean, nil
}

// walk reads the archive to its end, since the last member of a name counts.
func (w *walker) walk(tr *rawtar.Reader) error {
	for {
		m, _, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return w.wrap(err)
		}
		if m.Type == tar.TypeLink || m.Type == tar.TypeSymlink {
			if err := w.link(m); err != nil {
				return err
			}
		}
		switch base := path.Base(m.Name); {
		case strings.HasSuffix(base, ".img"):
			err = w.image(tr, m)
		case base == "config.dump" || base == "spec.dump":
			err = w.note(tr, m)
		case base == "index.json" && path.Clean(m.Name) == base && m.Regular() && m.Size <= maxManifest:
			w.index, err = w.data(tr, m)
		case (base == "oci-layout" || base == "manifest.json") && path.Clean(m.Name) == base:
			w.container = true
		default:
			err = w.archive(tr, m)
		}
		if err != nil {
			return err
		}
	}
}

// link notes a link: what is unpacked below its name lands elsewhere.
func (w *walker) link(m *rawtar.Member) error {
	name := strings.TrimLeft(m.Name, "/") // as tar does
	if len(name) > maxName {
		return nil
	}
	name = path.Clean(name)
	if _, twice := w.links[name]; !twice {
		w.links[name] = m.Offset
		return w.hold(m, int64(len(name))+fileHeld)
	}
	return nil
}

// note reads a description of the container.
func (w *walker) note(tr *rawtar.Reader, m *rawtar.Member) error {
	clean, err := memberName(m.Name)
	if err != nil || !m.Regular() || m.Size > maxConfig {
		return nil
	}
	w.notes[clean], err = w.data(tr, m)
	return err
}

// image notes an image, and reads one that tells of registers.
func (w *walker) image(tr *rawtar.Reader, m *rawtar.Member) error {
	needed := isImage(path.Base(m.Name))
	clean, err := memberName(m.Name)
	if err != nil {
		if needed {
			w.unnamed = codec.AppendFault(w.unnamed, &codec.FormatError{Path: w.label(), Offset: m.Offset, Field: "tar", Err: fmt.Errorf("an image is left out: its name %w", err)})
		}
		return nil
	}
	dir, base := path.Dir(clean), path.Base(clean)
	d := w.dirs[dir]
	if d == nil {
		if err := w.hold(m, dirHeld); err != nil {
			return err
		}
		d = &Archive{Path: w.path, inner: w.inner, base: w.base, Dir: dir, info: w.info, members: map[string]member{}}
		w.dirs[dir] = d
	}
	if needed && !d.needed {
		d.needed = true
		w.order = append(w.order, dir)
	}
	label := d.Label(base)
	if _, twice := d.members[base]; twice && needed {
		d.repeats = codec.AppendFault(d.repeats, &codec.FormatError{Path: label, Offset: m.Offset, Field: "tar", Err: errors.New("a second member of this name; the last one counts")})
	}
	f := member{at: tr.Offset(), size: m.Size, sparse: m.Sparse}
	switch {
	case m.Type == tar.TypeLink:
		f.err = &codec.FormatError{Path: label, Offset: m.Offset, Field: "tar", Err: errHardLink}
	case !m.Regular() && !m.Sparse:
		f.err = &codec.FormatError{Path: label, Offset: m.Offset, Field: "tar", Err: codec.ErrIrregular}
	case !needed && w.info == nil && w.budget.spool != nil && isMemory(base) && !m.Sparse:
		f.spool = w.budget.spool
		if f.at, f.err, err = f.spool.keep(label, tr, m.Size); err != nil {
			return w.wrap(err)
		}
	case !needed && (w.info != nil || d.mapped || !isPagemap(base) || m.Size > smallPagemap):
	case w.info != nil && !m.Sparse: // it is read when it is opened
		if end := w.info.Size(); f.size > end-f.at {
			return &codec.FormatError{Path: w.label(), Offset: end, Field: "tar", Err: errors.New("the archive ends inside a member")}
		}
	case m.Size > codec.MaxImage:
		f.err = &codec.FormatError{Path: label, Offset: codec.MaxImage, Field: "file", Err: codec.ErrTooLarge}
	default:
		if f.b, err = w.data(tr, m); err != nil {
			return err
		}
		d.mapped = d.mapped || !needed
		if m.Sparse {
			f.b, f.err = expand(label, m, f.b)
			if err := w.hold(m, int64(len(f.b))); err != nil {
				return err
			}
		}
	}
	d.members[base] = f
	return w.hold(m, fileHeld)
}

// hold counts what is kept of a member.
func (w *walker) hold(m *rawtar.Member, n int64) error {
	if w.budget.hold(n) {
		return nil
	}
	return &codec.FormatError{Path: w.label(), Offset: m.Offset, Field: "tar", Err: fmt.Errorf("more than %d MiB of images and their directories", w.budget.mayHold()>>20)}
}

// data reads a member whose size was checked.
func (w *walker) data(tr *rawtar.Reader, m *rawtar.Member) ([]byte, error) {
	if err := w.hold(m, m.Size); err != nil {
		return nil, err
	}
	b := make([]byte, 0, min(m.Size, 64<<10)) // grows with what is there, not with what the header says
	for int64(len(b)) < m.Size {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(m.Size, 2*int64(cap(b)))), b...)
		}
		n, err := io.ReadFull(tr, b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil {
			return nil, w.wrap(err)
		}
	}
	if w.stored {
		w.budget.In += m.Size
	}
	key := maphash.Bytes(seed(), b)
	if held := w.alike[key]; len(b) > 0 && bytes.Equal(held, b) {
		w.budget.hold(-m.Size)
		return held, nil
	}
	w.alike[key] = b
	return b, nil
}

var seed = sync.OnceValue(maphash.MakeSeed)

// expand gives the content of a member that is stored as a sparse file.
func expand(label string, m *rawtar.Member, b []byte) ([]byte, error) {
	pad := make([]byte, -len(b)&511)
	tr := tar.NewReader(bytes.NewReader(slices.Concat(m.Header, b, pad)))
	h, err := tr.Next()
	switch {
	case err != nil:
		return nil, &codec.FormatError{Path: label, Offset: 0, Field: "tar", Err: err}
	case h.Size > codec.MaxImage:
		return nil, &codec.FormatError{Path: label, Offset: codec.MaxImage, Field: "file", Err: codec.ErrTooLarge}
	}
	out, err := io.ReadAll(tr)
	if err != nil {
		return nil, &codec.FormatError{Path: label, Offset: 0, Field: "tar", Err: err}
	}
	return out, nil
}

// checkpoints makes a checkpoint of each directory that has cores or names them.
func (w *walker) checkpoints() []Found {
	var all []Found
	for _, dir := range w.order {
		a := w.dirs[dir]
		registers := false
		for base := range a.members {
			_, core := codec.CoreTID(base)
			registers = registers || core || base == "pstree.img"
		}
		if !registers {
			continue
		}
		c, err := newCheckpoint(w.path, KindArchive, a)
		if err != nil { // it has what is looked for
			continue
		}
		faults := codec.AppendFault(slices.Clip(a.repeats), w.unnamed...)
		for p := dir; p != "."; p = path.Dir(p) {
			if at, ok := w.links[p]; ok {
				faults = codec.AppendFault(faults, &codec.FormatError{Path: w.label() + ":" + p, Offset: at, Field: "tar", Err: errLinkAbove})
			}
		}
		c.Problems = codec.AppendFault(faults, c.Problems...)
		if w.inner != "" {
			c.ReadOnly = fmt.Sprintf("it lies in the archive %s; unpack that first", w.inner)
		}
		c.Container = parseContainer(w.notes[path.Join(dir, "../config.dump")], w.notes[path.Join(dir, "../spec.dump")])
		all = append(all, Found{Path: c.Path, Checkpoint: c})
	}
	return all
}
