package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// outcome is a row of outcomes.tsv: what became of a checkpoint on a CPU model.
type outcome struct {
	entry, cpu, outcome, symbol string
	errors                      bool // it lived, and lost registers
}

func outcomes(t *testing.T) (rows []outcome) {
	r := csv.NewReader(strings.NewReader(string(corpus.Read(t, "outcomes.tsv"))))
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	all, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range all[1:] {
		o := outcome{row[0], row[1], row[5], row[11], strings.Trim(row[6], "0") != ""}
		if o.outcome != "refused" && !slices.Contains(rows, o) {
			rows = append(rows, o)
		}
	}
	return rows
}

// model is the CPU of an outcome, as the folder describes it.
func model(t *testing.T, name string) *xstate.CPU {
	t.Helper()
	name = strings.ReplaceAll(strings.TrimSuffix(name, "(Zen4)"), ",", "_")
	for _, file := range []string{"2.43.diag.txt", "2.41.diag.txt", "2.36.diag.txt"} {
		b, err := os.ReadFile(filepath.Join(corpus.Dir(t), "profiles", name, file))
		if err != nil {
			continue
		}
		c, err := cpuid.Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Name = name
		return c
	}
	t.Fatalf("no profile of %s", name)
	return nil
}

// crossSection are entries of every kind, for a run that is short.
var crossSection = []string{"blk-9", "gh-lp1", "gh-lpnow1", "inlm-ymm", "inlm-zmm", "lp-1", "lpmusl-1", "lpst-1", "py-1", "sb-3", "sighm-ymm", "spinm-ymm"}

// disagreements are rows where the verdict and what happened differ, and why. The test
// fails if one of them starts to agree.
var disagreements = map[string]string{
	"go-1 on EPYC":              noBuildID,
	"go-1 on EPYC-Milan":        noBuildID,
	"go-1 on Haswell":           noBuildID,
	"go-1 on Nehalem":           noBuildID,
	"go-1 on SandyBridge":       noBuildID,
	"go-1 on max":               noBuildID,
	"go-1 on qemu64,-xsave":     noBuildID,
	"go-1-cap on EPYC-Milan":    noBuildID,
	"go-1-cap on Haswell":       noBuildID,
	"go-1-cap on Nehalem":       noBuildID,
	"go-1-cap on qemu64,-xsave": noBuildID,
}

const (
	noBuildID = "Go files have no build-id, so nothing proves them: code-unknown"
)

// TestOutcomes holds check --root against what became of real checkpoints on other CPU
// models: code-unfit, or a risky finding about code, where they died of SIGILL;
// lazy-save or frame-unfit where they died of SIGSEGV or lost registers; never code-unfit
// where they lived. FPU_OUTCOMES=all takes all entries.
func TestOutcomes(t *testing.T) {
	table := map[string]int{}
	judged := map[string]*checked{}
	hosts := map[string]*host{}
	for _, row := range outcomes(t) {
		if os.Getenv("FPU_OUTCOMES") != "all" && !slices.Contains(crossSection, row.entry) {
			continue
		}
		key := row.entry + " on " + row.cpu
		if judged[key] == nil {
			if hosts[row.cpu] == nil {
				hosts[row.cpu] = &host{CPU: model(t, row.cpu)}
			}
			o := checkOptions{hosts: []*host{hosts[row.cpu]}, code: codeOptions{dirs: []string{corpus.Root(t, row.entry)}}}
			if err := o.code.open(); err != nil {
				t.Fatal(err)
			}
			all, err := checkpoint.OpenAll(corpus.Images(t, row.entry), checkpoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			judged[key] = o.check(all[0].Checkpoint)
			o.code.close()
		}
		r := judged[key].results[0]
		said := said(r)
		var agrees bool
		what := row.outcome
		switch {
		case row.outcome == "alive" && row.errors:
			what, agrees = "lost registers", slices.Contains(said.rules, compat.FrameUnfit) && r.Verdict != compat.CodeUnfit
		case row.outcome == "alive":
			agrees = r.Verdict != compat.CodeUnfit
		case strings.HasPrefix(row.outcome, "sigill"):
			agrees = said.word != "-" && said.word != string(compat.FrameUnfit)
		default:
			agrees = slices.Contains(said.rules, compat.LazySave) || slices.Contains(said.rules, compat.FrameUnfit)
		}
		table[fmt.Sprintf("%-16s %s", what, said.word)]++
		switch cause, listed := disagreements[key]; {
		case !agrees && !listed:
			t.Errorf("%s: %s %s, and check says %v: %v", key, what, row.symbol, r.Verdict, said.rules)
		case agrees && listed:
			t.Errorf("%s agrees, and is listed for %s", key, cause)
		}
	}
	var lines []string
	for line, n := range table {
		lines = append(lines, fmt.Sprintf("%4d  %s", n, line))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[6:], b[6:]) })
	t.Logf("what happened, and what check said\n%s", strings.Join(lines, "\n"))
}

// verdictOn is what a judgement says of code.
type verdictOn struct {
	word  string // code-unfit, the chief risky rule, or "-"
	rules []compat.Rule
}

// said gathers the rules about code that found something worse than a note.
func said(r *result) verdictOn {
	v := verdictOn{word: "-"}
	take := func(fs []compat.Finding) {
		for _, f := range fs {
			switch f.Rule {
			case compat.CodeMissing, compat.ThreadInCode, compat.LazySave, compat.FrameUnfit, compat.OwnDispatch, compat.CompiledISA, compat.CachedCPUID, compat.JITCode:
				if f.Severity > compat.Note {
					v.rules = append(v.rules, f.Rule)
				}
			}
		}
	}
	for _, t := range r.Tasks {
		take(t.Findings)
	}
	for _, t := range r.Threads {
		take(t.Findings)
	}
	if len(v.rules) > 0 {
		v.word = string(v.rules[0])
	}
	if r.Verdict == compat.CodeUnfit {
		v.word = r.Verdict.String()
	}
	return v
}
