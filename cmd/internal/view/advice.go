package view

import (
	"strings"

	"github.com/fpuimg/fpuimg/convert/compat"
)

// Advice is what a command has to offer to somebody with a finding. The zero value
// names no command.
type Advice struct {
	Force   string // the command that goes ahead where force is needed; "" is none
	Convert string // the checkpoint, as a word of fpuimg convert; "" if it takes none
	Level   string // the command that levels the checkpoint; "" if it would be refused
	General bool   // say what fpuimg convert could do, without naming the checkpoint
}

// ways are the remedies that need no word of the command's.
var ways = map[compat.RemedyKind]string{
	compat.TakeAgain:    "the image is damaged: take the checkpoint again, or use an earlier one",
	compat.WithoutTiles: "checkpoint the process while it uses no AMX tiles",
	compat.HostSmaller:  "restore on a host whose XSAVE area is no larger",
	compat.StartAnew:    "start such programs anew",
	compat.NewerCRIU:    "restore with CRIU 3.18 or later, which fills only what is in use",
	compat.BindNow:      "start the program with LD_BIND_NOW=1 before the checkpoint",
	compat.RecordCPU:    "criu dump --cpu-cap=cpu records it",
	compat.KeepCPUInfo:  "--keep-cpuinfo leaves the file alone",
	compat.TakeLater:    "take the checkpoint at another moment",
	compat.GiveRoot:     "check --root=/ where it ran on this machine, or --root=DIR with its container (podman image mount NAME)",
}

// hint makes text of the remedies of a finding: words, and the command that they end in.
func (a Advice) hint(f *compat.Finding) (text, command string) {
	for _, r := range f.Remedies {
		join, way, line := ", or ", ways[r.Kind], ""
		switch {
		case r.Kind == compat.Force && a.Force != "":
			way, line = "force it: ", a.Force
		case r.Kind == compat.ClearBits:
			way = "if the process can do without these values"
			if text != "" {
				join, way = "; or, ", "if it sets up its tiles anew"
			}
			way += ", convert with --force, which clears the bits"
			if line = a.Force; line != "" {
				way += ": "
			}
		case r.Kind == compat.AddRecord && a.Convert != "":
			way, line = "give the thread the INIT state: ", "fpuimg convert --to=fxsave "+a.Convert
		case r.Kind == compat.AddRecord && a.General:
			way = "fpuimg convert --to=fxsave gives the thread the INIT state"
		case r.Kind == compat.WriteInit && a.Convert != "":
			way, line = "any conversion writes INIT: ", "fpuimg convert --to=xsave "+a.Convert
		case r.Kind == compat.WriteInit && a.General:
			way = "fpuimg convert --to=xsave writes INIT, as any conversion does"
		case r.Kind == compat.Level && a.Level != "":
			way, line = "make it run there (--dry-run tells whether it can be): ", a.Level
		case r.Kind == compat.HostWith && len(r.Flags) > 4:
			way = "restore on a host that has them"
		case r.Kind == compat.HostWith:
			way = "restore on a host with " + strings.Join(r.Flags, " ")
		}
		if text != "" && way != "" {
			text += join
		}
		text, command = text+way, command+line
	}
	return text, command
}

// FindingDoc is a finding in JSON.
type FindingDoc struct {
	Rule       compat.Rule     `json:"rule"`
	Severity   compat.Severity `json:"severity"`
	Components []string        `json:"components"`
	Features   []string        `json:"features"`
	Reason     string          `json:"reason"`
	Hint       string          `json:"hint"` // what to do, "" if nothing
}

// FindingDocs returns the findings for JSON; never nil.
func (a Advice) FindingDocs(fs []compat.Finding) []FindingDoc {
	out := []FindingDoc{}
	for i := range fs {
		f := &fs[i]
		hint, command := a.hint(f)
		out = append(out, FindingDoc{f.Rule, f.Severity, f.Components, f.Features, f.Reason, hint + command})
	}
	return out
}
