package checkpoint_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	"github.com/pierrec/lz4/v4"
)

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func digest(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// TestContainerImages opens archives of container images, whose layers are archives in
// them, as the commands write them.
func TestContainerImages(t *testing.T) {
	layer := imagesTar(t, "output/workarea/checkpoint/")
	other := makeTar(t, member{name: "etc/os-release", data: []byte("x")})
	blob := func(b []byte) member { return member{name: "blobs/sha256/" + digest(b), data: b} }
	config := member{name: digest(nil) + ".json", data: []byte("{}")}
	manifest := member{name: "manifest.json", data: []byte("[]")}
	oci := []member{{name: "oci-layout", data: []byte("{}")}, {name: "index.json", data: []byte("{}")}}
	id := strings.Repeat("a", 64)
	wrong := blob(other)
	wrong.data = layer
	for _, tt := range []struct {
		name     string
		file     []byte
		problems int
	}{
		{"podman save", makeTar(t, member{name: digest(other) + ".tar", data: other}, member{name: digest(layer) + ".tar", data: layer}, config, manifest), 0},
		{"docker save of old", makeTar(t, member{name: id + "/VERSION", data: []byte("1.0")}, member{name: id + "/layer.tar", data: layer}, config, manifest), 0},
		{"docker save", makeTar(t, append(oci, blob(other), blob(layer), manifest)...), 0},
		{"oci-archive", makeTar(t, append(oci, blob(gz(other)), blob(gz(layer)))...), 0},
		{"oci-archive, compressed too", gz(makeTar(t, append(oci, blob(gz(layer)))...)), 0},
		{"oci-archive in an archive", makeTar(t, member{name: "bundle/image.tar", data: makeTar(t, append(oci, blob(gz(layer)))...)}), 0},
		{"a blob of another digest", makeTar(t, append(oci, wrong)...), 1},
		{"a blob of another digest, compressed", gz(makeTar(t, append(oci, wrong)...)), 1},
		{"an archive in an archive", makeTar(t, member{name: "checkpoint.tar.gz", data: gz(layer)}, member{name: "notes", data: bytes.Repeat([]byte("x"), 600)}), 0},
		{"no name of an archive", makeTar(t, member{name: "web", data: layer}), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.tar")
			write(t, filepath.Dir(path), "x.tar", tt.file)
			file, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			all, err := found(checkpoint.ReadAll(path, struct{ *bytes.Buffer }{bytes.NewBuffer(tt.file)}, checkpoint.Options{}))
			if err != nil || len(all) != 1 {
				t.Fatal(len(all), err)
			}
			for _, c := range []*checkpoint.Checkpoint{file, all[0]} {
				if c.Path != path || countThreads(t, c) != 8 || len(c.Problems) != tt.problems || c.ReadOnly == "" {
					t.Errorf("%s: problems %v, read-only %q", c.Path, c.Problems, c.ReadOnly)
				}
			}
		})
	}
}

// TestNestedArchives names each of several checkpoints, and looks no deeper than it says.
func TestNestedArchives(t *testing.T) {
	inner := makeTar(t, member{name: "a.tar", data: imagesTar(t, "one/")}, member{name: "b.tar", data: imagesTar(t, "")})
	path := filepath.Join(t.TempDir(), "x.tar")
	write(t, filepath.Dir(path), "x.tar", makeTar(t, member{name: "in.tar", data: inner}))
	all, err := checkpoint.OpenAll(path, checkpoint.Options{})
	if err != nil || len(all) != 2 || all[0].Path != path+":in.tar:a.tar:one" || all[1].Path != path+":in.tar:b.tar:." {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, f := range all {
		c, err := checkpoint.Open(f.Path)
		if err != nil || countThreads(t, c) != 8 {
			t.Errorf("%s: %v", f.Path, err)
		}
	}
	write(t, filepath.Dir(path), "x.tar", makeTar(t, member{name: "in.tar", data: makeTar(t, member{name: "in.tar", data: inner})}))
	if _, err := checkpoint.Open(path); err == nil || !strings.Contains(err.Error(), "no checkpoint in the archive") {
		t.Errorf("error %v, want that there is none", err)
	}
}

// capture is what criu-image-streamer makes of a checkpoint's files, in pieces of 1000 bytes.
func capture(t *testing.T, name string) []byte {
	var out []byte
	put := func(m ...byte) { out = append(binary.LittleEndian.AppendUint32(out, uint32(len(m))), m...) }
	for _, path := range testimg.Glob(t, name+"/*.img") {
		base := filepath.Base(path)
		put(append([]byte{0x08, 1, 0x12, byte(len(base))}, base...)...)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			n := min(1000, len(b))
			put(0x18, byte(n&0x7f|0x80), byte(n>>7))
			out, b = append(out, b[:n]...), b[n:]
		}
		put(0x20, 1)
	}
	put(0x28, 1)
	return out
}

// TestCapture opens captures of criu-image-streamer, and what is left of one.
func TestCapture(t *testing.T) {
	whole := capture(t, "h-tree3")
	var packed bytes.Buffer
	w := lz4.NewWriter(&packed)
	w.Write(whole)
	w.Close()
	for name, b := range map[string][]byte{"plain": whole, "lz4": packed.Bytes(), "gzip": gz(whole)} {
		c, err := found(checkpoint.ReadAll("img", bytes.NewReader(b), checkpoint.Options{}))
		if err != nil || len(c) != 1 {
			t.Fatal(name, err)
		}
		if got, want := threads(c[0]), "25000/25000 25004/25004 25005/25005"; got != want || len(c[0].Problems) > 0 || c[0].ReadOnly == "" {
			t.Errorf("%s: threads %q, want %q; problems %v", name, got, want, c[0].Problems)
		}
	}
	for n := range whole {
		if n > 400 && n%37 != 0 || n%testcmd.Step != 0 {
			continue
		}
		all, err := found(checkpoint.ReadAll("img", bytes.NewReader(whole[:n]), checkpoint.Options{}))
		if err == nil && len(all[0].Problems) == 0 {
			t.Errorf("cut at %d: no error", n)
		}
	}
}

// TestCompressed reads core images and ELF cores that are compressed.
func TestCompressed(t *testing.T) {
	for _, tt := range []struct{ dir, name string }{{"h-avx512", "core-20000.img"}, {"core-kernel", "core.27620"}} {
		b := testimg.Read(t, tt.dir, tt.name)
		plain, err := found(checkpoint.ReadAll(tt.name, bytes.NewReader(b), checkpoint.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		packed, err := found(checkpoint.ReadAll(tt.name+".gz", bytes.NewReader(gz(b)), checkpoint.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := threads(packed[0]), threads(plain[0]); got != want || packed[0].Kind != plain[0].Kind {
			t.Errorf("%s: threads %q, want %q", tt.name, got, want)
		}
		if _, err := checkpoint.ReadAll("twice", bytes.NewReader(gz(gz(b))), checkpoint.Options{}); err == nil {
			t.Error("what is compressed twice is read")
		}
	}
}
