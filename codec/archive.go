package codec

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/internal/rawtar"
)

// Limits on what an archive may make the reader hold. A core image is a few KiB.
const (
	maxHeld   = 256 << 20 // see budget
	heldRatio = 8         // see budget
	maxConfig = 4 << 20   // config.dump, spec.dump
	maxName   = 4 << 10   // of a member; no system takes a longer path
	dirHeld   = 16 << 10  // what a directory with images counts for, besides them
	fileHeld  = 256       // what an image counts for, besides its bytes
)

// budget bounds what one input costs, over all its blobs and their members together:
// what is held of them stays below maxHeld and heldRatio times what was read.
type budget struct {
	rawtar.Budget
	held int64
}

// hold counts n bytes more. It reports whether they are within the bound.
func (b *budget) hold(n int64) bool {
	b.held += n
	return b.held <= b.mayHold()
}

func (b *budget) mayHold() int64 { return maxHeld + heldRatio*b.In }

// Container is what an engine recorded of the container that a checkpoint was
// taken of. Fields that are not known are empty.
type Container struct {
	Name    string
	Image   string
	Engine  string // "Podman", "CRI-O", "containerd"
	Runtime string // "runc", "crun"
}

// archive collects the checkpoints of a tar archive in one pass.
type archive struct {
	path        string
	compression rawtar.Compression
	dirs        map[string]*archiveDir
	order       []string          // of dirs
	notes       map[string][]byte // config.dump and spec.dump, by their place
	links       map[string]int64  // where links stand, by their cleaned names
	budget      *budget
	unfit       []error // members with images whose names cannot be used
	oci         bool    // it is an OCI image layout
}

// archiveDir is one directory of an archive that holds images.
type archiveDir struct {
	files map[string]archived
	twice []error
}

// archived is one image in an archive, or why it cannot be read.
type archived struct {
	b      []byte
	err    error
	sparse bool // in the archive: b is what it expands to
}

// readArchive reads the checkpoints of an archive. size is that of the file if r can
// seek, else -1.
func readArchive(name string, r io.Reader, file io.ReadSeeker, size int64, c rawtar.Compression, b *budget) ([]*Checkpoint, error) {
	a := &archive{path: name, compression: c, dirs: map[string]*archiveDir{}, notes: map[string][]byte{}, links: map[string]int64{}, budget: b}
	var err error
	if c == rawtar.None && file != nil {
		err = a.walk(rawtar.NewSeeker(file, 0, size))
	} else {
		dec, derr := rawtar.NewDecoder(r, c, &b.Budget)
		if derr != nil {
			return nil, a.wrap(derr)
		}
		defer dec.Close()
		if err = a.walk(rawtar.NewReader(dec)); err == nil && c != rawtar.None {
			// What compressors check of the content stands at its end.
			if _, err = io.Copy(io.Discard, dec); err != nil {
				err = a.wrap(err)
			}
		}
	}
	ckpts := a.checkpoints()
	switch {
	case err != nil && len(ckpts) == 0:
		return nil, err
	case len(ckpts) == 0 && a.predump():
		return nil, fmt.Errorf("%s: %w: only a pre-dump, which holds memory but no registers", name, errNoCheckpoint)
	case len(ckpts) == 0 && len(a.unfit) > 0:
		return nil, a.unfit[0]
	case len(ckpts) == 0 && a.oci:
		return nil, fmt.Errorf("%s: an OCI image layout; unpack it into a directory, and name that", name)
	case len(ckpts) == 0:
		return nil, fmt.Errorf("%s: %w: no directory holds a pstree.img or a core-*.img", name, errNoCheckpoint)
	}
	for _, ckpt := range ckpts {
		if err != nil {
			ckpt.Problems = AppendFault(ckpt.Problems, err)
		}
	}
	return ckpts, nil
}

// wrap names the archive in an error of the walk.
func (a *archive) wrap(err error) error {
	var format *FormatError
	var tarErr *rawtar.Error
	switch {
	case errors.As(err, &format):
		return err
	case errors.As(err, &tarErr) && tarErr.Offset == 0 && a.compression != rawtar.None:
		return &FormatError{a.path, 0, string(a.compression), errors.New("what it decompresses to is no tar archive")}
	case errors.As(err, &tarErr):
		return &FormatError{a.path, tarErr.Offset, "tar", errors.New(tarErr.Reason)}
	case a.compression != rawtar.None:
		return &CompressionError{a.path, string(a.compression), err}
	}
	return fmt.Errorf("%s: %w", a.path, err)
}

// isImage reports whether the file is one that the reader needs.
func isImage(base string) bool {
	switch base {
	case "pstree.img", "cpuinfo.img", "inventory.img":
		return true
	}
	_, ok := coreTID(base)
	return ok
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
func (a *archive) walk(tr *rawtar.Reader) error {
	for {
		m, _, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return a.wrap(err)
		}
		if m.Type == tar.TypeLink || m.Type == tar.TypeSymlink {
			if err := a.link(m); err != nil {
				return err
			}
		}
		switch base := path.Base(m.Name); {
		case isImage(base):
			err = a.image(tr, m)
		case base == "config.dump" || base == "spec.dump":
			err = a.note(tr, m)
		case base == "oci-layout":
			a.oci = a.oci || path.Clean(m.Name) == base
		}
		if err != nil {
			return err
		}
	}
}

// link notes a link: what is unpacked below its name lands elsewhere.
func (a *archive) link(m *rawtar.Member) error {
	name := strings.TrimLeft(m.Name, "/") // as tar does
	if len(name) > maxName {
		return nil
	}
	name = path.Clean(name)
	if _, twice := a.links[name]; !twice {
		a.links[name] = m.Offset
		return a.hold(m, int64(len(name))+fileHeld)
	}
	return nil
}

// note reads a description of the container.
func (a *archive) note(tr *rawtar.Reader, m *rawtar.Member) error {
	clean, err := memberName(m.Name)
	if err != nil || !m.Regular() || m.Size > maxConfig {
		return nil
	}
	a.notes[clean], err = a.data(tr, m)
	return err
}

// image reads an image, or notes why it cannot be read.
func (a *archive) image(tr *rawtar.Reader, m *rawtar.Member) error {
	clean, err := memberName(m.Name)
	if err != nil {
		a.unfit = AppendFault(a.unfit, &FormatError{a.path, m.Offset, "tar", fmt.Errorf("an image is left out: its name %w", err)})
		return nil
	}
	dir, base := path.Dir(clean), path.Base(clean)
	d := a.dirs[dir]
	if d == nil {
		if err := a.hold(m, dirHeld); err != nil {
			return err
		}
		d = &archiveDir{files: map[string]archived{}}
		a.dirs[dir] = d
		a.order = append(a.order, dir)
	}
	label := a.label(dir, base)
	if _, twice := d.files[base]; twice {
		d.twice = AppendFault(d.twice, &FormatError{label, m.Offset, "tar", errors.New("a second member of this name; the last one counts")})
	}
	f := archived{}
	switch {
	case m.Type == tar.TypeLink:
		f.err = &FormatError{label, m.Offset, "tar", errHardLink}
	case !m.Regular() && !m.Sparse:
		f.err = &FormatError{label, m.Offset, "tar", errIrregular}
	case m.Size > maxImage:
		f.err = &FormatError{label, maxImage, "file", errTooLarge}
	default:
		if f.b, err = a.data(tr, m); err != nil {
			return err
		}
		if m.Sparse {
			f.sparse = true
			f.b, f.err = expand(label, m, f.b)
			if err := a.hold(m, int64(len(f.b))); err != nil {
				return err
			}
		}
	}
	d.files[base] = f
	return a.hold(m, fileHeld)
}

// hold counts what is kept of a member.
func (a *archive) hold(m *rawtar.Member, n int64) error {
	if a.budget.hold(n) {
		return nil
	}
	return &FormatError{a.path, m.Offset, "tar", fmt.Errorf("more than %d MiB of images and their directories", a.budget.mayHold()>>20)}
}

// data reads a member whose size was checked.
func (a *archive) data(tr *rawtar.Reader, m *rawtar.Member) ([]byte, error) {
	if err := a.hold(m, m.Size); err != nil {
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
			return nil, a.wrap(err)
		}
	}
	if a.compression == rawtar.None {
		a.budget.In += m.Size
	}
	return b, nil
}

// expand gives the content of a member that is stored as a sparse file.
func expand(label string, m *rawtar.Member, b []byte) ([]byte, error) {
	pad := make([]byte, -len(b)&511)
	tr := tar.NewReader(bytes.NewReader(slices.Concat(m.Header, b, pad)))
	h, err := tr.Next()
	switch {
	case err != nil:
		return nil, &FormatError{label, 0, "tar", err}
	case h.Size > maxImage:
		return nil, &FormatError{label, maxImage, "file", errTooLarge}
	}
	out, err := io.ReadAll(tr)
	if err != nil {
		return nil, &FormatError{label, 0, "tar", err}
	}
	return out, nil
}

// label names a file in the archive for messages.
func (a *archive) label(dir, base string) string { return inArchive(a.path, dir, base) }

// inArchive names a file in an archive: "x.tar:checkpoint/core-1.img". At the root it
// is "x.tar:./core-1.img", whose last element is the file's name too.
func inArchive(archive, dir, base string) string { return archive + ":" + dir + "/" + base }

// predump reports whether the archive has images, but only such as a pre-dump
// writes.
func (a *archive) predump() bool { return len(a.order) > 0 }

// checkpoints makes a checkpoint of each directory that has cores or names them.
func (a *archive) checkpoints() []*Checkpoint {
	var out []*Checkpoint
	for _, dir := range a.order {
		d := a.dirs[dir]
		registers := false
		for base := range d.files {
			_, core := coreTID(base)
			registers = registers || core || base == "pstree.img"
		}
		if !registers {
			continue
		}
		c := &Checkpoint{Path: a.path, Kind: KindArchive, dir: dir, archive: a.path, files: d.files}
		c.Problems = AppendFault(c.Problems, d.twice...)
		c.Problems = AppendFault(c.Problems, a.unfit...)
		for p := dir; p != "."; p = path.Dir(p) {
			if at, ok := a.links[p]; ok {
				c.Problems = AppendFault(c.Problems, &FormatError{a.label(path.Dir(p), path.Base(p)), at, "tar", errLinkAbove})
			}
		}
		c.Container = parseContainer(a.notes[path.Join(dir, "../config.dump")], a.notes[path.Join(dir, "../spec.dump")])
		out = append(out, c)
	}
	for _, c := range out {
		if len(out) > 1 {
			c.Path = a.path + ":" + c.dir
		}
		if err := c.readAll(); err != nil {
			c.Problems = append(c.Problems, err)
		}
	}
	return out
}

// parseContainer reads what an engine wrote beside a checkpoint: Podman, CRI-O and
// containerd all write config.dump, and the OCI runtime specification as spec.dump.
// Neither matters for the registers, so what cannot be read is left out.
func parseContainer(config, spec []byte) *Container {
	if config == nil && spec == nil {
		return nil
	}
	var conf struct {
		Name    string `json:"name"`
		Image   string `json:"rootfsImageName"`
		Runtime string `json:"runtime"`
	}
	var sp struct {
		Annotations map[string]string `json:"annotations"`
	}
	_ = json.Unmarshal(config, &conf)
	_ = json.Unmarshal(spec, &sp)
	c := &Container{Name: conf.Name, Image: conf.Image, Runtime: conf.Runtime}
	switch notes := sp.Annotations; {
	case notes["io.container.manager"] == "libpod":
		c.Engine = "Podman"
	case notes["io.container.manager"] == "cri-o" || notes["io.kubernetes.cri-o.Metadata"] != "":
		c.Engine = "CRI-O"
		var meta struct {
			Name string `json:"name"`
		}
		if json.Unmarshal([]byte(notes["io.kubernetes.cri-o.Metadata"]), &meta) == nil && meta.Name != "" {
			c.Name = meta.Name
		}
	case notes["io.kubernetes.cri.container-name"] != "":
		c.Engine = "containerd"
		if c.Name == "" {
			c.Name = notes["io.kubernetes.cri.container-name"]
		}
	}
	if *c == (Container{}) {
		return nil
	}
	return c
}

// dirContainer reads the description that stands beside a directory of images, if it
// is named as engines name it.
func dirContainer(dir string) *Container {
	if filepath.Base(dir) != "checkpoint" {
		return nil
	}
	read := func(base string) []byte {
		b, err := ReadFile(filepath.Join(filepath.Dir(dir), base))
		if err != nil || len(b) > maxConfig {
			return nil
		}
		return b
	}
	return parseContainer(read("config.dump"), read("spec.dump"))
}

// fileInArchive is [ReadFile] for a checkpoint that an archive holds.
func (c *Checkpoint) fileInArchive(name string) ([]byte, error) {
	f, ok := c.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: c.file(name), Err: fs.ErrNotExist}
	}
	return f.b, f.err
}

// Sparse reports whether one of the checkpoint's files is stored in an archive as a
// sparse file, and names it for messages.
func (c *Checkpoint) Sparse(name string) (label string, sparse bool) {
	return c.file(name), c.files[name].sparse
}

// Unreadable reports whether this stands for a blob of an OCI image layout in which
// nothing could be read: it has problems, and neither threads nor an [Checkpoint.Archive].
func (c *Checkpoint) Unreadable() bool { return c.Kind == KindArchive && c.archive == "" }

// Archive returns the archive that holds the checkpoint and the directory in it,
// "." for its root; "" for a checkpoint that is in no archive.
func (c *Checkpoint) Archive() (file, dir string) { return c.archive, c.dir }
