package compat

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Cap is a value of CRIU's --cpu-cap option.
type Cap string

const (
	CapDefault Cap = "default" // the option is not given
	CapNone    Cap = "none"
	CapFPU     Cap = "fpu"
	CapINS     Cap = "ins"
	CapCPU     Cap = "cpu"
)

// Caps lists the values of --cpu-cap that [Judgement.Predict] knows.
func Caps() []Cap { return []Cap{CapDefault, CapNone, CapFPU, CapINS, CapCPU} }

// Outcome is how a restore by CRIU ends.
type Outcome string

const (
	Restores       Outcome = "restores"
	RestoresLosing Outcome = "restores-losing" // exit 0, and components are dropped without a word
	Refuses        Outcome = "refuses"
	Unknown        Outcome = "unknown" // the profile lacks what CRIU compares
)

// Class is why CRIU refuses.
type Class string

const (
	ClassUnparseable Class = "unparseable"
	ClassNoFPRegs    Class = "no-fpregs"
	ClassNoCPUInfo   Class = "no-cpuinfo"
	ClassFPUBits     Class = "fpu-bits"
	ClassXFeatures   Class = "xfeatures"
	ClassXSaveSize   Class = "xsave-size"
	ClassINS         Class = "ins"
	ClassCPU         Class = "cpu"
	ClassXSaveRecord Class = "xsave-record"
	ClassArraySize   Class = "array-size"
)

// Prediction is what a release of CRIU does with a checkpoint on a host.
type Prediction struct {
	Outcome Outcome  `json:"outcome"`
	Class   *Class   `json:"class"` // of a refusal, else null
	Loses   []string `json:"loses"` // components that are dropped without a word
	Reason  string   `json:"reason"`
}

func refuses(class Class, format string, args ...any) Prediction {
	return Prediction{Refuses, &class, []string{}, fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) Prediction {
	return Prediction{Unknown, nil, []string{}, fmt.Sprintf(format, args...)}
}

// predictor is what CRIU finds on a host.
type predictor struct {
	criu  xstate.Release
	host  *xstate.CPU // as CRIU sees it
	blind bool        // which is without any feature

	has   xstate.Features // as found says
	known bool
	// marked is the components that the end mark of the frame overwrites, or may
	// overwrite if its place is not sure.
	marked xstate.Features
	sure   bool
}

// seen is what CRIU sees in the images of a checkpoint, or in one.
type seen struct {
	pages                               Pages
	unparseable, noFPRegs, short, xsave bool
	shortArrays, longArrays             xstate.Features
	noXSaveLoss, loss, open             xstate.Features // what goes without XSAVE, and with it, or may go
}

// add joins what is seen in another image.
func (s *seen) add(other *seen) {
	s.noFPRegs, s.short, s.xsave = s.noFPRegs || other.noFPRegs, s.short || other.short, s.xsave || other.xsave
	s.shortArrays |= other.shortArrays
	s.longArrays |= other.longArrays
	s.noXSaveLoss |= other.noXSaveLoss
	s.loss |= other.loss
	s.open |= other.open
}

// prediction is what a predictor makes of what is seen.
type prediction struct {
	*predictor
	*seen
}

func newPredictor(host *xstate.CPU, criu xstate.Release) *predictor {
	p := &predictor{criu: criu}
	p.host, p.blind = seenBy(criu, host)
	p.has, p.known = found(p.host, criu)
	p.marked, p.sure = overwritten(criu, p.host, p.has)
	return p
}

// found returns the components that CRIU finds on the host; known is false if the host
// does not record them, and has is then what it may find.
func found(host *xstate.CPU, criu xstate.Release) (has xstate.Features, known bool) {
	// CRIU takes CPUID's word for what the host has, not XCR0's, and knows no
	// component above PKRU (compel fpu code, compel_fpu_has_feature). Without CPUID
	// words the usable set is the best there is to go by.
	mask, known := host.CRIUMask()
	if has = xstate.Features(mask); !known {
		_, known = host.Usable()
		has = host.Possible() & xstate.CRIURestores(criu)
	}
	return has | xstate.Legacy, known
}

// Pages is the form that the memory of a checkpoint is dumped in.
type Pages struct {
	// Unread says why the form is not known, "" if it is.
	Unread string
	Wide   bool // pagemap counts pages in its 64-bit field, as CRIU does from 4.2 on
	Packed bool // the pages are compressed, as CRIU 4.3 can
}

// read says whether a release reads the pages; nil if it does.
func (p Pages) read(criu xstate.Release) *Prediction {
	var r Prediction
	switch {
	case p.Packed && !does(criu, readsPacked):
		r = refuses(ClassUnparseable, "the memory pages are compressed, which CRIU reads from %v on", since[readsPacked])
	case does(criu, widePages):
		return nil
	case p.Wide:
		r = refuses(ClassUnparseable, "pagemap-*.img counts pages in a field that CRIU knows from %v on: older ones fill no page of the process's memory", since[widePages])
	case p.Unread != "":
		r = unknown("whether CRIU %v can read the memory pages: %s", criu, p.Unread)
	default:
		return nil
	}
	return &r
}

// see returns what CRIU sees in the record of one thread.
func (p *predictor) see(s *xstate.State) (in seen) {
	if s.Format == xstate.FormatNone {
		in.noFPRegs = true
		return in
	}
	in.short = in.short || s.STLen < 128 || s.XMMLen < 256
	if s.Format != xstate.FormatXSave {
		return in
	}
	in.xsave = true
	if !does(p.criu, optionalYMM) && !s.Recorded().Has(xstate.AVX) {
		in.shortArrays |= xstate.AVX.Mask()
	}
	for f := range s.Recorded().All() {
		switch n, want := len(s.Data(f))+s.Over(f), f.Component().Size; {
		case n < want: // valid_xsave_frame looks whatever the host has
			in.shortArrays |= f.Mask()
		case n > want && (s.BV.Has(f) || !does(p.criu, followsBV)): // assign_xsave copies only what the host has
			in.longArrays |= f.Mask()
		}
	}
	for f, status := range s.Present() {
		matters := status == xstate.InUse || status == xstate.Lost
		if f == xstate.PKRU && status == xstate.InUse {
			matters = guards(s)
		}
		if !matters || xstate.Legacy.Has(f) {
			continue
		}
		in.noXSaveLoss |= f.Mask()
		switch {
		case !p.has.Has(f) || status == xstate.Lost || p.marked.Has(f) && p.sure:
			in.loss |= f.Mask()
		case p.marked.Has(f):
			in.open |= f.Mask()
		}
	}
	if has, known := p.host.HasFlag("user_shstk"); s.ShadowStack.Enabled() && (known && !has || !does(p.criu, shadowStacks)) {
		in.noXSaveLoss |= xstate.CETUser.Mask()
		in.loss |= xstate.CETUser.Mask()
	}
	return in
}

// predict says what CRIU does for one value of --cpu-cap. source is what the
// checkpoint's cpuinfo.img records, nil if there is none.
//
// The order is CRIU's: cpuinfo.img is compared before the core images are read
// (criu/cr-restore.c, criu/arch/x86/cpu.c:cpu_validate_features, then
// crtools.c:restore_fpu).
func (p *prediction) predict(source *xstate.CPU, cap Cap) Prediction {
	if cap != CapDefault && cap != CapNone {
		if bad, ok := p.validateCPU(source, cap); ok {
			return bad
		}
	}
	// Pages are read when the frames for the registers are made.
	r := p.restore(cap)
	if bad := p.pages.read(p.criu); bad != nil && r.Outcome != Refuses {
		return *bad
	}
	return r
}

// restore is restore_fpu, for all threads.
func (p *prediction) restore(cap Cap) Prediction {
	hostXSave := p.host.XSave
	switch {
	case p.unparseable:
		return refuses(ClassUnparseable, "a core image is not what CRIU's parser takes")
	case p.noFPRegs:
		return refuses(ClassNoFPRegs, "fpregs is a required field, and a core image lacks it")
	case p.short:
		return refuses(ClassArraySize, "st_space or xmm_space is too short")
	case p.xsave && hostXSave == nil:
		return unknown("whether the host has XSAVE is not recorded")
	case p.xsave && p.blind && cap != CapNone:
		return refuses(ClassXSaveRecord, "the images hold XSAVE records, and CRIU %v finds no XSAVE on a CPU of %s", p.criu, p.host.Vendor)
	case p.xsave && !*hostXSave && cap != CapNone:
		return refuses(ClassXSaveRecord, "the images hold XSAVE records, and the host has no XSAVE")
	case p.xsave && !*hostXSave:
		return p.loses(p.noXSaveLoss)
	case p.shortArrays != 0:
		return refuses(ClassArraySize, "arrays of the wrong length: %v", p.shortArrays|p.longArrays&p.has)
	case p.xsave && !p.known && (p.longArrays&p.has != 0 || p.loss == 0 && p.noXSaveLoss != 0):
		return unknown("the host's components are not recorded")
	case p.longArrays&p.has != 0:
		return refuses(ClassArraySize, "arrays of the wrong length: %v", p.longArrays&p.has)
	}
	if p.open != 0 {
		return unknown("CRIU before %v overwrites four bytes of the components with a mark, and where they lie on the host is not recorded: %v", since[endOfFrame], p.open)
	}
	return p.loses(p.loss)
}

func (p *prediction) loses(set xstate.Features) Prediction {
	if set == 0 {
		return Prediction{Restores, nil, []string{}, ""}
	}
	reason := "exit status 0, but dropped without a word: " + strings.Join(set.Names(), ", ")
	if marked := set & p.marked & p.has; marked != 0 {
		reason += fmt.Sprintf("; of %v CRIU before %v overwrites four bytes with the end mark of the frame", marked, since[endOfFrame])
	}
	return Prediction{RestoresLosing, nil, set.Names(), reason}
}

// validateCPU is cpu_validate_features: any explicit value of --cpu-cap but none
// is added to the default, which is fpu and ins, and has cpuinfo.img read. ok
// reports that the restore ends here.
func (p *predictor) validateCPU(source *xstate.CPU, cap Cap) (result Prediction, ok bool) {
	switch {
	case source == nil:
		return refuses(ClassNoCPUInfo, "the checkpoint has no cpuinfo.img"), true
	case source.Vendor == "":
		return refuses(ClassNoCPUInfo, "cpuinfo.img names no vendor that CRIU knows"), true
	case len(p.host.Capability) < len(source.Capability):
		return unknown("the host's profile does not record its capability words"), true
	}
	for _, validate := range []func(*xstate.CPU) (Prediction, bool){p.validateFPU, p.validateMask, p.validateSizes} {
		if result, ok := validate(source); ok {
			return result, true
		}
	}
	return p.validateWords(source.Capability, cap)
}

// validateFPU compares the bits that CRIU itself needs. A word of the host that is not
// recorded whole has zeros that say nothing.
func (p *predictor) validateFPU(source *xstate.CPU) (result Prediction, ok bool) {
	words, unsure := source.Capability, p.host.UnknownWords()
	var missing, open []string
	for _, name := range []string{"fpu", "fxsr", "osxsave", "xsaves"} {
		f, _ := xstate.LookupFlag(name)
		switch {
		case int(f.Word) >= len(words) || words[f.Word]&^p.host.Capability[f.Word]>>f.Bit&1 == 0:
		case unsure>>f.Word&1 != 0:
			open = append(open, name)
		default:
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0:
		return refuses(ClassFPUBits, "the host lacks %s, which cpuinfo.img records", strings.Join(missing, ", ")), true
	case len(open) > 0:
		return unknown("the host's profile does not record whether it has %s", strings.Join(open, ", ")), true
	}
	return Prediction{}, false
}

// validateMask compares xfeatures_mask. Where it, or a size, is absent, CRIU puts the
// host's value.
func (p *predictor) validateMask(source *xstate.CPU) (result Prediction, ok bool) {
	if source.XFeaturesHW == nil {
		return Prediction{}, false
	}
	mask, _ := source.CRIUMask()
	hostMask, known := p.host.CRIUMask()
	if !known {
		return unknown("the host's profile does not record its xfeatures_mask"), true
	}
	if extra := mask &^ hostMask; extra != 0 && (mask > hostMask || does(p.criu, maskAsSet)) {
		return refuses(ClassXFeatures, "xfeatures_mask has bits that the host's lacks: %v (%#x)", xstate.Features(extra), extra), true
	}
	return Prediction{}, false
}

func (p *predictor) validateSizes(source *xstate.CPU) (result Prediction, ok bool) {
	for _, size := range []struct {
		field        string
		source, host *uint32
	}{
		{"xsave_size", source.XSaveSize, p.host.XSaveSize},
		{"xsave_size_max", source.XSaveSizeMax, p.host.XSaveSizeMax},
	} {
		switch {
		case size.source == nil:
		case size.host == nil:
			return unknown("the host's profile does not record its %s", size.field), true
		case *size.source != *size.host:
			return refuses(ClassXSaveSize, "%s is %d in cpuinfo.img and %d on the host; CRIU wants them equal", size.field, *size.source, *size.host), true
		}
	}
	return Prediction{}, false
}

// validateWords compares instruction sets, and with cpu every feature.
func (p *predictor) validateWords(words []uint32, cap Cap) (result Prediction, ok bool) {
	ins, unsure := xstate.INSMask(), p.host.UnknownWords()
	var open, differ []string
	for i, w := range words {
		extra := w & ins[i] &^ p.host.Capability[i]
		switch {
		case unsure>>i&1 != 0 && (extra != 0 || cap == CapCPU):
			open = append(open, strconv.Itoa(i))
		case extra != 0:
			return refuses(ClassINS, "cpuinfo.img records instruction sets that the host lacks: %s", insNames(i, extra)), true
		case w != p.host.Capability[i]:
			differ = append(differ, fmt.Sprintf("word %d (%d bits)", i, bits.OnesCount32(w^p.host.Capability[i])))
		}
	}
	switch {
	case cap == CapCPU && len(differ) > 0:
		return refuses(ClassCPU, "capability words differ: %s", strings.Join(differ, ", ")), true
	case len(open) > 0:
		return unknown("the host's profile does not record its capability words %s", strings.Join(open, ", ")), true
	}
	return Prediction{}, false
}

// insNames spells bits of a capability word.
func insNames(word int, set uint32) string {
	var names []string
	for f := range xstate.AllFlags() {
		if int(f.Word) == word && set>>f.Bit&1 != 0 {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, " ")
}
