package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// Annotation is one of an OCI image that tells of the checkpoint in it, by the program
// that packed it.
type Annotation struct {
	Name, Value string
}

// Limits on annotations: how many of an image are kept, and how long they may be, in
// bytes. Others are left out.
const (
	maxAnnotations = 64
	maxAnnotation  = 1024
)

// aboutCheckpoint tells the annotations that are about a checkpoint:
// org.criu.checkpoint.* of checkpointctl (lib/annotations.go),
// io.podman.annotations.checkpoint.* (libpod/define/annotations.go),
// io.kubernetes.cri-o.annotations.checkpoint.* (CRI-O, pkg/annotations), and those of
// fpuimg need.
func aboutCheckpoint(name string) bool {
	return strings.Contains(name, ".checkpoint.") || strings.HasPrefix(name, "io.github.fpuimg.need.")
}

// annotations are those of an index, a manifest or a descriptor. What is no string, which
// the specification forbids, is left out.
type annotations map[string]string

// UnmarshalJSON implements [json.Unmarshaler].
func (a *annotations) UnmarshalJSON(b []byte) error {
	var all map[string]any
	_ = json.Unmarshal(b, &all)
	*a = annotations{}
	for name, value := range all {
		if text, ok := value.(string); ok {
			(*a)[name] = text
		}
	}
	return nil
}

// annotated adds to annotations those that an index, a manifest or a descriptor has: what
// stands nearer to the layer counts.
func annotated(outer []Annotation, own annotations) []Annotation {
	if len(own) == 0 {
		return outer
	}
	var all []Annotation
	for name, value := range own {
		if aboutCheckpoint(name) && len(name) <= maxAnnotation && len(value) <= maxAnnotation {
			all = append(all, Annotation{name, value})
		}
	}
	for _, a := range outer {
		if _, nearer := own[a.Name]; !nearer {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b Annotation) int { return cmp.Compare(a.Name, b.Name) })
	return all[:min(len(all), maxAnnotations)]
}

// annotate looks for the annotations of the checkpoints in an OCI image layout that is an
// archive: the layers are named by digest in manifests, which index.json leads to.
func (w *walker) annotate() {
	layers := map[string][]*Checkpoint{} // by digest
	for _, f := range w.nested {
		if f.Err != nil {
			continue
		}
		inner := strings.TrimPrefix(f.Checkpoint.Archive().inner, w.inner+":")
		if d, ok := digestOf(inner); ok {
			layers[d.Digest] = append(layers[d.Digest], f.Checkpoint)
		}
	}
	if len(layers) > 0 {
		w.annotateLayers(layers, w.index, nil, 0)
	}
}

// annotateLayers goes through an index or a manifest.
func (w *walker) annotateLayers(layers map[string][]*Checkpoint, b []byte, outer []Annotation, depth int) {
	var m manifest
	if depth > maxNesting || json.Unmarshal(b, &m) != nil {
		return // the registers are there all the same
	}
	outer = annotated(outer, m.Annotations)
	for _, d := range m.Layers {
		for _, c := range layers[d.Digest] {
			c.Annotations = annotated(outer, d.Annotations)
		}
		delete(layers, d.Digest) // the first image that has it counts
	}
	for _, d := range m.Manifests {
		blob := w.manifests[d.Digest]
		delete(w.manifests, d.Digest)
		if blob != nil && verify(d.Digest, bytes.NewReader(blob), d) == nil {
			w.annotateLayers(layers, blob, annotated(outer, d.Annotations), depth+1)
		}
	}
}
