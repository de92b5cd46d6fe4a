package cpuid

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// ProfileSchema is the schema that a profile in JSON names.
const ProfileSchema = "fpuimg.profile/1"

// Profile is an [xstate.CPU] as a JSON document. What is unknown is null.
type Profile struct {
	Schema       string      `json:"schema"`
	Name         *string     `json:"name"`
	Vendor       *string     `json:"vendor"`
	Family       *int        `json:"family"`
	Model        *int        `json:"model"`
	Stepping     *int        `json:"stepping"`
	ModelName    *string     `json:"model_name"`
	FXSave       *bool       `json:"fxsave"`
	XSave        *bool       `json:"xsave"`
	XFeatures    *Hex        `json:"xfeatures_mask"`
	XFeaturesHW  *Hex        `json:"xfeatures_hw"`
	Components   []Component `json:"components"`
	XSaveSize    *uint32     `json:"xsave_size"`
	XSaveSizeMax *uint32     `json:"xsave_size_max"`
	MXCSRMask    *Hex        `json:"mxcsr_mask"`
	Flags        []string    `json:"flags"`
	// UnknownFlags are absent where they are what they would be of a machine that
	// only Capability tells of, or none if Components are there.
	UnknownFlags *[]string `json:"unknown_flags,omitempty"`
	Capability   []Hex     `json:"capability"`
}

// Component is the place of one state component in a standard-format area. Sizes
// and offsets are in bytes.
type Component struct {
	Bit     uint8  `json:"bit"`
	Name    string `json:"name"`
	Offset  int    `json:"offset"`
	Size    int    `json:"size"`
	Align64 bool   `json:"align64"`
}

// Hex is a mask: "0x..." in JSON.
type Hex uint64

// MarshalText implements [encoding.TextMarshaler].
func (h Hex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(h)), nil }

// UnmarshalJSON implements [json.Unmarshaler]. The error says what is wrong with
// the text.
func (h *Hex) UnmarshalJSON(b []byte) error {
	digits, ok := strings.CutPrefix(string(bytes.Trim(b, `"`)), "0x")
	v, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil || b[0] != '"' {
		return fmt.Errorf("%.40s is no mask: want \"0x...\"", b)
	}
	*h = Hex(v)
	return nil
}

// NewProfile returns the document that describes c.
func NewProfile(c *xstate.CPU) *Profile {
	p := &Profile{
		Schema: ProfileSchema, Name: text(c.Name), Vendor: text(c.Vendor), ModelName: text(c.ModelName),
		Family: c.Family, Model: c.Model, Stepping: c.Stepping, FXSave: c.FXSave, XSave: c.XSave,
		XFeatures: hex(c.XFeatures), XFeaturesHW: hex(c.XFeaturesHW), MXCSRMask: hex(c.MXCSRMask),
		XSaveSize: c.XSaveSize, XSaveSizeMax: c.XSaveSizeMax, Flags: c.Flags,
	}
	if c.Layout != nil {
		p.Components = make([]Component, 0, len(c.Layout))
	}
	for _, at := range c.Layout {
		p.Components = append(p.Components, Component{uint8(at.Feature), at.Feature.String(), at.Offset, at.Size, at.Align64})
	}
	for _, w := range c.Capability {
		p.Capability = append(p.Capability, Hex(w))
	}
	if !slices.Equal(c.UnknownFlags, p.unsaid(c.Flags)) {
		p.UnknownFlags = new(append([]string{}, c.UnknownFlags...))
	}
	return p
}

// unsaid returns the flags that are unknown of a document that does not name them: a
// cpuinfo.img has CRIU's words only, and a profile from CPUID, which has components
// too, knows the rest.
func (p *Profile) unsaid(flags []string) []string {
	if flags == nil || p.Capability == nil || p.Components != nil {
		return nil
	}
	return xstate.UnknownFlags(flags, xstate.InWords(len(p.Capability)))
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func hex[T ~uint32 | ~uint64](v *T) *Hex {
	if v == nil {
		return nil
	}
	return new(Hex(*v))
}

// Limits of a profile; no machine comes near them.
const (
	maxProfile  = 1 << 20 // bytes of JSON
	maxName     = 256     // bytes of a name
	maxFlags    = 2048
	maxXSave    = 1 << 20    // bytes
	maxFamily   = 0xf + 0xff // SDM vol. 2, CPUID: family plus extended family
	maxModel    = 0xff
	maxStepping = 0xf
	maxMask32   = 1<<32 - 1
)

// ProfileError is a profile that cannot be one.
type ProfileError struct {
	Offset int64  // byte in the document; 0 where only the field is known
	Field  string // "" for the document as a whole
	Reason string
}

func (e *ProfileError) Error() string {
	s := "profile: "
	if e.Offset != 0 {
		s += fmt.Sprintf("offset %#x: ", e.Offset)
	}
	if e.Field != "" {
		s += e.Field + ": "
	}
	return s + e.Reason
}

func badField(field, format string, a ...any) error {
	return &ProfileError{Field: field, Reason: fmt.Sprintf(format, a...)}
}

// ParseProfile reads a profile in JSON and refuses one that contradicts itself.
// Names of flags that the table does not have are kept; so are components beyond
// the table, by their bit. The error is a [*ProfileError].
func ParseProfile(b []byte) (*xstate.CPU, error) {
	if len(b) > maxProfile {
		return nil, badField("", "%d bytes are more than any profile has", len(b))
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var p Profile
	if err := dec.Decode(&p); err != nil {
		return nil, jsonError(err, dec.InputOffset())
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, &ProfileError{Offset: dec.InputOffset(), Reason: "more data after the document"}
	}
	return p.CPU()
}

func jsonError(err error, at int64) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return &ProfileError{Offset: syntax.Offset, Reason: syntax.Error()}
	}
	if typ, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &ProfileError{Offset: typ.Offset, Field: typ.Field, Reason: "a " + typ.Value + " cannot stand here"}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &ProfileError{Offset: at, Reason: "the document ends too early"}
	}
	return &ProfileError{Offset: at, Reason: strings.TrimPrefix(err.Error(), "json: ")}
}

// CPU returns the machine that the document describes. The error is a
// [*ProfileError].
func (p *Profile) CPU() (*xstate.CPU, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	c := &xstate.CPU{
		Name: value(p.Name), Vendor: value(p.Vendor), ModelName: value(p.ModelName),
		Family: p.Family, Model: p.Model, Stepping: p.Stepping, FXSave: p.FXSave, XSave: p.XSave,
		XFeatures: number[xstate.Features](p.XFeatures), XFeaturesHW: number[xstate.Features](p.XFeaturesHW),
		XSaveSize: p.XSaveSize, XSaveSizeMax: p.XSaveSizeMax, MXCSRMask: number[uint32](p.MXCSRMask),
	}
	if p.Components != nil {
		c.Layout = make(xstate.Layout, 0, len(p.Components))
	}
	for _, at := range p.Components {
		c.Layout = append(c.Layout, xstate.Placement{
			Feature: xstate.Feature(at.Bit), Offset: at.Offset, Size: at.Size, Align64: at.Align64})
	}
	slices.SortFunc(c.Layout, func(a, b xstate.Placement) int { return int(a.Feature) - int(b.Feature) })
	c.Flags = names(p.Flags)
	if c.UnknownFlags = p.unsaid(c.Flags); p.UnknownFlags != nil {
		c.UnknownFlags = nil
		for _, name := range names(*p.UnknownFlags) {
			if !slices.Contains(c.Flags, name) {
				c.UnknownFlags = append(c.UnknownFlags, name)
			}
		}
	}
	for _, w := range p.Capability {
		c.Capability = append(c.Capability, uint32(w))
	}
	return c, nil
}

// names returns a list sorted, each name once.
func names(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// value returns what p leads to, the zero value if it leads nowhere.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func number[T ~uint32 | ~uint64](h *Hex) *T {
	if h == nil {
		return nil
	}
	return new(T(*h))
}

// check refuses what no CPU can be, and what a report could not print.
func (p *Profile) check() error {
	if p.Schema != ProfileSchema {
		return badField("schema", "want %q, have %.40q", ProfileSchema, p.Schema)
	}
	for _, f := range []struct {
		name  string
		value *string
	}{{"name", p.Name}, {"vendor", p.Vendor}, {"model_name", p.ModelName}} {
		if err := checkText(f.name, value(f.value)); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name  string
		value *int
		max   int
	}{{"family", p.Family, maxFamily}, {"model", p.Model, maxModel}, {"stepping", p.Stepping, maxStepping}} {
		if f.value != nil && (*f.value < 0 || *f.value > f.max) {
			return badField(f.name, "%d is not in 0..%d", *f.value, f.max)
		}
	}
	if m := p.MXCSRMask; m != nil && (*m == 0 || *m > maxMask32) {
		return badField("mxcsr_mask", "%#x is no mask of 32 bits; 0 stands for %#x", uint64(*m), xstate.DefaultMXCSRMask)
	}
	for i, w := range p.Capability {
		if w > maxMask32 {
			return badField(fmt.Sprintf("capability[%d]", i), "%#x is no word of 32 bits", uint64(w))
		}
	}
	if n := len(p.Capability); p.Capability != nil && n != xstate.CapabilityV1 && n != xstate.CapabilityWords {
		return badField("capability", "want %d words or %d, have %d", xstate.CapabilityWords, xstate.CapabilityV1, n)
	}
	if err := checkFlags("flags", p.Flags); err != nil {
		return err
	}
	if p.UnknownFlags != nil {
		if err := checkFlags("unknown_flags", *p.UnknownFlags); err != nil {
			return err
		}
	}
	return p.checkXSave()
}

func checkFlags(field string, names []string) error {
	if len(names) > maxFlags {
		return badField(field, "%d are more than any CPU has", len(names))
	}
	for i, name := range names {
		if !isFlagName(name) {
			return badField(fmt.Sprintf("%s[%d]", field, i), "%.40q is no name of a flag", name)
		}
	}
	return nil
}

func isFlagName(name string) bool {
	return name != "" && len(name) <= maxName && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func checkText(field, s string) error {
	if len(s) > maxName || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return badField(field, "%.40q is too long or has control characters", s)
	}
	return nil
}

// checkXSave checks the XSAVE area: what is enabled, its size and its components.
func (p *Profile) checkXSave() error {
	usable := number[xstate.Features](p.XFeatures)
	switch {
	case p.XSave == nil:
	case *p.XSave && p.FXSave != nil && !*p.FXSave:
		return badField("xsave", "there is no XSAVE without FXSAVE")
	case !*p.XSave && usable != nil && *usable&^xstate.Legacy != 0:
		return badField("xfeatures_mask", "%v cannot be in use without XSAVE", *usable)
	}
	for _, f := range []struct {
		name string
		size *uint32
	}{{"xsave_size", p.XSaveSize}, {"xsave_size_max", p.XSaveSizeMax}} {
		if f.size != nil && *f.size != 0 && (*f.size < xstate.MinArea || *f.size > maxXSave) {
			return badField(f.name, "%d bytes: not in %d..%d", *f.size, xstate.MinArea, maxXSave)
		}
	}
	if p.XSaveSize != nil && p.XSaveSizeMax != nil && *p.XSaveSize > *p.XSaveSizeMax {
		return badField("xsave_size_max", "%d bytes are less than xsave_size, %d", *p.XSaveSizeMax, *p.XSaveSize)
	}
	end := maxXSave
	if p.XSaveSize != nil {
		end = int(*p.XSaveSize)
	}
	if len(p.Components) > 64 {
		return badField("components", "%d are more than XCR0 has bits", len(p.Components))
	}
	for i := range p.Components {
		at := &p.Components[i]
		field := fmt.Sprintf("components[%d]", i)
		if err := at.check(field, end); err != nil {
			return err
		}
		if usable != nil && !usable.Has(xstate.Feature(at.Bit)) {
			return badField(field, "%s is not in xfeatures_mask", at.Name)
		}
		for j := range p.Components[:i] {
			if o := &p.Components[j]; at.Bit == o.Bit {
				return badField(field, "bit %d is there twice", at.Bit)
			} else if at.Offset < o.Offset+o.Size && o.Offset < at.Offset+at.Size {
				return badField(field, "%s overlaps %s", at.Name, o.Name)
			}
		}
	}
	return nil
}

// check looks at one component of an area of end bytes.
func (at *Component) check(field string, end int) error {
	if err := checkText(field, at.Name); err != nil {
		return err
	}
	if at.Bit > 63 || xstate.Legacy.Has(xstate.Feature(at.Bit)) {
		return badField(field, "bit %d is no extended component", at.Bit)
	}
	if c := xstate.Feature(at.Bit).Component(); c != nil {
		switch {
		case !strings.EqualFold(c.Name, at.Name):
			return badField(field, "bit %d is %s, not %.40q", at.Bit, c.Name, at.Name)
		case c.Supervisor:
			return badField(field, "%s is never in a user-visible area", c.Name)
		case c.Size != at.Size:
			return badField(field, "%s has %d bytes, not %d", c.Name, c.Size, at.Size)
		}
	}
	if at.Size < 1 || at.Size > maxXSave || at.Offset < xstate.MinArea || at.Offset > maxXSave || at.Offset+at.Size > end {
		return badField(field, "%s: bytes %d to %d+%d do not lie in the extended region, %d to %d",
			at.Name, at.Offset, at.Offset, at.Size, xstate.MinArea, end)
	}
	return nil
}
