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
	maxHeld   = 256 << 20 // all images and descriptions of one archive
	maxConfig = 4 << 20   // config.dump, spec.dump
	maxName   = 4 << 10   // of a member; no system takes a longer path
	dirHeld   = 16 << 10  // what a directory with images counts for, besides them
)

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
	held        int64
	unfit       []error // members with images whose names cannot be used
	oci         bool    // it is an OCI image layout
}

// archiveDir is one directory of an archive that holds images.
type archiveDir struct {
	files  map[string]archived
	twice  []error
	judged int // how much had been read when complete last said no
}

// maxProblems bounds the faults of one kind that are kept.
const maxProblems = 10

// archived is one image in an archive, or why it cannot be read.
type archived struct {
	b      []byte
	err    error
	sparse bool // in the archive: b is what it expands to
}

// readArchive reads the checkpoints of an archive. size is that of the file if r can
// seek, else -1.
func readArchive(name string, r io.Reader, file io.ReadSeeker, size int64, c rawtar.Compression, whole bool) ([]*Checkpoint, error) {
	a := &archive{path: name, compression: c, dirs: map[string]*archiveDir{}, notes: map[string][]byte{}}
	var tr *rawtar.Reader
	seekable := c == rawtar.None && file != nil
	if seekable {
		tr = rawtar.NewSeeker(file, 0, size)
	} else {
		dec, err := rawtar.NewDecoder(r, c)
		if err != nil {
			return nil, a.wrap(err)
		}
		defer dec.Close()
		tr = rawtar.NewReader(dec)
	}
	err := a.walk(tr, seekable || whole)
	if format, ok := errors.AsType[*FormatError](err); ok && format.Offset == 0 && c != rawtar.None {
		err = &FormatError{name, 0, string(c), errors.New("what it decompresses to is no tar archive")}
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
			ckpt.Problems = append(ckpt.Problems, err)
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

// walk reads the archive. Where data must be decompressed to be skipped, it stops
// once nothing is to come that would be used.
func (a *archive) walk(tr *rawtar.Reader, whole bool) error {
	last := ""
	for {
		m, _, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return a.wrap(err)
		}
		base := path.Base(m.Name)
		config := base == "config.dump" || base == "spec.dump"
		if !isImage(base) && !config {
			a.oci = a.oci || path.Clean(m.Name) == "oci-layout"
			if dir := path.Dir(path.Clean(m.Name)); !whole && m.Type != rawtar.TypeDir && dir != last && a.complete(last) {
				return nil
			}
			continue
		}
		clean, err := memberName(m.Name)
		if err != nil {
			if !config && len(a.unfit) < maxProblems {
				a.unfit = append(a.unfit, &FormatError{a.path, m.Offset, "tar", fmt.Errorf("an image is left out: its name %w", err)})
			}
			continue
		}
		if config {
			if m.Regular() && m.Size <= maxConfig && a.notes[clean] == nil {
				if a.notes[clean], err = a.data(tr, m); err != nil {
					return err
				}
			}
			continue
		}
		dir := path.Dir(clean)
		last = dir
		d := a.dirs[dir]
		if d == nil {
			if err := a.hold(m, dirHeld); err != nil {
				return err
			}
			d = &archiveDir{files: map[string]archived{}}
			a.dirs[dir] = d
			a.order = append(a.order, dir)
		}
		if _, twice := d.files[base]; twice && len(d.twice) < maxProblems {
			d.twice = append(d.twice, &FormatError{a.label(dir, base), m.Offset, "tar", errors.New("a second member of this name; the last one counts")})
		}
		f := archived{}
		label := a.label(dir, base)
		switch {
		case m.Type == rawtar.TypeLink:
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
	}
}

// hold counts what is kept of a member.
func (a *archive) hold(m *rawtar.Member, n int64) error {
	if a.held += n; a.held > maxHeld {
		return &FormatError{a.path, m.Offset, "tar", fmt.Errorf("more than %d MiB of images and their directories", maxHeld>>20)}
	}
	return nil
}

// data reads a member whose size was checked.
func (a *archive) data(tr *rawtar.Reader, m *rawtar.Member) ([]byte, error) {
	if err := a.hold(m, m.Size); err != nil {
		return nil, err
	}
	var b bytes.Buffer // grows with what is there, not with what the header says
	if _, err := io.CopyN(&b, tr, m.Size); err != nil {
		return nil, a.wrap(err)
	}
	return b.Bytes(), nil
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

// complete reports whether the rest of a compressed archive can be left unread: the
// directory is where Podman, CRI-O and containerd put the one checkpoint of an
// archive, all threads that its pstree.img names were read, and the description of
// the container was, which stands beside it. Its other files came before, since the
// walk has left the directory.
func (a *archive) complete(dir string) bool {
	d := a.dirs[dir]
	if d == nil || dir != "checkpoint" || a.notes["config.dump"] == nil || d.judged == len(d.files) {
		return false
	}
	d.judged = len(d.files)
	tree, ok := d.files["pstree.img"]
	if !ok || tree.err != nil {
		return false
	}
	tasks, err := parsePstree("", tree.b)
	if err != nil {
		return false
	}
	for _, t := range tasks {
		leader, ok := d.files[coreName(t.pid)]
		if !ok {
			return false
		}
		if core, err := ParseCore("", leader.b); err == nil && core.Dead {
			continue
		}
		for _, tid := range t.threads {
			if _, ok := d.files[coreName(tid)]; !ok {
				return false
			}
		}
	}
	return true
}

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
		c.Problems = append(c.Problems, d.twice...)
		c.Problems = append(c.Problems, a.unfit...)
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
