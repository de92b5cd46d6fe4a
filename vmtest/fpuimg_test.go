package vmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// command is one of the project's programs, built as a user would for any x86-64
// machine: static, and with nothing that the plainest CPU model lacks.
type command string

func buildCommand(t *testing.T, dir, name string) command {
	t.Helper()
	out := filepath.Join(dir, name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", out, "../cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return command(out)
}

// run runs the program and requires one of the exit statuses in want.
func (c command) run(t *testing.T, want []int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), string(c), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); !slices.Contains(want, got) {
		t.Fatalf("%s %q: exit status %d, want %v\n%s", filepath.Base(string(c)), args, got, want, errOut.String())
	}
	return out.String(), errOut.String()
}

// Exit statuses of fpuimg.
const (
	exitOK      = 0
	exitRefused = 1
	exitDamaged = 3
)

// What this test reads of the documents.
type (
	checkDoc struct {
		Schema string `json:"schema"`
		Images []struct {
			Path    string        `json:"path"`
			Results []checkResult `json:"results"`
		} `json:"images"`
	}
	checkResult struct {
		Host     int                   `json:"host"`
		Verdict  string                `json:"verdict"`
		Findings []finding             `json:"findings"`
		CRIU     map[string]prediction `json:"criu"`
		Release  string                `json:"criu_version"`
		Tasks    []struct {
			Findings []finding `json:"findings"`
		} `json:"tasks"`
		Threads []struct {
			Findings []finding `json:"findings"`
		} `json:"threads"`
	}
	finding struct {
		Rule       string   `json:"rule"`
		Severity   string   `json:"severity"`
		Components []string `json:"components"`
		Features   []string `json:"features"`
		Message    string   `json:"message"`
	}
	prediction struct {
		Outcome string   `json:"outcome"`
		Class   *string  `json:"class"`
		Loses   []string `json:"loses"`
		Reason  string   `json:"reason"`
	}
	convertDoc struct {
		Schema string `json:"schema"`
		Images []struct {
			Output  *string `json:"output"`
			Verdict string  `json:"verdict"`
			Threads []struct {
				From    string `json:"from"`
				To      string `json:"to"`
				Actions []struct {
					Component string `json:"component"`
					Action    string `json:"action"`
				} `json:"actions"`
				Lost []struct {
					Component string `json:"component"`
				} `json:"lost"`
			} `json:"threads"`
		} `json:"images"`
	}
	levelDoc struct {
		Images []struct {
			Output   *string          `json:"output"`
			Refusals []refusalOfLevel `json:"refusals"`
			Tasks    []levelTask      `json:"tasks"`
		} `json:"images"`
	}
	refusalOfLevel struct {
		Name       string `json:"name"`
		Acceptable bool   `json:"acceptable"`
	}
	levelTask struct {
		PID   uint32 `json:"pid"`
		Words []struct {
			Address string `json:"address"`
			Object  string `json:"object"`
			What    string `json:"what"`
			Size    int    `json:"size"`
			From    string `json:"from"`
		} `json:"words"`
	}
	profileDoc struct {
		Schema       string   `json:"schema"`
		Vendor       string   `json:"vendor"`
		Family       uint32   `json:"family"`
		Model        uint32   `json:"model"`
		Stepping     uint32   `json:"stepping"`
		ModelName    string   `json:"model_name"`
		XFeaturesHW  string   `json:"xfeatures_hw"`
		XSaveSize    uint32   `json:"xsave_size"`
		XSaveSizeMax uint32   `json:"xsave_size_max"`
		Flags        []string `json:"flags"`
		Capability   []string `json:"capability"`
	}
)

func decode(t *testing.T, text string, doc any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), doc); err != nil {
		t.Fatal(err)
	}
}

// all returns the findings about the machine, every task and every thread.
func (r *checkResult) all() []finding {
	out := slices.Clone(r.Findings)
	for _, task := range r.Tasks {
		out = append(out, task.Findings...)
	}
	for _, th := range r.Threads {
		out = append(out, th.Findings...)
	}
	return out
}

// warned reports whether a finding that is no mere note names the flag of an
// instruction set, or the component, as missing.
func (r *checkResult) warned(name string) bool {
	return slices.ContainsFunc(r.all(), func(f finding) bool {
		return f.Severity != "note" && (slices.Contains(f.Features, name) || slices.Contains(f.Components, name))
	})
}

// risks reports whether there is a finding of the rule that is no mere note.
func (r *checkResult) risks(rule string) bool {
	return slices.ContainsFunc(r.all(), func(f finding) bool { return f.Severity != "note" && f.Rule == rule })
}

func (r *checkResult) has(rule string) bool {
	return slices.ContainsFunc(r.all(), func(f finding) bool { return f.Rule == rule })
}
