package compat

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// subject is what the rules look at: one thread's record and code, the file that it
// stands in, a task's code, or the two machines, and what the target asks for.
type subject struct {
	state  *xstate.State   // with INIT in place of zeros that stand for it
	zeroed xstate.Features // the components where they stood

	file     string // the image
	trailing int    // bytes after its entry

	thread *facts.Thread   // what is known of its code; nil if nothing is
	dead   xstate.Features // the components in use whose values it has done with
	task   *facts.Process
	tasks  []*facts.Process // all of them; nil if their code was not looked at

	source  *xstate.CPU // the machine of the checkpoint; nil if unknown
	target  Target
	force   bool
	level   bool
	foreign bool // this is no checkpoint, so there is nothing to do about it

	to      xstate.Format
	allowed xstate.Features // what the target holds
	extend  xstate.Features // what is added when the format goes up to xsave

	rule     *rule // that is being checked
	findings []Finding
}

// inferred returns the machine that glibc recorded, with the features that it used in
// any task; nil if there is no such record.
func inferred(tasks []*facts.Process) *xstate.CPU {
	var c *xstate.CPU
	for _, p := range tasks {
		if p.Source == nil || p.Source.CPU == nil {
			continue
		}
		if c == nil {
			c = new(*p.Source.CPU)
			c.Flags = []string{}
		}
		c.Flags = union(c.Flags, p.Source.Active)
	}
	return c
}

// machine returns the source: as the checkpoint records it, or else as glibc does.
func (sub *subject) machine() *xstate.CPU {
	if sub.source != nil {
		return sub.source
	}
	return inferred(sub.tasks)
}

// answered reports whether every task told how its lazy binding saves registers.
func answered(tasks []*facts.Process) bool {
	return len(tasks) > 0 && !slices.ContainsFunc(tasks, func(p *facts.Process) bool { return p.Source == nil && p.Libc != "musl" })
}

func hostName(host *xstate.CPU) string {
	if host.Name != "" {
		return host.Name
	}
	return "the host"
}

// targetName is how reasons speak of the target.
func (sub *subject) targetName() string {
	if sub.target.Host == nil || sub.target.Format != nil {
		return "the target" // a format may lack what the host has
	}
	return hostName(sub.target.Host)
}

// missing returns the present components that the target lacks, without PKRU,
// which has a rule of its own. Dead ones count as not in use.
func (sub *subject) missing(inUse bool) xstate.Features {
	var set xstate.Features
	for f, status := range sub.state.Present() {
		if !sub.allowed.Has(f) && f != xstate.PKRU && status != xstate.Lost && status != xstate.Unknown && (status == xstate.InUse && !sub.dead.Has(f)) == inUse {
			set |= f.Mask()
		}
	}
	return set
}

// pkruMatters reports whether PKRU would be taken away with a value that [guards]
// something.
func (sub *subject) pkruMatters() bool { return sub.pkruGoes() && guards(sub.state) }

// pkruGoes reports whether the record has PKRU and the target does not.
func (sub *subject) pkruGoes() bool {
	return sub.state.View(xstate.PKRU) != nil && !sub.allowed.Has(xstate.PKRU)
}

// guards reports whether PKRU neither opens every key nor is what Linux gives each
// new program.
func guards(s *xstate.State) bool {
	v := pkru(s)
	return v != 0 && v != xstate.DefaultPKRU
}

// pkru returns the value of PKRU, 0 if the record has none.
func pkru(s *xstate.State) uint32 {
	if view := s.View(xstate.PKRU); view != nil {
		return binary.LittleEndian.Uint32(view)
	}
	return 0
}

// shadowStackGoes reports whether the thread runs with a shadow stack and the
// target cannot give it one.
func (sub *subject) shadowStackGoes() bool {
	if !sub.state.ShadowStack.Enabled() {
		return false
	}
	if sub.to != xstate.FormatXSave {
		return true
	}
	has, known := sub.target.Host.HasFlag("user_shstk")
	return known && !has
}

// badMXCSR returns the bits of MXCSR that the target does not have.
func (sub *subject) badMXCSR() uint32 {
	host := sub.target.Host
	if host == nil || host.MXCSRMask == nil || sub.state.Format == xstate.FormatNone {
		return 0
	}
	// The default mask is what every CPU has; a recorded 0 stands for it.
	return sub.state.FX.MXCSR() &^ (*host.MXCSRMask | xstate.DefaultMXCSRMask)
}

// find adds a finding of the rule that is being checked.
func (sub *subject) find(components xstate.Features, format string, args ...any) *Finding {
	sub.findings = append(sub.findings, Finding{Rule: sub.rule.id, Severity: sub.rule.severity,
		Components: components.Names(), Features: []string{}, Reason: fmt.Sprintf(format, args...)})
	return &sub.findings[len(sub.findings)-1]
}

func (f *Finding) as(s Severity) *Finding {
	f.Severity = s
	return f
}

func (f *Finding) about(features ...string) *Finding {
	f.Features = features
	return f
}

func (f *Finding) mend(remedies ...Remedy) *Finding {
	f.Remedies = remedies
	return f
}

func (f *Finding) redact(reason string) *Finding {
	f.discreet = reason
	return f
}

// forced adds the remedies of every refusal that force lifts. need is the CPU
// features that a host would have to have.
func (sub *subject) forced(f *Finding, need ...string) {
	if sub.force {
		return
	}
	if sub.target.Host != nil && len(need) > 0 {
		f.mend(Remedy{HostWith, need}, Remedy{Kind: Force})
	} else {
		f.mend(Remedy{Kind: Force})
	}
}

// proved returns the components in use whose values the thread has done with: it waits
// in a system call, and none of its stack frames was interrupted by a signal, for a
// handler may look at what it interrupted. Who levels a process looks at its frames too,
// and a handler begins with registers of its own.
func (sub *subject) proved() xstate.Features {
	th := sub.thread
	if th == nil || th.Syscall == "" || !sub.level && slices.ContainsFunc(th.Frames, func(f facts.Frame) bool { return f.Live }) {
		return 0
	}
	return sub.state.With(xstate.InUse) & th.Dead & vectors
}

// foldRuns joins consecutively numbered names: ymm0 ymm1 ymm2 -> ymm0-ymm2.
func foldRuns(names []string) []string {
	var out []string
	for i := 0; i < len(names); {
		j := i
		for j+1 < len(names) && follows(names[j], names[j+1]) {
			j++
		}
		switch j - i {
		case 0:
			out = append(out, names[i])
		case 1:
			out = append(out, names[i], names[j])
		default:
			out = append(out, names[i]+"-"+names[j])
		}
		i = j + 1
	}
	return slices.Clip(out)
}

// follows reports whether b is a's name with the next number.
func follows(a, b string) bool {
	pa, na := splitNumber(a)
	pb, nb := splitNumber(b)
	return pa == pb && na >= 0 && nb == na+1
}

func splitNumber(name string) (prefix string, n int) {
	prefix = strings.TrimRight(name, "0123456789")
	n, err := strconv.Atoi(name[len(prefix):])
	if err != nil {
		return prefix, -1
	}
	return prefix, n
}

// union adds names to a sorted list.
func union(list, names []string) []string {
	for _, name := range names {
		if i, found := slices.BinarySearch(list, name); !found {
			list = slices.Insert(list, i, name)
		}
	}
	return list
}
