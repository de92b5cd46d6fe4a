package convert

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// Options says what to convert to.
type Options struct {
	Target compat.Target
	Policy compat.Policy
	// Code is what is known of the threads' registers from the code that they run.
	Code []*facts.Process
}

// Plan is a conversion of one checkpoint, worked out but not carried out.
type Plan struct {
	Checkpoint *checkpoint.Checkpoint
	*compat.Judgement
	// CPUInfo is what changes in cpuinfo.img.
	CPUInfo []FieldChange

	// Verify is asked about the result before it appears, by its image files; nil is not
	// asked. Its error ends the conversion, and nothing is left.
	Verify func(codec.Files) error

	// files are those that change, by the name of the file in the checkpoint.
	files map[string]change
	// read are hashes of the files that the plan was made from, by name, to notice
	// that another program changes them meanwhile.
	read map[string]uint64
	// archive is what the archive was from which the plan was made: too large to be
	// hashed.
	archive fs.FileInfo
}

// FieldChange is one changed field of cpuinfo.img. From or To is "" where the field
// is absent.
type FieldChange struct {
	Field, From, To string
}

// KindError is an input of a kind that cannot be converted.
type KindError struct {
	Path string
	Kind checkpoint.Kind
}

func (e *KindError) Error() string {
	return fmt.Sprintf("%s: only CRIU checkpoints can be converted, and this is one of kind %s", e.Path, e.Kind)
}

// Subject is what [compat.Judgement.Thread] asks about a thread of a checkpoint.
func Subject(c *checkpoint.Checkpoint, th codec.Thread) compat.Thread {
	s := compat.Thread{PID: th.PID, TID: th.TID, File: c.Label(th), State: th.State}
	if th.Image != nil {
		s.Trailing, s.Unparseable = th.Image.Trailing, th.Image.Split
	}
	return s
}

// ReadOnlyError is a checkpoint that cannot be converted where it lies.
type ReadOnlyError struct{ Path, Reason string }

func (e *ReadOnlyError) Error() string { return e.Path + ": cannot be converted as it is: " + e.Reason }

// NewPlan works out a conversion. Errors of the checkpoint's images are joined: a
// checkpoint with one unreadable image is not converted at all. They are of type
// [*codec.FormatError], or from the file system; or it is a [*KindError].
func NewPlan(c *checkpoint.Checkpoint, o Options) (*Plan, error) {
	p := &Plan{Checkpoint: c, Judgement: compat.Judge(o.Target, o.Policy), files: map[string]change{}, read: map[string]uint64{}}
	p.Proofs(o.Code)
	errs := append([]error(nil), c.Problems...)
	if c.Kind != checkpoint.KindCRIU && c.Kind != checkpoint.KindArchive {
		return nil, &KindError{c.Path, c.Kind}
	}
	if c.ReadOnly != "" {
		return nil, &ReadOnlyError{c.Path, c.ReadOnly}
	}
	archive := c.Archive()
	if archive != nil {
		info, err := os.Stat(archive.Path)
		if err != nil {
			return nil, err
		}
		p.archive = info
	}
	for th, err := range c.Threads() {
		if err != nil {
			errs = codec.AppendFault(errs, err)
			continue
		}
		name := c.FileOf(th)
		p.read[name] = hash(th.Image.Raw())
		r := p.Thread(Subject(c, th))
		if r.Refused || !r.Changed {
			continue
		}
		if _, err := th.Image.Encode(r.Apply(th.State)); err != nil {
			errs = codec.AppendFault(errs, err)
			continue
		}
		p.files[name] = change{report: r}
	}
	if len(errs) == 0 && c.CPUInfo != nil {
		p.read["cpuinfo.img"] = hash(c.CPUInfo.Encode(c.CPUInfo))
		p.planCPUInfo(c.CPUInfo)
	}
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		if err := archive.Replaceable(name); err != nil {
			errs = codec.AppendFault(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// verify asks Verify.
func (p *Plan) verify(files codec.Files) error {
	if p.Verify == nil {
		return nil
	}
	return p.Verify(files)
}

var seed = maphash.MakeSeed()

func hash(b []byte) uint64 { return maphash.Bytes(seed, b) }

// SetGPRegs changes general registers of a thread, by their index in
// [codec.Thread.GPRegs].
func (p *Plan) SetGPRegs(th codec.Thread, regs map[int]uint64) error {
	name := p.Checkpoint.FileOf(th)
	core := th.Image
	if c := p.files[name]; c.whole() {
		b, err := c.apply(core.Path, core.Raw())
		if err == nil {
			core, err = codec.ParseCore(core.Path, b)
		}
		if err != nil {
			return err
		}
	}
	b, err := core.WithGPRegs(regs)
	if err == nil {
		p.files[name] = change{content: b}
	}
	return err
}

// Changed reports whether any file would change.
func (p *Plan) Changed() bool { return len(p.files) > 0 }

// planCPUInfo adapts cpuinfo.img to the resulting checkpoint.
func (p *Plan) planCPUInfo(info *codec.CPUInfo) {
	source := info.CPU()
	p.Taken(source)
	to := *info
	to.CPURecord = p.Adapt(info.CPURecord)
	if p.CPUInfo = diffCPUInfo(info, &to); len(p.CPUInfo) > 0 {
		p.files["cpuinfo.img"] = change{content: info.Encode(&to)}
		p.Erased(source, to.CPU())
	}
}

// diffCPUInfo lists the fields that differ, by CRIU's names.
func diffCPUInfo(from, to *codec.CPUInfo) []FieldChange {
	var out []FieldChange
	add := func(field, a, b string) {
		if a != b {
			out = append(out, FieldChange{field, a, b})
		}
	}
	for i := range from.Capability {
		add(fmt.Sprintf("capability[%d]", i), fmt.Sprintf("%#x", from.Capability[i]), fmt.Sprintf("%#x", to.Capability[i]))
	}
	add("xfeatures_mask", optional("%#x", from.XFeaturesMask), optional("%#x", to.XFeaturesMask))
	add("xsave_size", optional("%d", from.XSaveSize), optional("%d", to.XSaveSize))
	add("xsave_size_max", optional("%d", from.XSaveSizeMax), optional("%d", to.XSaveSizeMax))
	return out
}

func optional[T any](format string, v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf(format, *v)
}
