package compat

import (
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// check asks the rules of the given scopes.
func (sub *subject) check(scopes ...scope) []Finding {
	for i := range rules {
		if sub.rule = &rules[i]; slices.Contains(scopes, sub.rule.scope) {
			sub.rule.check(sub)
		}
	}
	if sub.foreign {
		for i := range sub.findings {
			sub.findings[i].Remedies = nil
		}
	}
	return sub.findings
}

// Decide compares one thread's state with a target. It changes nothing:
// [Report.Apply] carries the report out.
func Decide(s *xstate.State, t Target, p Policy) *Report {
	return (&subject{target: t, force: p.Force, level: p.Level}).report(s, record, fit)
}

// report is Decide for what the subject knows besides, and the rules to ask.
func (sub *subject) report(s *xstate.State, scopes ...scope) *Report {
	sub.state, sub.zeroed = withInit(s)
	s = sub.state
	sub.dead = sub.proved()
	sub.resolve()
	r := &Report{From: s.Format, To: sub.to, bv: s.BV, fcw: s.FX.FCW(), mxcsr: s.FX.MXCSR(), shadowStack: s.ShadowStack != nil}
	r.Findings = sub.check(scopes...)
	sub.decide(r)
	if !r.OnlyLost() {
		r.withoutForce()
	}
	r.Verdict = verdict(r.Findings, len(r.Lost) > 0)
	if host := sub.target.Host; host != nil && r.Unknown&(xstate.Legacy|^host.Possible()) != 0 {
		r.Verdict = max(r.Verdict, Undecided)
	}
	switch {
	case r.Verdict == Damaged:
		r.Refused = !sub.force || !r.OnlyLost()
	case sub.level:
		r.Refused = len(r.Lost) > 0 || r.Verdict == Undecided
	default:
		r.Refused = !sub.force && r.Verdict != Compatible
	}
	return r
}

// withInit returns the state with INIT where the record holds zeros for it, and the
// components where it does. Kernels that fill only what is in use leave zeros in the
// rest of a register set, and CRIU before 3.19 stored them. A thread that had loaded
// FCW or MXCSR with 0 would have the bit set.
func withInit(s *xstate.State) (*xstate.State, xstate.Features) {
	var zeroed xstate.Features
	if s.Format != xstate.FormatXSave {
		return s, 0 // no XSTATE_BV says INIT
	}
	if !s.BV.Has(xstate.X87) && s.FX.FCW() == 0 {
		zeroed |= xstate.X87.Mask()
	}
	// MXCSR belongs to SSE and AVX (SDM vol. 1, 13.4.2).
	if !s.BV.Has(xstate.SSE) && !s.BV.Has(xstate.AVX) && s.FX.MXCSR() == 0 {
		zeroed |= xstate.SSE.Mask()
	}
	if zeroed == 0 {
		return s, 0
	}
	s = s.Clone()
	if zeroed.Has(xstate.X87) {
		s.FX.SetFCW(xstate.InitFCW)
	}
	if zeroed.Has(xstate.SSE) {
		s.FX.SetMXCSR(xstate.InitMXCSR)
	}
	return s, zeroed
}

// verdict sums findings up; loses says whether values of intact components go.
func verdict(findings []Finding, loses bool) Verdict {
	v := Compatible
	for i := range findings {
		f := &findings[i]
		switch {
		case f.Severity != Fatal:
		case f.Integrity():
			return Damaged
		case f.Rule.about(thread, task):
			v = max(v, CodeUnfit)
		case loses:
			v = max(v, DowngradeLossy)
		default:
			v = max(v, DowngradeLossless)
		}
	}
	return v
}

// resolve works out what the target wants of this state.
func (sub *subject) resolve() {
	s, t := sub.state, sub.target
	sub.to, sub.allowed = s.Format, ^xstate.Features(0)
	if t.Host != nil {
		sub.allowed = t.Host.Possible()
	}
	if t.Format != nil {
		sub.to = *t.Format
		sub.extend = xstate.AVX.Mask()
		if t.Features != nil {
			sub.allowed &= *t.Features | xstate.Legacy
			sub.extend = *t.Features
		} else if t.Host != nil {
			sub.extend = ^xstate.Features(0)
		}
		sub.extend &= sub.allowed &^ xstate.Legacy
	}
	if t.Host != nil {
		hostFormat, known := t.Host.Format()
		if t.Format == nil && s.Format == xstate.FormatNone && s.Unknown == 0 {
			sub.to = xstate.FormatFXSave
		}
		if known {
			sub.to = min(sub.to, hostFormat)
		}
	}
	switch sub.to {
	case xstate.FormatNone:
		sub.allowed = 0
	case xstate.FormatFXSave:
		sub.allowed &= xstate.Legacy
	}
}

// decide chooses the action for each component and what the result holds.
func (sub *subject) decide(r *Report) {
	s := sub.state
	add := func(f xstate.Feature, a Action) {
		r.Decisions = append(r.Decisions, Decision{f, a, a != Strip && a != Refuse})
		r.Changed = r.Changed || a != Keep && a != Refuse
	}
	takeAway := Refuse
	if sub.force {
		takeAway = Strip
	}
	lose := func(f xstate.Feature, registers ...string) {
		add(f, takeAway)
		r.Lost = append(r.Lost, Loss{f, registers})
	}
	r.Changed = sub.to != s.Format || sub.zeroed != 0
	for f, status := range s.Present() {
		switch {
		case status == xstate.Unknown:
			r.Unknown |= f.Mask()
		case status == xstate.Lost: // there is nothing to keep or to lose, only a bit
			add(f, takeAway)
		case f == xstate.SSE && sub.allowed.Has(f) && sub.badMXCSR() != 0:
			lose(f, "mxcsr")
			r.mxcsr &^= sub.badMXCSR()
		case sub.zeroed.Has(f) && sub.allowed.Has(f) && status == xstate.Init:
			add(f, Init)
		case sub.allowed.Has(f):
			add(f, Keep)
		case status != xstate.InUse || f == xstate.PKRU && !sub.pkruMatters():
			add(f, Drop)
		case sub.dead.Has(f):
			add(f, Drop)
			r.Dead, r.Blocked = append(r.Dead, Loss{f, s.Used(f)}), sub.thread.Syscall
		default:
			lose(f, s.Used(f)...)
		}
	}
	if s.Format == xstate.FormatNone && sub.to != xstate.FormatNone {
		add(xstate.X87, Init)
		add(xstate.SSE, Init)
		r.fcw, r.mxcsr = xstate.InitFCW, xstate.InitMXCSR
	}
	if sub.shadowStackGoes() {
		lose(xstate.CETUser, "ssp")
		r.shadowStack = false
	}
	switch {
	case sub.to != xstate.FormatXSave:
		r.bv, r.shadowStack = 0, false
	case s.Format == xstate.FormatXSave:
		sub.narrow(r)
	default:
		r.bv = xstate.Legacy
		for f := range (sub.extend & xstate.CRIURestores(xstate.NewestCRIU)).All() {
			add(f, Extend)
		}
	}
}

// narrow takes the bits of what goes out of XSTATE_BV.
func (sub *subject) narrow(r *Report) {
	for _, d := range r.Decisions {
		if d.Action == Drop || d.Action == Strip {
			// A stripped MXCSR leaves the XMM registers where they are.
			r.bv &^= d.Component.Mask() &^ xstate.Legacy
		}
	}
	// AVX's bit spoke for MXCSR too (see withInit); SSE's does now.
	if sub.state.BV.Has(xstate.AVX) && !r.bv.Has(xstate.AVX) && r.mxcsr != xstate.InitMXCSR {
		r.bv |= xstate.SSE.Mask()
	}
	// Bits without a name have no data to lose.
	if unknown := r.bv &^ xstate.Known &^ sub.allowed; unknown != 0 {
		r.bv &^= unknown
		r.Changed = true
	}
}

// Apply returns the state that the report decided on. It is the caller's to see
// that the report does not refuse; s is not changed.
func (r *Report) Apply(s *xstate.State) *xstate.State {
	out := s.Clone()
	if s.Format == xstate.FormatNone || r.To == xstate.FormatNone {
		out = xstate.NewState(r.To)
		out.Compat = s.Compat
	}
	out.Format, out.BV = r.To, r.bv
	if r.To != xstate.FormatNone {
		out.FX.SetFCW(r.fcw)
		out.FX.SetMXCSR(r.mxcsr)
	}
	if !r.shadowStack {
		out.ShadowStack = nil
	}
	for _, d := range r.Decisions {
		switch {
		case xstate.Legacy.Has(d.Component) || d.Component == xstate.CETUser:
		case d.Action == Extend:
			out.SetData(d.Component, make([]byte, d.Component.Component().Size))
		case d.Action == Drop || d.Action == Strip:
			out.SetData(d.Component, nil)
		}
	}
	return out
}

// LossNames spells the lost registers, runs folded: "ymm0-ymm15, k1".
func LossNames(lost []Loss) []string {
	var names []string
	for _, l := range lost {
		names = append(names, foldRuns(l.Registers)...)
	}
	return names
}

// Consequence says in words what the losses mean for the process.
func Consequence(lost []Loss) string {
	var set xstate.Features
	for _, l := range lost {
		set |= l.Component.Mask()
	}
	var parts []string
	if set&^(xstate.PKRU.Mask()|xstate.CETUser.Mask()|xstate.SSE.Mask()) != 0 {
		parts = append(parts, "the process will see INIT values there, and instructions that use them fault on a CPU without them")
	}
	if set.Has(xstate.PKRU) {
		parts = append(parts, "memory that protection keys guarded is open")
	}
	if set.Has(xstate.CETUser) {
		parts = append(parts, "the process runs on without its shadow stack")
	}
	if set.Has(xstate.SSE) {
		parts = append(parts, "SSE arithmetic behaves otherwise or starts from zero")
	}
	return strings.Join(parts, "; ")
}
