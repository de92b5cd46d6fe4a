package codec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
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

// descriptor names a blob (OCI image specification, descriptor.md).
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
}

// manifest is an image index or manifest: what both have of blobs.
type manifest struct {
	Manifests []descriptor `json:"manifests"`
	Layers    []descriptor `json:"layers"`
}

// ociLayout is an OCI image layout while it is searched.
type ociLayout struct {
	dir   string
	opts  Options
	blobs int
	out   []*Checkpoint
}

// openLayout opens the checkpoints in the blobs of an OCI image layout (OCI image
// specification, image-layout.md). The result is nil if dir is none.
func openLayout(dir string, o Options) ([]*Checkpoint, error) {
	index := filepath.Join(dir, "index.json")
	b, err := ReadFile(index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := &ociLayout{dir: dir, opts: o}
	if err := l.manifest(index, b, 0); err != nil {
		return nil, err
	}
	if len(l.out) == 0 {
		return nil, fmt.Errorf("%s: an OCI image layout, but no blob in it is a checkpoint", dir)
	}
	if len(l.out) == 1 {
		l.out[0].Path = dir
	}
	return l.out, nil
}

// digestForm matches a digest; it is compiled when the first layout is
// read, since most runs read none.
var digestForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([a-z0-9]+):([a-f0-9]{32,128})$`)
})

// blob returns the path of a blob. A digest is not trusted as a path.
func (l *ociLayout) blob(d descriptor) (string, error) {
	m := digestForm().FindStringSubmatch(d.Digest)
	if m == nil {
		return "", &FormatError{filepath.Join(l.dir, "index.json"), 0, "digest", fmt.Errorf("%q is no digest", d.Digest)}
	}
	return filepath.Join(l.dir, "blobs", m[1], m[2]), nil
}

func (l *ociLayout) manifest(path string, b []byte, depth int) error {
	if depth > maxNesting {
		return &FormatError{path, 0, "manifests", fmt.Errorf("indexes nest deeper than %d", maxNesting)}
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return &FormatError{path, 0, "json", err}
	}
	for _, d := range m.Manifests {
		if err := l.descriptor(path, d, depth); err != nil {
			return err
		}
	}
	for _, d := range m.Layers {
		if err := l.archive(path, d, false); err != nil {
			return err
		}
	}
	return nil
}

func (l *ociLayout) descriptor(path string, d descriptor, depth int) error {
	switch {
	case d.MediaType == mediaCRIU:
		return l.archive(path, d, true)
	case strings.Contains(d.MediaType, "manifest") || strings.Contains(d.MediaType, "index"):
	default:
		return nil // containerd keeps its options and the writable layer beside it
	}
	if err := l.count(path); err != nil {
		return err
	}
	blob, err := l.blob(d)
	if err != nil {
		return err
	}
	if info, err := os.Stat(blob); err == nil && info.Size() > maxManifest {
		return &FormatError{blob, maxManifest, "json", errTooLarge}
	}
	b, err := ReadFile(blob)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(b); strings.HasPrefix(d.Digest, "sha256:") && d.Digest != "sha256:"+hex.EncodeToString(sum[:]) {
		return &FormatError{blob, 0, "digest", fmt.Errorf("the content is not that of %s", d.Digest)}
	}
	return l.manifest(blob, b, depth+1)
}

func (l *ociLayout) count(path string) error {
	if l.blobs++; l.blobs > maxBlobs {
		return &FormatError{path, 0, "manifests", fmt.Errorf("more than %d blobs", maxBlobs)}
	}
	return nil
}

// archive opens a blob that is, or as a layer may be, the archive of a checkpoint.
func (l *ociLayout) archive(path string, d descriptor, must bool) error {
	if !must && !strings.Contains(d.MediaType, "tar") {
		return nil
	}
	if err := l.count(path); err != nil {
		return err
	}
	blob, err := l.blob(d)
	if err != nil {
		return err
	}
	info, err := os.Lstat(blob)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &FormatError{blob, 0, "file", errIrregular}
	}
	all, err := OpenAll(blob, Options{})
	if err != nil {
		if must {
			return err
		}
		return nil // an ordinary layer
	}
	for _, c := range all {
		if c.Kind == KindArchive {
			l.out = append(l.out, c)
		}
	}
	return nil
}
