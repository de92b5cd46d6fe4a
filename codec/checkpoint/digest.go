package checkpoint

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/fpuimg/fpuimg/codec"
)

// descriptor names a blob (OCI image specification, descriptor.md).
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`

	Annotations annotations `json:"annotations"`
}

// digestForm matches a digest; it is compiled when the first layout is
// read, since most runs read none.
var digestForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([a-z0-9]+):([a-f0-9]{32,128})$`)
})

// digestOf reads the digest of a blob from its place in a layout, blobs/sha256/HEX.
func digestOf(name string) (d descriptor, ok bool) {
	dir, digits := path.Split(name)
	dir, algorithm := path.Split(path.Clean(dir))
	if d.Digest = algorithm + ":" + digits; path.Base(dir) != "blobs" || !digestForm().MatchString(d.Digest) {
		return descriptor{}, false
	}
	return d, true
}

// verify compares what a blob holds with its digest. Algorithms that the
// specification does not name go unchecked.
func verify(blob string, r io.Reader, d descriptor) error {
	h := newHash(d)
	if h == nil {
		return nil
	}
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	return d.check(blob, h)
}

// newHash returns what hashes a blob, nil for an unknown algorithm.
func newHash(d descriptor) hash.Hash {
	switch algorithm, _, _ := strings.Cut(d.Digest, ":"); algorithm {
	case "sha256":
		return sha256.New()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// check compares the digest with what was hashed.
func (d descriptor) check(blob string, h hash.Hash) error {
	if _, want, _ := strings.Cut(d.Digest, ":"); hex.EncodeToString(h.Sum(nil)) != want {
		return &codec.FormatError{Path: blob, Field: "digest", Err: fmt.Errorf("the content is not that of %s", d.Digest)}
	}
	return nil
}
