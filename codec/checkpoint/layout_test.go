package checkpoint_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
)

// layout is an OCI image layout for a test.
type layout struct {
	t   *testing.T
	dir string
}

func newLayout(t *testing.T) layout { return layout{t, t.TempDir()} }

func (l layout) write(name string, b []byte) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
		l.t.Fatal(err)
	}
}

func blobName(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// put stores a blob and returns its digest.
func (l layout) put(b []byte) string {
	l.t.Helper()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	l.write(blobName(digest), b)
	return digest
}

// descriptor is a descriptor; kind ends its media type.
func descriptor(kind, digest string) string {
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":%q}`, kind, digest)
}

// image stores the manifest of an image with the layers, by their media types.
func (l layout) image(layers ...string) string {
	l.t.Helper()
	return descriptor("manifest.v1+json", l.put([]byte(`{"layers":[`+strings.Join(layers, ",")+`]}`)))
}

func (l layout) index(entries ...string) {
	l.t.Helper()
	l.write("index.json", []byte(`{"manifests":[`+strings.Join(entries, ",")+`]}`))
}

// TestImageLayout opens OCI image layouts: containerd's, with the images at the root
// of a blob, and that of an image with a checkpoint in a layer.
func TestImageLayout(t *testing.T) {
	containerd, podman, tagged := newLayout(t), newLayout(t), newLayout(t)
	images := fmt.Sprintf(`{"mediaType":"application/vnd.containerd.container.criu.checkpoint.criu.tar","digest":%q}`, containerd.put(imagesTar(t, "")))
	containerd.index(descriptor("index.v1+json", containerd.put([]byte(`{"manifests":[`+images+`]}`))),
		`{"mediaType":"application/vnd.containerd.container.checkpoint.options.v1+proto","digest":"sha256:00"}`)
	podman.index(podman.image(descriptor("layer.v1.tar+gzip", podman.put(makeTar(t, member{name: "etc/passwd"}))),
		descriptor("layer.v1.tar", podman.put(make([]byte, 10240))), // an empty one
		descriptor("layer.v1.tar", podman.put(compressors(t)["gzip"](imagesTar(t, "checkpoint/"))))))
	image := tagged.image(descriptor("layer.v1.tar", tagged.put(imagesTar(t, "checkpoint/"))))
	tagged.index(image, image)
	for _, l := range []layout{containerd, podman, tagged} {
		c, err := checkpoint.Open(l.dir)
		if err != nil {
			t.Fatal(err)
		}
		if n := countThreads(t, c); n != 8 || c.Path != l.dir || c.Kind != checkpoint.KindArchive || len(c.Problems) > 0 {
			t.Errorf("%d threads, path %s, kind %s, problems %v; want 8, %s, archive, none", n, c.Path, c.Kind, c.Problems, l.dir)
		}
	}
}

// TestDamagedLayout opens OCI image layouts of which a part is wrong: it is said what,
// and checkpoints elsewhere in the layout are there all the same.
func TestDamagedLayout(t *testing.T) {
	whole := imagesTar(t, "checkpoint/")
	after := slices.Concat(imagesTar(t, "checkpoint/")[:len(whole)-1024], makeTar(t, member{name: "rootfs-diff.tar", data: make([]byte, 3000)}))
	changed := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at]++
		return b
	}
	layer := func(l layout, b []byte) string { return l.image(descriptor("layer.v1.tar", l.put(b))) }
	altered := func(l layout, b []byte, at int) string {
		digest := l.put(b)
		l.write(blobName(digest), changed(b, at))
		return l.image(descriptor("layer.v1.tar", digest))
	}
	nothing := "an OCI image layout, but no blob in it is a checkpoint"
	inImage := bytes.Index(whole, []byte("core-22100.img")) + 512 + 2000
	tests := []struct {
		name string
		make func(layout) string // what the index lists
		// alone, no whole is found; else there is one, with this problem
		alone bool
		want  string
	}{
		{"digest that leads out", func(layout) string { return descriptor("manifest.v1+json", "sha256:../../../../etc/passwd") }, true, "is no digest"},
		{"manifest missing", func(layout) string { return descriptor("manifest.v1+json", "sha256:"+strings.Repeat("0", 64)) }, true, "000: no such file"},
		{"manifest altered", func(l layout) string {
			l.write(blobName("sha256:"+strings.Repeat("1", 64)), []byte(`{}`))
			return descriptor("manifest.v1+json", "sha256:"+strings.Repeat("1", 64))
		}, true, "the content is not that of sha256:111"},
		{"manifest no JSON", func(l layout) string { return descriptor("manifest.v1+json", l.put([]byte(`{`))) }, true, "json: "},
		{"layer missing", func(l layout) string { return l.image(descriptor("layer.v1.tar", "sha256:"+strings.Repeat("2", 64))) }, true, "222: no such file"},
		{"layer cut off", func(l layout) string { return layer(l, whole[:700]) }, true, "tar: the archive ends inside a member"},
		{"layer full of zeros", func(l layout) string {
			digest := l.put(whole)
			l.write(blobName(digest), make([]byte, len(whole)))
			return l.image(descriptor("layer.v1.tar", digest))
		}, true, "the content is not that of sha256:"},
		{"layer altered at its start", func(l layout) string { return altered(l, whole, 0) }, true, "the content is not that of sha256:"},
		{"layer altered", func(l layout) string { return altered(l, whole, inImage) }, false, "the content is not that of sha256:"},
		{"layer altered after the images", func(l layout) string { return altered(l, after, len(after)-2000) }, false, "the content is not that of sha256:"},
		{"layer altered, by SHA-512", func(l layout) string {
			digest := fmt.Sprintf("sha512:%x", sha512.Sum512(whole))
			l.write(blobName(digest), changed(whole, inImage))
			return l.image(descriptor("layer.v1.tar", digest))
		}, false, "the content is not that of sha512:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLayout(t)
			bad := tt.make(l)
			l.index(bad)
			c, err := checkpoint.Open(l.dir)
			switch {
			case tt.alone && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), nothing)):
				t.Errorf("error %v, want %q and %q", err, nothing, tt.want)
			case !tt.alone && err != nil:
				t.Error(err)
			case !tt.alone && (len(c.Problems) != 1 || !strings.Contains(c.Problems[0].Error(), tt.want)):
				t.Errorf("problems %v, want %q", c.Problems, tt.want)
			}
			l.index(bad, layer(l, imagesTar(t, "good/")))
			all, err := checkpoint.OpenAll(l.dir, checkpoint.Options{})
			if err != nil || len(all) != 2 {
				t.Fatalf("%d checkpoints, error %v; want 2", len(all), err)
			}
			problem := all[0].Err
			if !tt.alone {
				problem = errors.Join(all[0].Checkpoint.Problems...)
			}
			if problem == nil || !strings.Contains(problem.Error(), tt.want) || strings.Contains(problem.Error(), "\n") {
				t.Errorf("problem %v, want %q", problem, tt.want)
			}
			good := all[1].Checkpoint
			if n := countThreads(t, good); n != 8 || len(good.Problems) > 0 {
				t.Errorf("the good one has %d threads and problems %v, want 8 and none", n, good.Problems)
			}
			if _, err := checkpoint.Open(l.dir + ":good"); err != nil {
				t.Error(err)
			}
			if tt.alone { // what is wrong goes with the one that there is
				c, err := checkpoint.Open(l.dir)
				if err != nil || len(c.Problems) != 1 || countThreads(t, c) != 8 {
					t.Errorf("error %v, want one checkpoint with one problem", err)
				}
			}
		})
	}
}

// TestLayoutLimits gives layouts of endless faults.
func TestLayoutLimits(t *testing.T) {
	l := newLayout(t)
	var missing []string
	for i := range 2000 {
		missing = append(missing, descriptor("manifest.v1+json", fmt.Sprintf("sha256:%064x", i)))
	}
	l.index(missing...)
	_, err := checkpoint.Open(l.dir)
	if err == nil || strings.Count(err.Error(), "\n") != 11 || !strings.HasSuffix(err.Error(), "\nand 991 more") {
		t.Errorf("error %v, want one line for the layout, ten for its blobs and the count of 991 more", err)
	}
	nested := l.image()
	for range 6 {
		nested = descriptor("index.v1+json", l.put([]byte(`{"manifests":[`+nested+`]}`)))
	}
	l.index(nested)
	if _, err := checkpoint.Open(l.dir); err == nil || !strings.Contains(err.Error(), "nest deeper than 4") {
		t.Errorf("error %v, want one of the nesting", err)
	}
}
