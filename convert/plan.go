package convert

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// Options says what to convert to.
type Options struct {
	Target      compat.Target
	Policy      compat.Policy
	KeepCPUInfo bool // leave cpuinfo.img as it is
}

// Plan is a conversion of one checkpoint, worked out but not carried out.
type Plan struct {
	Checkpoint *codec.Checkpoint
	Threads    []ThreadPlan
	// Findings are those about the checkpoint as a whole: trailing data, and the
	// source machine against the target's.
	Findings []compat.Finding
	// CPUInfo is what changes in cpuinfo.img.
	CPUInfo []FieldChange
	Verdict compat.Verdict // the worst of the threads

	// files are the new contents, by the name of the file in the directory.
	files map[string][]byte
	// read are hashes of the files that the plan was made from, by path, to notice
	// that another program changes them meanwhile.
	read map[string]uint64
	// archive is the one that the plan was made from, and what it was then; too
	// large to be hashed.
	archive     string
	archiveInfo fs.FileInfo
}

// ThreadPlan is what happens to one thread.
type ThreadPlan struct {
	PID, TID int
	File     string // the core image
	*compat.Report
}

// FieldChange is one changed field of cpuinfo.img. From or To is "" where the field
// is absent.
type FieldChange struct {
	Field, From, To string
}

// KindError is an input of a kind that cannot be converted.
type KindError struct {
	Path string
	Kind codec.Kind
}

func (e *KindError) Error() string {
	return fmt.Sprintf("%s: only CRIU checkpoints can be converted, and this is one of kind %s", e.Path, e.Kind)
}

// NewPlan works out a conversion. Errors of the checkpoint's images are joined: a
// checkpoint with one unreadable image is not converted at all. They are of type
// [*codec.FormatError], or from the file system; or it is a [*KindError].
func NewPlan(c *codec.Checkpoint, o Options) (*Plan, error) {
	p := &Plan{Checkpoint: c, Findings: []compat.Finding{}, files: map[string][]byte{}, read: map[string]uint64{}}
	errs := append([]error(nil), c.Problems...)
	if c.Kind != codec.KindCRIU && c.Kind != codec.KindArchive {
		return nil, &KindError{c.Path, c.Kind}
	}
	if archive, _ := c.Archive(); archive != "" {
		p.archive = resolved(archive)
		info, err := os.Stat(p.archive)
		if err != nil {
			return nil, err
		}
		p.archiveInfo = info
	}
	for th, err := range c.Threads() {
		if err != nil {
			errs = codec.AppendFault(errs, err)
			continue
		}
		p.read[th.Core.Path] = hash(th.Core.Raw())
		r := compat.Decide(&th.Core.State, o.Target, o.Policy)
		p.Threads = append(p.Threads, ThreadPlan{th.PID, th.TID, th.Core.Path, r})
		p.Verdict = max(p.Verdict, r.Verdict)
		if th.Core.Trailing > 0 {
			p.Findings = append(p.Findings, compat.Trailing(th.Core.Path, th.Core.Trailing))
		}
		if r.Refused || !r.Changed {
			continue
		}
		b, err := th.Core.Encode(r.Apply(&th.Core.State))
		if err != nil {
			errs = codec.AppendFault(errs, err)
			continue
		}
		p.files[filepath.Base(th.Core.Path)] = b
	}
	if len(errs) == 0 && c.CPUInfo != nil {
		p.read[c.CPUInfo.Path] = hash(c.CPUInfo.Encode(c.CPUInfo))
		p.planCPUInfo(c.CPUInfo, o)
	}
	for _, name := range p.sortedNames() {
		if label, sparse := c.Sparse(name); sparse {
			errs = codec.AppendFault(errs, &codec.FormatError{Path: label, Field: "tar",
				Err: errors.New("stored as a sparse file, whose map would change; pack the archive without --sparse")})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

var seed = maphash.MakeSeed()

func hash(b []byte) uint64 { return maphash.Bytes(seed, b) }

// changedError is a file that is not the one that a plan was made from.
func changedError(path string) error {
	return fmt.Errorf("%s: another program changed it meanwhile; nothing was converted", path)
}

// stale returns an error if a file is not the one that the plan was made from.
func (p *Plan) stale() error {
	if was := p.archiveInfo; was != nil {
		now, err := os.Stat(p.archive)
		if err != nil {
			return err
		}
		if !os.SameFile(was, now) || was.Size() != now.Size() || !was.ModTime().Equal(now.ModTime()) {
			return changedError(p.archive) // the images in it are compared where they are copied
		}
		return nil
	}
	for path, was := range p.read {
		b, err := codec.ReadFile(path)
		if err != nil {
			return err
		}
		if hash(b) != was {
			return changedError(path)
		}
	}
	return nil
}

// Refused reports whether the policy forbids the conversion of any thread. Then
// none is converted.
func (p *Plan) Refused() bool {
	for _, t := range p.Threads {
		if t.Refused {
			return true
		}
	}
	return false
}

// Changed reports whether any file would change.
func (p *Plan) Changed() bool { return len(p.files) > 0 }

// LostNames names the registers whose values are lost, or would be, over all
// threads.
func (p *Plan) LostNames() []string {
	var names []string
	for _, t := range p.Threads {
		for _, name := range compat.LossNames(t.Lost) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// OnlyLost reports whether a forced conversion may go ahead although the
// checkpoint is damaged (see [compat.Report.OnlyLost]).
func (p *Plan) OnlyLost() bool {
	return !slices.ContainsFunc(p.Threads, func(t ThreadPlan) bool { return !t.OnlyLost() })
}

// planCPUInfo adapts cpuinfo.img to the resulting checkpoint, so that CRIU accepts
// it where it compares that file (criu/arch/x86/cpu.c:cpu_validate_features).
func (p *Plan) planCPUInfo(info *codec.CPUInfo, o Options) {
	source := info.CPU()
	host := o.Target.Host
	if host != nil {
		p.Findings = append(p.Findings, compat.Machine(source, host)...)
	}
	if o.KeepCPUInfo || p.Refused() {
		return
	}
	to := *info
	if o.Target.Format != nil && *o.Target.Format != xstate.FormatXSave {
		withoutXSave(&to)
	}
	if host != nil && o.Policy.Force {
		adaptToHost(&to, host)
	}
	changes := diffCPUInfo(info, &to)
	if len(changes) == 0 {
		return
	}
	p.CPUInfo = changes
	p.files["cpuinfo.img"] = info.Encode(&to)
	p.Findings = append(p.Findings, compat.Erased(source, to.CPU()))
}

// withoutXSave clears the capability bits of XSAVE and of all that depends on it,
// and removes the fields about the XSAVE area. CRIU takes the host's values for
// fields that are absent.
func withoutXSave(to *codec.CPUInfo) {
	gone := append(xstate.DependentsOf("xsave"), "xsave")
	to.Capability = maskWords(to.Capability, xstate.CapabilityMask(gone...), true)
	to.XFeaturesMask, to.XSaveSize, to.XSaveSizeMax = nil, nil, nil
}

// adaptToHost makes the file what the host satisfies: the words have no bit that
// the host lacks, the mask no component, and the sizes are the host's, since CRIU
// wants them equal. What is not known of the host is left out, and CRIU takes the
// host's own.
func adaptToHost(to *codec.CPUInfo, host *xstate.CPU) {
	switch {
	case len(host.Capability) >= len(to.Capability):
		to.Capability = maskWords(to.Capability, [xstate.CapabilityWords]uint32(pad(host.Capability)), false)
	case host.Flags != nil:
		var gone []string
		for f := range xstate.AllFlags() {
			if has, _ := host.HasFlag(f.Name); !has {
				gone = append(gone, f.Name)
			}
		}
		to.Capability = maskWords(to.Capability, xstate.CapabilityMask(gone...), true)
	}
	mask, known := host.CRIUMask()
	if to.XFeaturesMask == nil || !known || host.XSaveSize == nil || host.XSaveSizeMax == nil {
		to.XFeaturesMask, to.XSaveSize, to.XSaveSizeMax = nil, nil, nil
		return
	}
	to.XFeaturesMask = new(*to.XFeaturesMask & mask)
	to.XSaveSize, to.XSaveSizeMax = host.XSaveSize, host.XSaveSizeMax
}

func pad(words []uint32) []uint32 {
	out := make([]uint32, xstate.CapabilityWords)
	copy(out, words)
	return out
}

// maskWords keeps the bits of mask, or with clear takes them away.
func maskWords(words []uint32, mask [xstate.CapabilityWords]uint32, clear bool) []uint32 {
	out := make([]uint32, len(words))
	for i, w := range words {
		if clear {
			out[i] = w &^ mask[i]
		} else {
			out[i] = w & mask[i]
		}
	}
	return out
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
