package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fatih/color"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// LossDoc is the loss of one component in JSON.
type LossDoc struct {
	Component string   `json:"component"`
	Registers []string `json:"registers"`
	// Dead is the system call that a thread waits in which has done with the values;
	// then they are no loss.
	Dead string `json:"dead,omitempty"`
}

// LossDocs returns the losses for JSON, those that are none for a proof among them;
// never nil.
func LossDocs(r *compat.Report) []LossDoc {
	out := []LossDoc{}
	for _, l := range r.Lost {
		out = append(out, LossDoc{l.Component.String(), append([]string{}, l.Registers...), ""})
	}
	for _, l := range r.Dead {
		out = append(out, LossDoc{l.Component.String(), append([]string{}, l.Registers...), r.Blocked})
	}
	return out
}

// Fold groups what has the same key, in the order in which the keys first occur.
func Fold[T any, K comparable](list []T, key func(T) K) [][]T {
	var out [][]T
	at := map[K]int{}
	for _, v := range list {
		k := key(v)
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k], out = i, append(out, nil)
		}
		out[i] = append(out[i], v)
	}
	return out
}

// Group is threads of which the same is said, by the report of the first.
type Group struct {
	*compat.Report
	TIDs []int
}

// Threads is [Fold] for threads by their reports. The key of a report that threads share
// is asked for once.
func Threads(ts []compat.Judged, key func(*compat.Report) string) []*Group {
	var out []*Group
	byKey, byReport := map[string]*Group{}, map[*compat.Report]*Group{}
	for _, t := range ts {
		g := byReport[t.Report]
		if g == nil {
			k := key(t.Report)
			if g = byKey[k]; g == nil {
				g = &Group{Report: t.Report}
				byKey[k] = g
				out = append(out, g)
			}
			byReport[t.Report] = g
		}
		g.TIDs = append(g.TIDs, t.TID)
	}
	return out
}

// Range names threads: one, or the range and how many.
func Range(list []int) string {
	first, last := slices.Min(list), slices.Max(list)
	switch {
	case last == 0:
		return "?"
	case len(list) == 1:
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d (%d)", first, last, len(list))
}

// Noun is the noun for n things.
func Noun(n int, noun string) string {
	switch {
	case n == 1:
		return noun
	case strings.HasSuffix(noun, "s"):
		return noun + "es"
	}
	return noun + "s"
}

// Count spells a number of things: "2 threads".
func Count(n int, noun string) string { return fmt.Sprint(n) + " " + Noun(n, noun) }

// maxTold is how many findings of one rule are printed, and how many losses: a hostile
// checkpoint has others for each of its threads.
const maxTold = 10

// Told is a finding as a report tells it.
type Told struct {
	*compat.Finding
	Where         string // "thread 12", "tasks 1-5 (3)", "checkpoint"
	Hint, Command string // what to do, and the command that it ends in; "" if nothing, or said further below
}

// Tell returns the findings of all tasks and threads, equal ones once, the gravest
// first, then those of the checkpoint. Those of a rule after the tenth are counted.
func Tell(tasks []compat.Task, ts []compat.Judged, checkpoint []compat.Finding, a Advice) (all []Told, more []string) {
	type placed struct {
		Told
		noun string
		ids  []int
	}
	var list []*placed
	byKey := map[string]*placed{}
	find := func(noun string, findings []compat.Finding) []*placed {
		out := make([]*placed, len(findings))
		for i := range findings {
			f := &findings[i]
			key := string(f.Rule) + f.Reason
			p := byKey[key]
			if p == nil {
				p = &placed{Told: Told{Finding: f}, noun: noun}
				p.Hint, p.Command = a.hint(f)
				byKey[key] = p
				list = append(list, p)
			}
			out[i] = p
		}
		return out
	}
	place := func(id int, found []*placed) {
		for _, p := range found {
			p.ids = append(p.ids, id)
		}
	}
	for _, t := range tasks {
		place(t.PID, find("task", t.Findings))
	}
	byReport := map[*compat.Report][]*placed{}
	for _, t := range ts {
		found, ok := byReport[t.Report]
		if !ok {
			found = find("thread", t.Findings)
			byReport[t.Report] = found
		}
		place(t.TID, found)
	}
	slices.SortStableFunc(list, func(a, b *placed) int { return int(b.Severity) - int(a.Severity) })
	told := map[compat.Rule]int{}
	tell := func(f *compat.Finding) bool {
		told[f.Rule]++
		return told[f.Rule] <= maxTold
	}
	list = slices.DeleteFunc(list, func(p *placed) bool { return !tell(p.Finding) })
	for i, p := range list {
		if slices.ContainsFunc(list[i+1:], func(o *placed) bool { return o.Hint == p.Hint && o.Command == p.Command }) {
			p.Hint, p.Command = "", "" // said once, below
		}
		p.Where = Noun(len(p.ids), p.noun) + " " + Range(p.ids)
		if Range(p.ids) == "?" { // a core image whose name does not tell
			p.Where = "this " + p.noun
		}
		all = append(all, p.Told)
	}
	for i := range checkpoint {
		if f := &checkpoint[i]; tell(f) {
			hint, command := a.hint(f)
			all = append(all, Told{f, "checkpoint", hint, command})
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(told)) {
		if n := told[rule] - maxTold; n > 0 {
			more = append(more, fmt.Sprintf("%s: and %d more", rule, n))
		}
	}
	return all, more
}

// Findings prints what [Tell] returns.
func Findings(s *cli.IO, tasks []compat.Task, ts []compat.Judged, checkpoint []compat.Finding, a Advice) {
	all, more := Tell(tasks, ts, checkpoint, a)
	for _, t := range all {
		printFinding(s, t)
	}
	for _, line := range more {
		fmt.Fprintln(s.Out, line)
	}
}

// AllFindings returns the findings of a checkpoint and of its threads, equal ones
// once.
func AllFindings(ts []compat.Judged, checkpoint []compat.Finding) []compat.Finding {
	out := append([]compat.Finding{}, checkpoint...)
	seen, read := map[string]bool{}, map[*compat.Report]bool{}
	for _, t := range ts {
		if read[t.Report] {
			continue
		}
		read[t.Report] = true
		for _, f := range t.Findings {
			if key := string(f.Rule) + f.Reason; !seen[key] {
				seen[key] = true
				out = append(out, f)
			}
		}
	}
	return out
}

// VerdictStyle is the colour of a verdict on standard output.
func VerdictStyle(s *cli.IO, v compat.Verdict) *color.Color {
	switch v {
	case compat.Compatible:
		return s.OutStyle(color.FgGreen)
	case compat.DowngradeLossless, compat.Undecided:
		return s.OutStyle(color.FgYellow)
	}
	return s.OutStyle(color.FgRed, color.Bold)
}

// ActionLines groups the decisions of a report by action.
func ActionLines(r *compat.Report) [][2]string {
	var lines [][2]string
	for _, a := range []compat.Action{compat.Refuse, compat.Strip, compat.Drop, compat.Init, compat.Extend, compat.Keep} {
		var set xstate.Features
		for _, d := range r.Decisions {
			if d.Action == a {
				set |= d.Component.Mask()
			}
		}
		if set != 0 {
			lines = append(lines, [2]string{string(a), strings.Join(set.Names(), " ")})
		}
	}
	return lines
}

// printFinding prints one finding: severity, rule and place first, then the reason in
// words, and the hint, with its command on a line of its own to copy.
func printFinding(s *cli.IO, t Told) {
	style := map[compat.Severity]*color.Color{
		compat.Note:  s.OutStyle(color.Faint),
		compat.Risky: s.OutStyle(color.FgYellow, color.Bold),
		compat.Fatal: s.OutStyle(color.FgRed, color.Bold),
	}[t.Severity]
	head := t.Where
	if len(t.Components) > 0 {
		head += ", " + strings.Join(t.Components, " ")
	}
	fmt.Fprintf(s.Out, "%s %s: %s\n", style.Sprint(t.Severity), t.Rule, head)
	paragraph := func(text string) {
		for _, line := range cli.Wrap(strings.Fields(cli.Printable(text)), s.Width()-5) {
			fmt.Fprintln(s.Out, "    "+line)
		}
	}
	paragraph(t.Reason)
	if t.Hint != "" {
		paragraph("hint: " + t.Hint)
	}
	if t.Command != "" {
		fmt.Fprintln(s.Out, "        "+cli.Printable(t.Command))
	}
}

// ActionDoc is what happens to one component, in JSON.
type ActionDoc struct {
	Component string        `json:"component"`
	Action    compat.Action `json:"action"`
	Lossless  bool          `json:"lossless"`
}

// ActionDocs returns the decisions of a report for JSON; never nil.
func ActionDocs(r *compat.Report) []ActionDoc {
	out := []ActionDoc{}
	for _, d := range r.Decisions {
		out = append(out, ActionDoc{d.Component.String(), d.Action, d.Lossless})
	}
	return out
}

// Actions prints a table of what happens to each thread, those of the same fate in
// one row.
func Actions(s *cli.IO, ts []compat.Judged) {
	var rows [][]string
	key := func(r *compat.Report) string {
		words := []string{r.From.String(), r.To.String()}
		for _, l := range ActionLines(r) {
			words = append(words, l[:]...)
		}
		return strings.Join(words, ",")
	}
	for _, group := range Threads(ts, key) {
		first := []string{Range(group.TIDs), group.From.String(), group.To.String()}
		for _, l := range ActionLines(group.Report) {
			rows = append(rows, append(first, l[0], l[1]))
			first = []string{"", "", ""}
		}
		if first[0] != "" {
			rows = append(rows, append(first, "keep", "-"))
		}
	}
	if len(rows) > 0 {
		Table(s, []string{"THREADS", "FROM", "TO", "ACTION", "COMPONENTS"}, rows)
	}
}

// Losses warns of every loss that force lets happen, and says what it means for the
// process. prefix names the checkpoint or process; planned tells that nothing is
// lost yet.
func Losses(s *cli.IO, prefix string, planned bool, ts []compat.Judged) {
	groups := Threads(ts, func(r *compat.Report) string { return fmt.Sprint(r.Lost, r.Stripped()) })
	if n := len(groups) - maxTold; n > 0 {
		defer s.Warnf("%s: and %d more losses", prefix, n)
		groups = groups[:maxTold]
	}
	for _, group := range groups {
		who := fmt.Sprintf("%s: %s %s", prefix, Noun(len(group.TIDs), "thread"), Range(group.TIDs))
		verb := "loses"
		switch {
		case planned:
			verb = "would lose"
		case len(group.TIDs) > 1:
			verb = "lose"
		}
		if lost := group.Lost; len(lost) > 0 {
			s.Warnf("%s %s %s: %s", who, verb, strings.Join(compat.LossNames(lost), ", "), compat.Consequence(lost))
		}
		if bits := group.Stripped(); bits != 0 {
			s.Warnf("%s: the bits of %s are cleared: the image lacks their values, and the process will see INIT", who, strings.Join(bits.Names(), ", "))
		}
	}
}

// Price says what force would cost.
func Price(ts []compat.Judged) string {
	if names := compat.LostNames(ts); len(names) > 0 {
		return "it would lose " + strings.Join(names, ", ")
	}
	if slices.ContainsFunc(ts, func(t compat.Judged) bool { return t.Unknown != 0 }) {
		return "what is not recorded of its registers would become INIT"
	}
	return "no register value would be lost, but nobody knows what the program does next"
}

// Quote makes a word safe to paste into a shell.
func Quote(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:@+", r)
	}) {
		return word
	}
	if cli.Printable(word) != word { // as bash, zsh and ksh read it, and POSIX since 2024
		var b strings.Builder
		for _, c := range []byte(word) {
			if c < ' ' || c > '~' || c == '\'' || c == '\\' {
				fmt.Fprintf(&b, `\%03o`, c)
			} else {
				b.WriteByte(c)
			}
		}
		return "$'" + b.String() + "'"
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Path is Quote for a path among a command's arguments, which must not look like an
// option. "-" stays: it is standard input.
func Path(path string) string {
	if strings.HasPrefix(path, "-") && path != "-" {
		path = "./" + path
	}
	return Quote(path)
}
