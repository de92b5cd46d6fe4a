package convert

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// Edit replaces bytes of a file, whose size stays.
type Edit struct {
	Offset   int64
	Old, New []byte // of one length
	Why      string // for messages
}

func (e *Edit) end() int64 { return e.Offset + int64(len(e.New)) }

// What is wrong with an edit.
var (
	ErrOldBytes = errors.New("the file holds other bytes than those to be replaced")
	ErrOverlap  = errors.New("it overlaps another change of the file")
	ErrEdit     = errors.New("an edit replaces bytes by as many others, and has an offset in the file")
)

// EditError is an edit that cannot be made; nothing was converted.
type EditError struct {
	File   string
	Offset int64
	Why    string // of the edit
	Err    error  // ErrOldBytes, ErrOverlap or ErrEdit
}

func (e *EditError) Error() string {
	return fmt.Sprintf("%s: offset %#x: %s: %v", e.File, e.Offset, e.Why, e.Err)
}

func (e *EditError) Unwrap() error { return e.Err }

// A change is what becomes of a file: new content, a core image as a report says, or edits
// of the old content, by their offsets.
type change struct {
	content []byte
	report  *compat.Report
	edits   []Edit
}

// whole reports whether the file is written anew, not edited.
func (c *change) whole() bool { return c.content != nil || c.report != nil }

// apply returns the new content of a file that is written anew. To make it when it is
// written, and not to hold it, takes little time for much memory.
func (c *change) apply(path string, old []byte) ([]byte, error) {
	if c.content != nil {
		return c.content, nil
	}
	core, err := codec.ParseCore(path, old)
	if err != nil {
		return nil, err
	}
	return core.Encode(c.report.Apply(&core.State))
}

// Edit adds edits of one of the checkpoint's files to the plan, which may be as large
// as page images are: it is copied, and the bytes are written over. The error is an
// [*EditError].
func (p *Plan) Edit(name string, edits ...Edit) error {
	was := p.files[name]
	all := slices.Concat(was.edits, edits)
	slices.SortStableFunc(all, func(a, b Edit) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, e := range all {
		var err error
		switch {
		case e.Offset < 0 || len(e.New) == 0 || len(e.Old) != len(e.New) || e.end() < 0:
			err = ErrEdit
		case was.whole() || i > 0 && all[i-1].end() > e.Offset:
			err = ErrOverlap
		}
		if err != nil {
			return &EditError{name, e.Offset, e.Why, err}
		}
	}
	if len(all) > 0 {
		p.files[name] = change{edits: all}
	}
	return nil
}

// editor carries edits out on the bytes of a file that are read through it.
type editor struct {
	r     io.Reader
	file  string
	at    int64
	edits []Edit // those that are not done
}

func (r *editor) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	b = b[:n]
	for len(r.edits) > 0 {
		e := &r.edits[0]
		from, to := max(e.Offset, r.at), min(e.end(), r.at+int64(n))
		if from >= to {
			break
		}
		part := b[from-r.at : to-r.at]
		if !bytes.Equal(part, e.Old[from-e.Offset:to-e.Offset]) {
			return 0, &EditError{r.file, e.Offset, e.Why, ErrOldBytes}
		}
		copy(part, e.New[from-e.Offset:])
		if to < e.end() {
			break // it goes on in the next bytes
		}
		r.edits = r.edits[1:]
	}
	r.at += int64(n)
	if errors.Is(err, io.EOF) && len(r.edits) > 0 {
		e := &r.edits[0]
		err = &EditError{r.file, e.Offset, e.Why, ErrOldBytes}
	}
	return n, err
}

// edit carries edits out on a copy of a file.
func edit(f *os.File, name string, edits []Edit) error {
	for _, e := range edits {
		r := &editor{r: io.NewSectionReader(f, e.Offset, int64(len(e.Old))), file: name, at: e.Offset, edits: []Edit{e}}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(b, e.Offset); err != nil {
			return err
		}
	}
	return nil
}
