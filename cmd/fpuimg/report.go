package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fatih/color"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	"github.com/fpuimg/fpuimg/internal/cli"
)

// judged is a thread and what the policy says of it: what check prints and convert
// carries out.
type judged struct {
	tid int
	*compat.Report
}

// lossDoc is the loss of one component in JSON.
type lossDoc struct {
	Component string   `json:"component"`
	Registers []string `json:"registers"`
}

func lossDocs(lost []compat.Loss) []lossDoc {
	out := []lossDoc{}
	for _, l := range lost {
		out = append(out, lossDoc{l.Component.String(), append([]string{}, l.Registers...)})
	}
	return out
}

// foldThreads groups threads by key, in the order in which the keys first occur.
func foldThreads(ts []judged, key func(judged) string) [][]judged {
	var order []string
	groups := map[string][]judged{}
	for _, t := range ts {
		k := key(t)
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], t)
	}
	out := make([][]judged, len(order))
	for i, k := range order {
		out[i] = groups[k]
	}
	return out
}

// tids names the threads of a group: one, or the range and how many.
func tids(ts []judged) string {
	list := make([]int, len(ts))
	for i, t := range ts {
		list[i] = t.tid
	}
	return tidRange(list)
}

// tidRange names threads: one, or the range and how many.
func tidRange(list []int) string {
	first, last := slices.Min(list), slices.Max(list)
	switch {
	case last == 0:
		return "?"
	case len(list) == 1:
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d (%d)", first, last, len(list))
}

func threadWord(n int) string {
	if n == 1 {
		return "thread"
	}
	return "threads"
}

// printFindings prints the findings of all threads, equal ones once, then those
// of the checkpoint.
func printFindings(s *cli.IO, ts []judged, checkpoint []compat.Finding) {
	type placed struct {
		finding compat.Finding
		tids    []int
	}
	var all []*placed
	byKey := map[string]*placed{}
	for _, t := range ts {
		for _, f := range t.Findings {
			key := string(f.Rule) + f.Reason
			p := byKey[key]
			if p == nil {
				p = &placed{finding: f}
				byKey[key] = p
				all = append(all, p)
			}
			p.tids = append(p.tids, t.tid)
		}
	}
	slices.SortStableFunc(all, func(a, b *placed) int { return int(b.finding.Severity) - int(a.finding.Severity) })
	for i, p := range all {
		if slices.ContainsFunc(all[i+1:], func(o *placed) bool { return o.finding.Hint == p.finding.Hint }) {
			p.finding.Hint = "" // said once, below
		}
		printFinding(s, threadWord(len(p.tids))+" "+tidRange(p.tids), &p.finding)
	}
	for i := range checkpoint {
		printFinding(s, "checkpoint", &checkpoint[i])
	}
}

// allFindings returns the findings of a checkpoint and of its threads, equal ones
// once.
func allFindings(ts []judged, checkpoint []compat.Finding) []compat.Finding {
	out := append([]compat.Finding{}, checkpoint...)
	seen := map[string]bool{}
	for _, t := range ts {
		for _, f := range t.Findings {
			if key := string(f.Rule) + f.Reason; !seen[key] {
				seen[key] = true
				out = append(out, f)
			}
		}
	}
	return out
}

func verdictStyle(s *cli.IO, v compat.Verdict) *color.Color {
	switch v {
	case compat.Compatible:
		return s.OutStyle(color.FgGreen)
	case compat.DowngradeLossless:
		return s.OutStyle(color.FgYellow)
	}
	return s.OutStyle(color.FgRed, color.Bold)
}

// actionLines groups the decisions of a report by action.
func actionLines(r *compat.Report) [][2]string {
	var lines [][2]string
	for _, a := range []compat.Action{compat.Refuse, compat.Strip, compat.Drop, compat.Init, compat.Extend, compat.Keep} {
		var set xstate.Features
		for _, d := range r.Decisions {
			if d.Action == a {
				set |= d.Component.Mask()
			}
		}
		if set != 0 {
			lines = append(lines, [2]string{a.String(), strings.Join(set.Names(), " ")})
		}
	}
	return lines
}
