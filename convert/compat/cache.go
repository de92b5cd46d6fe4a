package compat

import (
	"encoding/binary"
	"iter"
	"slices"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Cache judges checkpoints for one target and policy. It remembers what was decided of
// threads: most of a fleet's are alike. It is not for several goroutines at once; its
// judgements may be read by others.
type Cache struct {
	target    Target
	policy    Policy
	predictor *predictor // nil without a host

	decided map[kind]*decided
	strange []Finding // about a source of which nothing is known
}

// kind is all that a decision depends on, but for what is known of a thread's code.
type kind struct {
	likeness      string
	foreign, code bool
}

// decided is what was decided of threads of a kind.
type decided struct {
	*Report
	seen seen
}

// maxDecided bounds a cache: a hostile checkpoint has no two threads that are alike.
const maxDecided = 4096

// NewCache returns an empty cache.
func NewCache(t Target, p Policy) *Cache {
	c := &Cache{target: t, policy: p, decided: map[kind]*decided{}}
	if t.Host != nil {
		c.predictor = newPredictor(t.Host, t.release())
	}
	return c
}

// Judge begins the judgement of a checkpoint.
func (c *Cache) Judge() *Judgement { return &Judgement{Findings: []Finding{}, cache: c} }

// decide decides of a thread. What is known of its code, if anything is, is of that
// thread alone.
func (c *Cache) decide(th Thread, foreign, code bool, known *facts.Thread) *decided {
	if th.likeness == nil {
		th.likeness = appendLikeness(nil, th.State)
	}
	if d := c.decided[kind{string(th.likeness), foreign, code}]; known == nil && d != nil {
		return d
	}
	scopes := []scope{record, fit}
	if code {
		scopes = append(scopes, thread)
	}
	sub := &subject{target: c.target, force: c.policy.Force, level: c.policy.Level, foreign: foreign, thread: known}
	d := &decided{Report: sub.report(th.State, scopes...)}
	if c.predictor != nil {
		d.seen = c.predictor.see(th.State)
	}
	if known == nil && len(c.decided) < maxDecided {
		c.decided[kind{string(th.likeness), foreign, code}] = d
	}
	return d
}

// machines finds what is to be said of the source and the host.
func (c *Cache) machines(source *xstate.CPU, tasks []*facts.Process, foreign bool) []Finding {
	anew := source != nil || tasks != nil || foreign
	if !anew && c.strange != nil {
		return c.strange
	}
	found := (&subject{source: source, tasks: tasks, target: c.target, foreign: foreign}).check(machines)
	if !anew {
		c.strange = slices.Clip(found)
	}
	return found
}

// appendLikeness spells all that a judgement reads of a state. States of the same likeness
// differ in the values of registers alone, and of these in none that is named below.
func appendLikeness(b []byte, s *xstate.State) []byte {
	word := func(v uint64) { b = binary.AppendUvarint(b, v) }
	flag := func(set bool) {
		if set {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	word(uint64(s.Format))
	word(uint64(s.Unknown))
	flag(s.Compat)
	word(uint64(s.BV))
	word(uint64(s.STLen))
	word(uint64(s.XMMLen))
	word(uint64(s.FX.FCW()))
	word(uint64(s.FX.MXCSR()))
	word(uint64(s.FX.MXCSRMask()))
	word(uint64(pkru(s)))
	word(uint64(len(s.Wide)))
	for _, name := range s.Wide {
		word(uint64(len(name)))
		b = append(b, name...)
	}
	if flag(s.ShadowStack != nil); s.ShadowStack != nil {
		word(s.ShadowStack.Status)
		word(s.ShadowStack.SSP)
	}
	for f, status := range s.Present() {
		b = append(b, byte(f), byte(status))
		word(uint64(len(s.Data(f))))
		word(uint64(s.Over(f)))
		if status == xstate.InUse {
			b = s.AppendUsed(b, f)
		}
	}
	return b
}

// revise returns a report after a change to its remedies, the same for one that threads
// share.
func (j *Judgement) revise(r *Report, change func(*Report)) *Report {
	revised, ok := j.revised[r]
	if !ok {
		revised = new(*r)
		revised.Findings = slices.Clone(r.Findings)
		change(revised)
		if j.revised == nil {
			j.revised = map[*Report]*Report{}
		}
		j.revised[r] = revised
	}
	return revised
}

// reviseAll revises the reports of all threads so far.
func (j *Judgement) reviseAll(change func(*Report)) {
	j.revised = nil
	for i := range j.Threads {
		j.Threads[i].Report = j.revise(j.Threads[i].Report, change)
	}
	j.revised = nil // of those that follow, for what holds now
}

// Reports yields the reports of the threads, those that threads share once.
func (j *Judgement) Reports() iter.Seq[*Report] {
	return func(yield func(*Report) bool) {
		yielded := map[*Report]bool{}
		for _, t := range j.Threads {
			if !yielded[t.Report] && !yield(t.Report) {
				return
			}
			yielded[t.Report] = true
		}
	}
}
