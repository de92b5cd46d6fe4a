package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/internal/cli"
	"github.com/fpuimg/fpuimg/internal/testcmd"
)

// completionFiles are the scripts as a package installs them.
var completionFiles = map[string]string{"bash": "fpuimg.bash", "zsh": "_fpuimg", "fish": "fpuimg.fish"}

// TestCompletionFiles compares completions/ with what fpuimg completion prints; with
// -update it writes the files.
func TestCompletionFiles(t *testing.T) {
	for _, shell := range shells {
		path, err := filepath.Abs(filepath.Join("..", "..", "completions", completionFiles[shell]))
		if err != nil {
			t.Fatal(err)
		}
		out, errs, code := capture(t, "completion", shell)
		if code != 0 {
			t.Fatalf("fpuimg completion %s: %s", shell, errs)
		}
		testcmd.Golden(t, path, out)
	}
}

// TestFlagValues has every option that takes a value say which.
func TestFlagValues(t *testing.T) {
	s := cli.NewIO("fpuimg", nil, io.Discard, io.Discard)
	known := flagValues()
	used := map[string]bool{}
	for _, v := range verbs() {
		fs, _ := v.flags(s)
		fs.VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				return
			}
			used[f.Name] = true
			if _, ok := known[f.Name]; !ok {
				t.Errorf("%s --%s: its values are not listed", v.manual.Name, f.Name)
			}
		})
	}
	for name := range known {
		if !used[name] {
			t.Errorf("no command has --%s", name)
		}
	}
}

// completionCases are command lines and some of the words that may complete them.
var completionCases = []struct {
	line string
	want []string // each with the word's beginning, as it stands in the end
	not  string
}{
	{"fpuimg sh", []string{"show"}, "check"},
	{"fpuimg c", []string{"check", "convert", "completion"}, "show"},
	{"fpuimg show --re", []string{"--regs", "--redact"}, "--json"},
	{"fpuimg show --as=f", []string{"--as=f32", "--as=f64"}, "--as=hex"},
	{"fpuimg show --component=AVX,PK", []string{"--component=AVX,PKRU"}, "--component=AVX,SSE"},
	{"fpuimg check --host=x86-64-v", []string{"--host=x86-64-v2", "--host=x86-64-v4"}, "--host=v"},
	{"fpuimg convert --to=", []string{"--to=none", "--to=fxsave", "--to=xsave"}, "--to=AVX"},
	{"fpuimg convert --to x", []string{"xsave"}, "fxsave"},
	{"fpuimg help pro", []string{"profile"}, "show"},
	{"fpuimg completion z", []string{"zsh"}, "bash"},
	{"fpuimg show ck", []string{"ckpt-a", "ckpt-b"}, "other"},
	{"fpuimg show --regs ckpt-a", []string{"ckpt-a"}, "ckpt-b"},
	{"fpuimg convert -o ot", []string{"other"}, "ckpt-a"},
	{"fpuimg check --host=ot", []string{"--host=other"}, "--host=x86-64"},
}

func TestComplete(t *testing.T) {
	for _, tt := range completionCases {
		args := append([]string{completeVerb}, strings.Split(tt.line, " ")[1:]...)
		out, _, _ := capture(t, args...)
		directives, rest, _ := strings.Cut(string(out), "\n")
		var got []string
		for line := range strings.Lines(rest) {
			word, _, _ := strings.Cut(line, "\t")
			got = append(got, word)
		}
		for _, want := range tt.want {
			if strings.Contains(want, "ckpt") || strings.Contains(want, "other") {
				if !strings.Contains(directives, "files") {
					t.Errorf("%s: no files", tt.line)
				}
			} else if !slices.Contains(got, want) {
				t.Errorf("%s: %q lacks %s", tt.line, got, want)
			}
		}
		if slices.Contains(got, tt.not) {
			t.Errorf("%s: offers %s", tt.line, tt.not)
		}
	}
}

// shellDrivers complete the lines that are their arguments. For each they print a
// line "== " and then the words, one a line.
var shellDrivers = map[string]string{
	// Readline has the "=" break words, and replaces only what follows it.
	"bash": `
		source "$SCRIPT"
		complete -p fpuimg >/dev/null || exit 1
		for COMP_LINE; do
			echo "== "
			COMP_POINT=${#COMP_LINE} COMPREPLY=()
			cut= last=${COMP_LINE##* }
			[[ $last == -*=* ]] && cut=${last%%=*}=
			_fpuimg
			for word in "${COMPREPLY[@]}"; do echo "$cut$word"; done
		done`,
	"fish": `
		source $SCRIPT
		for line in $argv
			echo "== "
			complete -C "$line" | string replace -r '\t.*' ''
		end
		true`,
	// Only the line editor of an interactive zsh completes. It runs behind a
	// pseudo-terminal, and writes what would be offered to a file. ^P clears the line;
	// ^U the terminal itself would take, if it sees it before the editor does.
	"zsh": `
		zmodload zsh/zpty
		zpty z zsh -f -i
		zpty -w z 'stty -echo; autoload -U compinit; compinit -u -D; source $SCRIPT; bindkey "^I" complete-word "^P" kill-whole-line'
		zpty -w z 'compadd() {
			if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
			local -a hits; builtin compadd -A hits "$@"
			(( $#hits )) && print -rl -- $IPREFIX$^hits >>words
		}'
		for line; do # ^X, not ^U: the terminal may see it before the editor does
			zpty -w z 'print "== " >>words'
			zpty -n -w z "$line"$'\t\x10'
		done
		zpty -w z exit
		while zpty -r z out; do :; done
		cat words`,
}

// TestShells completes the command lines in real shells.
func TestShells(t *testing.T) {
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			testcmd.Tool(t, shell)
			script, err := filepath.Abs(filepath.Join("..", "..", "completions", completionFiles[shell]))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, name := range []string{"ckpt-a", "ckpt-b", "other"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"--no-config", "-c", shellDrivers[shell]} // fish
			if shell != "fish" {
				args = []string{"-c", shellDrivers[shell], shell}
			}
			for _, tt := range completionCases {
				args = append(args, tt.line)
			}
			cmd := exec.Command(shell, args...)
			cmd.Dir = dir
			cmd.Env = append(cmd.Environ(), "SCRIPT="+script, "HOME="+dir, "TERM=dumb")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			replies := strings.Split(string(out), "== \n")[1:]
			if len(replies) != len(completionCases) {
				t.Fatalf("%d replies for %d lines:\n%s", len(replies), len(completionCases), out)
			}
			for i, tt := range completionCases {
				var got []string
				for word := range strings.Lines(replies[i]) {
					got = append(got, strings.TrimSuffix(strings.TrimSuffix(word, "\n"), "/"))
				}
				for _, want := range tt.want {
					if !slices.Contains(got, want) {
						t.Errorf("%s: %q lacks %s", tt.line, got, want)
					}
				}
				if slices.Contains(got, tt.not) {
					t.Errorf("%s: offers %s", tt.line, tt.not)
				}
			}
		})
	}
}
