package checkpoint_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
)

// annotatedImage is an image layout whose manifest has annotations, beside those of its
// index and of the descriptors that lead to the layer.
func annotatedImage(t *testing.T, index, descriptor, manifest, layer string) layout {
	t.Helper()
	l := newLayout(t)
	entry := func(kind string, b []byte, notes string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":%q,"annotations":%s}`, kind, l.put(b), notes)
	}
	blob := entry("layer.v1.tar", imagesTar(t, "checkpoint/"), layer)
	image := entry("manifest.v1+json", fmt.Appendf(nil, `{"layers":[%s],"annotations":%s}`, blob, manifest), descriptor)
	l.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	l.write("index.json", fmt.Appendf(nil, `{"manifests":[%s],"annotations":%s}`, image, index))
	return l
}

// annotationsOf reads the annotations of a layout: from the directory, from its archive
// with the manifest before the layer and behind it, and from a stream of that.
func annotationsOf(t *testing.T, l layout) []checkpoint.Annotation {
	t.Helper()
	ckpt, err := checkpoint.Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	want := ckpt.Annotations
	var members []member
	err = filepath.WalkDir(l.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(l.dir, path)
		b, err := os.ReadFile(path)
		members = append(members, member{name: name, data: b})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		path := filepath.Join(t.TempDir(), "x.tar")
		b := makeTar(t, members...)
		write(t, filepath.Dir(path), "x.tar", b)
		file, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		all, err := checkpoint.ReadAll("x.tar", bytes.NewBuffer(gz(b)), checkpoint.Options{})
		if err != nil || len(all) != 1 {
			t.Fatal(len(all), err)
		}
		for _, got := range [][]checkpoint.Annotation{file.Annotations, all[0].Checkpoint.Annotations} {
			if !slices.Equal(got, want) {
				t.Errorf("the archive has %v, and the directory %v", got, want)
			}
		}
		slices.Reverse(members)
	}
	return want
}

// TestAnnotations reads what checkpointctl 1.6.0 had buildah 1.28.2 write of p-none.
func TestAnnotations(t *testing.T) {
	const manifest = `{"org.criu.checkpoint.container.name":"p-none","org.criu.checkpoint.engine.name":"Podman","org.criu.checkpoint.pod.name":"",` +
		`"org.criu.checkpoint.pod.namespace":"","org.criu.checkpoint.rootfsImageID":"","org.criu.checkpoint.rootfsImageName":"localhost/fpat:1",` +
		`"org.criu.checkpoint.rootfsImageUserRequested":"","org.criu.checkpoint.runtime.name":"runc","org.opencontainers.image.base.digest":"","org.opencontainers.image.base.name":""}`
	var all map[string]string
	if err := json.Unmarshal([]byte(manifest), &all); err != nil {
		t.Fatal(err)
	}
	got := annotationsOf(t, annotatedImage(t, `{}`, `{"org.opencontainers.image.ref.name":"web"}`, manifest, `{}`))
	if len(got) != 8 || !slices.IsSortedFunc(got, func(a, b checkpoint.Annotation) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%v", got)
	}
	for _, a := range got {
		if value, ok := all[a.Name]; !ok || value != a.Value || !strings.HasPrefix(a.Name, "org.criu.checkpoint.") {
			t.Errorf("%v", a)
		}
	}
}

// TestAnnotationsNearer has the same name at each place, of which that nearest to the layer
// counts, and names of other programs.
func TestAnnotationsNearer(t *testing.T) {
	const a, b, c, d = "io.podman.annotations.checkpoint.name", "io.kubernetes.cri-o.annotations.checkpoint.name", "io.github.fpuimg.need.level", "org.criu.checkpoint.host.arch"
	note := func(value string, names ...string) string {
		all := map[string]string{"org.opencontainers.image.title": value, "checkpoint": value}
		for _, name := range names {
			all[name] = value
		}
		text, _ := json.Marshal(all)
		return string(text)
	}
	got := annotationsOf(t, annotatedImage(t, note("index", a, b, c, d), note("descriptor", a, b, c), note("manifest", a, b), note("layer", a)))
	want := []checkpoint.Annotation{{c, "descriptor"}, {b, "manifest"}, {a, "layer"}, {d, "index"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestAnnotationsHostile has annotations that are none, too long or too many; the
// checkpoint is there all the same.
func TestAnnotationsHostile(t *testing.T) {
	many := map[string]string{"org.criu.checkpoint." + strings.Repeat("x", 2000): "name", "org.criu.checkpoint.a": strings.Repeat("v", 2000)}
	for i := range 2_000 {
		many[fmt.Sprintf("org.criu.checkpoint.%05d", i)] = "v"
	}
	text, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	if got := annotationsOf(t, annotatedImage(t, string(text), string(text), string(text), string(text))); len(got) != 64 || got[63].Name != "org.criu.checkpoint.00063" {
		t.Errorf("%d annotations", len(got))
	}
	for _, none := range []string{`null`, `[]`, `7`, `"org.criu.checkpoint.a"`, `{"org.criu.checkpoint.a":7}`, `{"org.criu.checkpoint.a":{}}`} {
		if got := annotationsOf(t, annotatedImage(t, none, none, none, none)); len(got) != 0 {
			t.Errorf("%s: %v", none, got)
		}
	}
}
