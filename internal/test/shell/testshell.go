// Package testshell completes command lines in real shells, for the tests of the
// programs' completion scripts.
package testshell

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// File returns where the completion script of a program for a shell lies, seen from
// a package two levels below the module's directory, under the name that a package
// installs it by.
func File(t *testing.T, program, shell string) string {
	t.Helper()
	name := map[string]string{"bash": program + ".bash", "zsh": "_" + program, "fish": program + ".fish"}[shell]
	path, err := filepath.Abs(filepath.Join("..", "..", "completions", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Case is a command line and some of the words that may complete its last one.
type Case struct {
	Line string
	Want []string // each with the word's beginning, as it stands in the end
	Not  string

	Except string // a shell that offers nothing here, for it is quoted
}

// Check looks at what was offered.
func (c *Case) Check(t *testing.T, got []string) {
	t.Helper()
	for _, want := range c.Want {
		if !slices.Contains(got, want) {
			t.Errorf("%s: %q lacks %s", c.Line, got, want)
		}
	}
	if slices.Contains(got, c.Not) {
		t.Errorf("%s: offers %s", c.Line, c.Not)
	}
}

// Places are the directories that there are where the shells complete; Plain is a
// file.
var Places = []string{"ckpt-a", "ckpt-b", "my dir", "other"}

const Plain = "ckpt-file"

// Run completes the lines in each shell. The program is found by PATH.
func Run(t *testing.T, program string, shells []string, cases []Case) {
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			testcmd.Tool(t, shell)
			replies := complete(t, program, shell, cases)
			for i, c := range cases {
				if c.Except != shell {
					c.Check(t, replies[i])
				}
			}
		})
	}
}

// complete returns the words that a shell offers for each line.
func complete(t *testing.T, program, shell string, cases []Case) [][]string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range Places {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, Plain), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"--no-config", "-c", drivers[shell]} // fish
	if shell != "fish" {
		args = []string{"-c", drivers[shell], shell}
	}
	for _, c := range cases {
		args = append(args, c.Line)
	}
	cmd := exec.Command(shell, args...)
	cmd.Dir = dir
	// Else an interactive shell would take the terminal that the tests run in.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(cmd.Environ(), "PROGRAM="+program, "SCRIPT="+File(t, program, shell), "HOME="+dir, "TERM=dumb")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	replies := strings.Split(string(out), "== \n")[1:]
	if len(replies) != len(cases) {
		t.Fatalf("%d replies for %d lines:\n%s", len(replies), len(cases), out)
	}
	words := make([][]string, len(replies))
	for i, reply := range replies {
		for word := range strings.Lines(reply) {
			words[i] = append(words[i], strings.TrimRight(word, "\n/="))
		}
	}
	return words
}

// drivers complete the lines that are their arguments. For each they print a
// line "== " and then the words, one a line.
var drivers = map[string]string{
	// Readline completes only in an interactive bash, which needs no terminal. Its M-*
	// inserts all that it offers, quoted and, where the "=" breaks words, without what
	// stands before that; ^X= prints the words of the line and clears it.
	"bash": `
		printf '%s\e*\x18=' "$@" | INPUTRC=/dev/null bash --rcfile /dev/fd/3 -i 3<<'END'
			source "$SCRIPT"
			complete -p $PROGRAM >/dev/null || exit 1
			words() {
				echo "== "
				eval "set -- $READLINE_LINE"
				local cut= word
				for word; do
					[[ $word == -*=* ]] && cut=${word%%=*}= word=${word#*=}
					echo "$cut$word"
				done
				READLINE_LINE= READLINE_POINT=0
			}
			bind -x '"\C-x=": words'
END`,
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
			(( $#hits )) && print -rl -- $IPREFIX${(Q)^hits} >>words
		}'
		for line; do # ^X, not ^U: the terminal may see it before the editor does
			zpty -w z 'print "== " >>words'
			zpty -n -w z "$line"$'\t\x10'
		done
		zpty -w z exit
		while zpty -r z out; do :; done
		cat words`,
}
