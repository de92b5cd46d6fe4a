package main

import (
	"debug/elf"
	"encoding/csv"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// outcome is a row of outcomes.tsv: what became of a checkpoint on a CPU model.
type outcome struct {
	entry, cpu, outcome string
	errors              bool // it lived, and lost registers
	at, symbol          string
}

func outcomes(t *testing.T) (rows []outcome) {
	r := csv.NewReader(strings.NewReader(string(corpus.Read(t, "outcomes.tsv"))))
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	all, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range all[1:] {
		o := outcome{row[0], row[1], row[5], strings.Trim(row[6], "0") != "", row[10], row[11]}
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
var disagreements = map[string]string{}

// TestOutcomes holds check --root against what became of real checkpoints on other CPU
// models: code-unfit, or a risky finding about code, where they died of SIGILL;
// lazy-save or frame-unfit where they died of SIGSEGV or lost registers; never code-unfit
// where they lived. FPU_OUTCOMES=all takes all entries.
func TestOutcomes(t *testing.T) {
	compared := 0
	table := map[string]int{}
	judged := map[string]*result{}
	hosts := map[string]*xstate.CPU{}
	for _, row := range outcomes(t) {
		if os.Getenv("FPU_OUTCOMES") != "all" && !slices.Contains(crossSection, row.entry) {
			continue
		}
		key := row.entry + " on " + row.cpu
		if judged[key] == nil {
			if hosts[row.cpu] == nil {
				hosts[row.cpu] = model(t, row.cpu)
			}
			judged[key] = checkOn(t, row.entry, corpus.Root(t, row.entry), hosts[row.cpu])
		}
		r := judged[key]
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
			if died := needed(t, row); agrees && len(died) > 0 {
				compared++
				missing := slices.DeleteFunc(died, func(name string) bool { return !slices.Contains(said.features, name) })
				if len(missing) == 0 {
					t.Errorf("%s: %s at %s, and check names %v", key, what, row.at, said.features)
				}
			}
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
	if compared == 0 {
		t.Error("no instruction was compared with a finding")
	}
	t.Logf("of %d the instruction that they died at needs a feature that check names", compared)
	var lines []string
	for line, n := range table {
		lines = append(lines, fmt.Sprintf("%4d  %s", n, line))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[6:], b[6:]) })
	t.Logf("what happened, and what check said\n%s", strings.Join(lines, "\n"))
}

// Files whose build-ids differ from the dumped ones prove nothing: on a CPU where the
// program died, that is said of each, and nothing is called unfit.
func TestOtherBuildIDs(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(corpus.Root(t, "lp-1"))); err != nil {
		t.Fatal(err)
	}
	objects := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		f, ferr := elf.Open(path)
		if err != nil || ferr != nil {
			return err
		}
		defer f.Close()
		note := f.Section(".note.gnu.build-id")
		if note == nil {
			return nil
		}
		objects++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[note.Offset+16] ^= 1
		return os.WriteFile(path, b, 0o644)
	})
	if err != nil || objects < 4 {
		t.Fatalf("%d objects: %v", objects, err)
	}
	r := checkOn(t, "lp-1", dir, model(t, "Haswell"))
	if r.Verdict == compat.CodeUnfit || len(said(r).rules) > 0 {
		t.Errorf("%v: %v", r.Verdict, said(r).rules)
	}
	var unknown []compat.Finding
	for _, task := range r.Tasks {
		for _, f := range task.Findings {
			if f.Rule == compat.CodeUnknown && f.Severity == compat.Risky {
				unknown = append(unknown, f)
			}
		}
	}
	if len(unknown) != 1 || !strings.Contains(unknown[0].Reason, "libc.so.6") {
		t.Errorf("unknown: %v", unknown)
	}
}

// checkOn judges an entry of the corpus, by the files below a directory.
func checkOn(t *testing.T, entry, dir string, cpu *xstate.CPU) *result {
	t.Helper()
	o := checkOptions{hosts: []*host{{CPU: cpu}}, code: codeOptions{dirs: []string{dir}}}
	if err := o.code.open(); err != nil {
		t.Fatal(err)
	}
	defer o.code.close()
	all, err := checkpoint.OpenAll(corpus.Images(t, entry), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return o.check(all[0].Checkpoint, o.judges()).results[0]
}

// verdictOn is what a judgement says of code.
type verdictOn struct {
	word     string // code-unfit, the chief risky rule, or "-"
	rules    []compat.Rule
	features []string // that they name
}

// needed returns the features of the instruction that a process died at; none where the
// file of it is not among the recordings, or it lies in no file.
func needed(t *testing.T, row outcome) []string {
	t.Helper()
	name, offset, ok := strings.Cut(row.at, "+")
	addr, err := strconv.ParseUint(offset, 0, 64)
	if !ok || err != nil {
		return nil
	}
	var found string
	filepath.WalkDir(corpus.Root(t, row.entry), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			found = path
		}
		return nil
	})
	f, err := elf.Open(found)
	if err != nil {
		return nil
	}
	defer f.Close()
	for _, seg := range f.Progs {
		if seg.Type != elf.PT_LOAD || addr < seg.Vaddr || addr >= seg.Vaddr+seg.Filesz {
			continue
		}
		b := make([]byte, 16)
		n, _ := seg.ReadAt(b, int64(addr-seg.Vaddr))
		i, ok := isa.Decode(b[:n])
		if !ok {
			t.Errorf("%s: %s: % x is not decoded", row.entry, row.at, b)
		}
		var names []string
		for f := range i.Features().All() {
			names = append(names, f.String())
		}
		return names
	}
	return nil
}

// said gathers the rules about code that found something worse than a note.
func said(r *result) verdictOn {
	v := verdictOn{word: "-"}
	take := func(fs []compat.Finding) {
		for _, f := range fs {
			switch f.Rule {
			case compat.CodeMissing, compat.ThreadInCode, compat.LazySave, compat.FrameUnfit, compat.OwnDispatch, compat.CompiledISA, compat.CachedCPUID, compat.JITCode:
				if f.Severity > compat.Note {
					v.rules, v.features = append(v.rules, f.Rule), append(v.features, f.Features...)
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
