package main

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
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
	fs.Lookup("host").NoOptDefVal = liveHost
	return func(s *cli.IO, args []string) (code cli.Exit, err error) {
		if o.machine, err = storedBy(o.host, args); err != nil {
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
	a, err := o.openSide(s, args[0])
	if err != nil {
		return 0, cli.Hinted(err, inputHint(args[0], err))
	}
	defer a.stop()
	b, err := o.openSide(s, args[1])
	if err != nil {
		return 0, cli.Hinted(err, inputHint(args[1], err))
	}
	defer b.stop()
	doc := diffDoc{Schema: "fpuimg.diff/1", A: args[0], B: args[1], Threads: []diffThread{}}
	stream := &jsonStream{s: s}
	if o.json {
		if err := stream.open(doc); err != nil {
			return 0, err
		}
	}
	code := cli.OK
	for _, p := range pairThreads(a.tids, b.tids) {
		d, err := compareAt(a, b, p)
		if err != nil {
			return code, err
		}
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
		return code, stream.close()
	}
	return code, nil
}

// side is one of the two checkpoints. Its threads are read twice: once to see that
// all of them can be, and again one by one, since there may be many.
type side struct {
	path   string
	tids   []int
	next   func() (codec.Thread, error, bool)
	stop   func()
	at     int                  // the place of the thread that next gives
	passed map[int]codec.Thread // those on the way to the last one asked for
}

// openSide opens a checkpoint whose threads can all be read.
func (o *diffOptions) openSide(s *cli.IO, path string) (*side, error) {
	input := codec.Options{Machine: o.machine, XSaveArea: o.area && path == "-"}
	ckpt, err := open(s, path, input)
	if o.area && noImage(err) {
		input.XSaveArea = true
		ckpt, err = open(s, path, input)
	}
	if err != nil {
		return nil, err
	}
	if len(ckpt.Problems) > 0 {
		return nil, ckpt.Problems[0]
	}
	d := &side{path: path, passed: map[int]codec.Thread{}}
	for th, err := range ckpt.Threads() {
		if err != nil {
			return nil, err
		}
		d.tids = append(d.tids, th.TID)
	}
	d.next, d.stop = iter.Pull2(ckpt.Threads())
	return d, nil
}

// thread gives the thread at a place, each one once; nil for the place of none.
func (d *side) thread(place int) (*codec.Thread, error) {
	if place == none {
		return nil, nil
	}
	for ; d.at <= place; d.at++ {
		th, err, ok := d.next()
		if err != nil {
			return nil, err
		}
		if !ok || th.TID != d.tids[d.at] {
			return nil, fmt.Errorf("%s: another program changed it while it was read", d.path)
		}
		d.passed[d.at] = th
	}
	th := d.passed[place]
	delete(d.passed, place)
	return &th, nil
}

// none is the place of a thread that a side lacks.
const none = -1

// places are where two threads to compare are on their sides.
type places struct{ a, b int }

// pairThreads matches threads of the same number first, the rest in their order.
func pairThreads(a, b []int) []places {
	byTID := map[int][]int{} // a damaged pstree.img may repeat a number
	for i, tid := range b {
		byTID[tid] = append(byTID[tid], i)
	}
	pairs := make([]places, len(a))
	used := make([]bool, len(b))
	for i, tid := range a {
		pairs[i] = places{i, none}
		if at := byTID[tid]; len(at) > 0 {
			pairs[i].b, byTID[tid] = at[0], at[1:]
			used[at[0]] = true
		}
	}
	var rest []int
	for i := range b {
		if !used[i] {
			rest = append(rest, i)
		}
	}
	for i := range pairs {
		if pairs[i].b == none && len(rest) > 0 {
			pairs[i].b, rest = rest[0], rest[1:]
		}
	}
	for _, at := range rest {
		pairs = append(pairs, places{none, at})
	}
	return pairs
}

// compareAt compares the threads at two places.
func compareAt(a, b *side, at places) (diffThread, error) {
	ta, err := a.thread(at.a)
	if err != nil {
		return diffThread{}, err
	}
	tb, err := b.thread(at.b)
	if err != nil {
		return diffThread{}, err
	}
	return pair{ta, tb}.compare(), nil
}

// pair is two threads to compare; one may be missing.
type pair struct{ a, b *codec.Thread }

// compare lists what differs. A component that one side's record lacks counts as
// INIT there, which is what a restored process would see; one that is lost has no
// value.
func (p pair) compare() diffThread {
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
	a, b := &p.a.Core.State, &p.b.Core.State
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
		va, vb := a.Value(f), b.Value(f)
		for r := range f.Component().Registers() {
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
	p := &printer{s: s}
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
