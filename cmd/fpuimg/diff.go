package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

type diffOptions struct {
	json, area bool
	host       string

	machine *xstate.CPU
}

func setupDiff(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	var o diffOptions
	fs.BoolVar(&o.json, "json", false, "print one JSON document")
	fs.BoolVar(&o.area, "xsave-area", false, "read standard input, or a file that is nothing else, as a bare XSAVE area")
	fs.StringVar(&o.host, "host", "", "for a bare area, or an ELF core that does not say so, the machine whose layout it has: this one or `PROFILE`")
	return func(s *cli.IO, args []string) (code cli.Exit, err error) {
		if o.machine, err = storedBy(s, o.host, args); err != nil {
			return 0, err
		}
		return o.run(s, args)
	}
}

// The JSON document of schema fpuimg.diff/1.
type diffDoc struct {
	Schema  string       `json:"schema"`
	A       string       `json:"a"`
	B       string       `json:"b"`
	Threads []diffThread `json:"threads"`
}

type diffThread struct {
	A           *int         `json:"a"`
	B           *int         `json:"b"`
	Differences []difference `json:"differences"`
}

// difference is one register, or property of the record, that differs. A value that
// one side lacks is null.
type difference struct {
	Component string  `json:"component"`
	Register  string  `json:"register"`
	A         *string `json:"a"`
	B         *string `json:"b"`
}

func (o *diffOptions) run(s *cli.IO, args []string) (cli.Exit, error) {
	if len(args) != 2 {
		return 0, &cli.UsageError{Err: fmt.Errorf("want two checkpoints, have %d", len(args)), Hint: "fpuimg diff A B"}
	}
	if args[0] == "-" && args[1] == "-" {
		return 0, &cli.UsageError{Err: errors.New("only one of the two can be standard input"), Hint: "save the other to a file"}
	}
	var sides [2]side
	for i, path := range args {
		ckpt, err := o.open(s, path)
		if err != nil {
			return 0, cli.Hinted(err, inputHint(path, err))
		}
		sides[i] = side{path, ckpt.Threads()}
	}
	doc := diffDoc{Schema: "fpuimg.diff/1", A: args[0], B: args[1], Threads: []diffThread{}}
	stream := &jsonStream{s: s}
	if o.json {
		if err := stream.open(doc); err != nil {
			return 0, err
		}
	}
	code := cli.OK
	var failed error
	for p, err := range pairThreads(sides[0], sides[1]) {
		if err != nil {
			failed = err
			break
		}
		d := p.compare()
		if d.A == nil || d.B == nil || len(d.Differences) > 0 {
			code = cli.Refused
		}
		if !o.json {
			doc.text(s, d)
		} else if err := stream.element(d); err != nil {
			return code, err
		}
	}
	if o.json {
		failed = errors.Join(failed, stream.close(nil))
	}
	return code, failed
}

// open reads one of the two checkpoints.
func (o *diffOptions) open(s *cli.IO, path string) (*checkpoint.Checkpoint, error) {
	input := checkpoint.Options{Machine: o.machine, XSaveArea: o.area && path == "-"}
	ckpt, err := open(s, path, input)
	if o.area && errors.Is(err, codec.ErrMagic) {
		input.XSaveArea = true
		ckpt, err = open(s, path, input)
	}
	if err == nil && len(ckpt.Problems) > 0 {
		err = ckpt.Problems[0]
	}
	return ckpt, err
}

// side is one of the two checkpoints.
type side struct {
	path    string
	threads iter.Seq2[codec.Thread, error]
}

// pull returns what gives the next thread, nil after the last one.
func (d side) pull() (next func() (*codec.Thread, error), stop func()) {
	pull, stop := iter.Pull2(d.threads)
	return func() (*codec.Thread, error) {
		th, err, ok := pull()
		if !ok || err != nil {
			return nil, cli.Hinted(err, inputHint(d.path, err))
		}
		return &th, nil
	}, stop
}

// pairThreads matches threads of the same number, and of what is left the first with
// the first, in the order of a. It reads both sides at once, and holds what waits for
// its match: one thread where both have the same order.
func pairThreads(a, b side) iter.Seq2[*pair, error] {
	return func(yield func(*pair, error) bool) {
		nextA, stopA := a.pull()
		defer stopA()
		nextB, stopB := b.pull()
		defer stopB()
		var waiting, rest []*pair                            // threads of a with or without one of b; of b alone
		singleA, singleB := map[int]*pair{}, map[int]*pair{} // those of them that may be matched yet
		for {
			ta, errA := nextA()
			tb, errB := nextB()
			if err := cmp.Or(errA, errB); err != nil {
				yield(nil, err)
				return
			}
			if ta == nil && tb == nil {
				break
			}
			if ta != nil {
				p := &pair{a: ta}
				if other := singleB[ta.TID]; other != nil {
					p.b, other.b = other.b, nil
					delete(singleB, ta.TID)
				} else {
					singleA[ta.TID] = p
				}
				waiting = append(waiting, p)
			}
			if tb != nil {
				if p := singleA[tb.TID]; p != nil {
					p.b = tb
					delete(singleA, tb.TID)
				} else {
					singleB[tb.TID] = &pair{b: tb}
					rest = append(rest, singleB[tb.TID])
				}
			}
			for len(waiting) > 0 && waiting[0].b != nil {
				if !yield(waiting[0], nil) {
					return
				}
				waiting = waiting[1:]
			}
		}
		rest = slices.DeleteFunc(rest, func(p *pair) bool { return p.b == nil })
		for _, p := range waiting {
			if p.b == nil && len(rest) > 0 {
				p.b, rest = rest[0].b, rest[1:]
			}
		}
		for _, p := range append(waiting, rest...) {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// pair is two threads to compare; one may be missing.
type pair struct{ a, b *codec.Thread }

// compare lists what differs. A component that one side's record lacks counts as
// INIT there, which is what a restored process would see; one that is lost has no
// value, and of one that is unknown only the state can be compared.
func (p *pair) compare() diffThread {
	d := diffThread{Differences: []difference{}}
	if p.a != nil {
		d.A = &p.a.TID
	}
	if p.b != nil {
		d.B = &p.b.TID
	}
	if p.a == nil || p.b == nil {
		return d
	}
	a, b := p.a.State, p.b.State
	add := func(component, register string, va, vb *string) {
		if va == nil && vb == nil || va != nil && vb != nil && *va == *vb {
			return
		}
		d.Differences = append(d.Differences, difference{component, register, va, vb})
	}
	add("record", "format", new(a.Format.String()), new(b.Format.String()))
	add("record", "xstate_bv", new(hex(uint64(a.BV))), new(hex(uint64(b.BV))))
	var set xstate.Features
	for _, st := range []*xstate.State{a, b} {
		for f := range st.Present() {
			set |= f.Mask()
		}
	}
	for f := range (set & xstate.Known).All() {
		if sa, sb := a.Status(f), b.Status(f); sa == xstate.Unknown || sb == xstate.Unknown {
			if sa != xstate.Absent && sb != xstate.Absent { // a record without it says no more
				add(f.String(), f.String(), new(sa.String()), new(sb.String()))
			}
			continue
		}
		va, vb := a.Value(f), b.Value(f)
		for _, r := range f.Component().Registers() {
			if va == nil || vb == nil || !bytes.Equal(va[r.Off:][:r.Size], vb[r.Off:][:r.Size]) {
				add(f.String(), r.Name, registerValue(va, r), registerValue(vb, r))
			}
		}
	}
	for i, name := range []string{"cet", "ssp"} {
		add("CET_U", name, shadowValue(a.ShadowStack, i), shadowValue(b.ShadowStack, i))
	}
	return d
}

func registerValue(view []byte, r xstate.Register) *string {
	if view == nil {
		return nil
	}
	return new(number(view[r.Off:][:r.Size]))
}

func shadowValue(ss *xstate.ShadowStack, i int) *string {
	if ss == nil {
		return nil
	}
	return new(hex([]uint64{ss.Status, ss.SSP}[i]))
}

func (doc *diffDoc) text(s *cli.IO, t diffThread) {
	switch {
	case t.B == nil:
		fmt.Fprintf(s.Out, "thread %d: only in %s\n", *t.A, cli.Printable(doc.A))
	case t.A == nil:
		fmt.Fprintf(s.Out, "thread %d: only in %s\n", *t.B, cli.Printable(doc.B))
	case len(t.Differences) > 0:
		name := fmt.Sprint(*t.A)
		if *t.A != *t.B {
			name += fmt.Sprintf(" and %d", *t.B)
		}
		fmt.Fprintln(s.Out, s.OutStyle(color.Bold).Sprintf("thread %s", name))
	}
	p := newPrinter(s)
	for _, d := range t.Differences {
		p.list(d.Register, append([]string{"-"}, diffWords(d.A)...))
		p.list("", append([]string{"+"}, diffWords(d.B)...))
	}
}

func diffWords(v *string) []string {
	switch {
	case v == nil:
		return []string{"no", "value"}
	case strings.HasPrefix(*v, "0x") && len(*v) > 18:
		return quads(*v)
	}
	return []string{*v}
}
