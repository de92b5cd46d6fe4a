package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/internal/rawtar"
)

// Limits on an OCI image layout: what is read whole, how deep indexes nest, and how
// many blobs are looked into.
const (
	maxManifest = 4 << 20
	maxNesting  = 4
	maxBlobs    = 1000
)

// mediaCRIU is containerd's media type of a checkpoint: the images are at the root
// of the archive (containerd, core/images/mediatypes.go).
const mediaCRIU = "application/vnd.containerd.container.criu.checkpoint.criu.tar"

// manifest is an image index or manifest: what both have of blobs.
type manifest struct {
	Manifests []descriptor `json:"manifests"`
	Layers    []descriptor `json:"layers"`

	Annotations annotations `json:"annotations"`
}

// ociLayout is an OCI image layout while it is searched.
type ociLayout struct {
	dir    string
	flat   bool            // blobs stand in dir, named by their digests alone
	seen   map[string]bool // digests: tags and images share blobs
	blobs  int
	budget budget // of all blobs
	faults int
	all    []Found
}

// openLayout opens the checkpoints in the blobs of an OCI image layout (OCI image
// specification, image-layout.md). A blob that cannot be read stands among them, unless
// there are no others. The result is nil if dir is no layout.
func openLayout(dir string, o Options) ([]Found, error) {
	index := filepath.Join(dir, "index.json")
	b, err := readManifest(index)
	// skopeo's dir: has the manifest of one image, and its blobs beside it.
	_, verr := os.Lstat(filepath.Join(dir, "version"))
	flat := errors.Is(err, fs.ErrNotExist) && verr == nil
	if flat {
		index = filepath.Join(dir, "manifest.json")
		b, err = readManifest(index)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := &ociLayout{dir: dir, flat: flat, seen: map[string]bool{}, budget: budget{spool: o.Spool}}
	l.manifest(index, b, 0, nil)
	if n := l.faults - codec.MaxFaults; n > 0 {
		l.all = append(l.all, Found{Path: dir, Err: &codec.MoreError{N: n}})
	}
	errs := []error{fmt.Errorf("%s: an OCI image layout, but no blob in it is a checkpoint", dir)}
	for _, f := range l.all {
		if f.Err != nil {
			errs = append(errs, f.Err)
		}
	}
	switch {
	case len(errs)-1 == len(l.all): // nothing but faults
		return nil, errors.Join(errs...)
	case len(l.all) == 1:
		l.all[0].Path, l.all[0].Checkpoint.Path = dir, dir
	}
	return l.all, nil
}

// fault notes that a file of the layout cannot be read.
func (l *ociLayout) fault(path string, err error) {
	if l.faults++; l.faults <= codec.MaxFaults {
		l.all = append(l.all, Found{Path: path, Err: err})
	}
}

// blob returns the path of a blob that was not looked into before. A digest is not
// trusted as a path.
func (l *ociLayout) blob(path string, d descriptor) (blob string, ok bool) {
	if l.seen[d.Digest] {
		return "", false
	}
	l.seen[d.Digest] = true
	m := digestForm().FindStringSubmatch(d.Digest)
	if m == nil {
		l.fault(path, &codec.FormatError{Path: path, Field: "digest", Err: fmt.Errorf("%q is no digest", d.Digest)})
		return "", false
	}
	if l.blobs++; l.blobs == maxBlobs+1 {
		l.fault(path, &codec.FormatError{Path: path, Field: "manifests", Err: fmt.Errorf("more than %d blobs", maxBlobs)})
	}
	if l.flat {
		return filepath.Join(l.dir, m[2]), l.blobs <= maxBlobs
	}
	return filepath.Join(l.dir, "blobs", m[1], m[2]), l.blobs <= maxBlobs
}

// manifest looks into the blobs that an index or a manifest lists. notes are the
// annotations of what led to it.
func (l *ociLayout) manifest(path string, b []byte, depth int, notes []Annotation) {
	if depth > maxNesting {
		l.fault(path, &codec.FormatError{Path: path, Field: "manifests", Err: fmt.Errorf("indexes nest deeper than %d", maxNesting)})
		return
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		l.fault(path, &codec.FormatError{Path: path, Field: "json", Err: err})
		return
	}
	notes = annotated(notes, m.Annotations)
	for _, d := range m.Manifests {
		l.descriptor(path, d, depth, annotated(notes, d.Annotations))
	}
	for _, d := range m.Layers {
		// An encrypted layer cannot be looked into.
		if strings.Contains(d.MediaType, "tar") && !strings.HasSuffix(d.MediaType, "+encrypted") {
			l.archive(path, d, annotated(notes, d.Annotations))
		}
	}
}

func (l *ociLayout) descriptor(path string, d descriptor, depth int, notes []Annotation) {
	switch {
	case d.MediaType == mediaCRIU:
		l.archive(path, d, notes)
		return
	case strings.Contains(d.MediaType, "manifest") || strings.Contains(d.MediaType, "index"):
	default:
		return // containerd keeps its options and the writable layer beside it
	}
	blob, ok := l.blob(path, d)
	if !ok {
		return
	}
	b, err := readManifest(blob)
	if err == nil {
		err = verify(blob, bytes.NewReader(b), d)
	}
	if err != nil {
		l.fault(blob, err)
		return
	}
	l.manifest(blob, b, depth+1, notes)
}

func readManifest(blob string) ([]byte, error) {
	if info, err := os.Stat(blob); err == nil && info.Size() > maxManifest {
		return nil, &codec.FormatError{Path: blob, Offset: maxManifest, Field: "json", Err: codec.ErrTooLarge}
	}
	return codec.ReadFile(blob)
}

// archive opens a blob that is, or as a layer may be, the archive of a checkpoint.
func (l *ociLayout) archive(path string, d descriptor, notes []Annotation) {
	blob, ok := l.blob(path, d)
	if !ok {
		return
	}
	all, err := l.open(blob, d)
	switch {
	case errors.Is(err, errNoCheckpoint) && d.MediaType != mediaCRIU: // an ordinary layer
	case err != nil:
		l.fault(blob, err)
	}
	for _, f := range all {
		if f.Err == nil {
			f.Checkpoint.Annotations = notes
		}
	}
	l.all = append(l.all, all...)
}

// open opens the checkpoints of an archive, and hashes the whole of it: damage may look
// like an archive that has none.
func (l *ociLayout) open(blob string, d descriptor) ([]Found, error) {
	r, size, err := codec.Dir(filepath.Dir(blob)).Open(filepath.Base(blob))
	if err != nil {
		return nil, err
	}
	f := r.(*os.File)
	defer f.Close()
	head := make([]byte, 2*rawtar.HeadSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	all, err := []Found(nil), fmt.Errorf("%s: %w", blob, errNoCheckpoint) // a layer need not be an archive that is known here
	if compression, ok := isArchive(head[:n], size); ok {
		all, err = readArchive(blob, f, f, size, compression, &l.budget, nil)
	}
	if err != nil && !errors.Is(err, errNoCheckpoint) {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	damage := verify(blob, f, d)
	if err != nil {
		return nil, cmp.Or(damage, err)
	}
	for _, c := range all {
		c.Checkpoint.problem(damage)
	}
	return all, nil
}
