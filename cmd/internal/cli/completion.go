package cli

import (
	"embed"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// The scripts ask the program itself what may follow, so that they never name a flag
// that it does not have: CompleteVerb and the words typed so far, the last one being
// that under the cursor. The first line of the answer is what the shell has to add
// ("files", "dirs") or to leave out ("nospace"), the others are words, each with a
// tab and what it means.
//
//go:embed completion/*
var completionScripts embed.FS

// CompleteVerb is the first argument by which a completion script asks a program.
const CompleteVerb = "__complete"

// Shells are those that there are completion scripts for.
var Shells = []string{"bash", "zsh", "fish"}

// CompletionScript returns the script that completes a program in a shell. The error
// is a [*UsageError] if there is none.
func CompletionScript(program, shell string) (string, error) {
	if !slices.Contains(Shells, shell) {
		return "", Unknown(fmt.Errorf("unknown shell %q", shell), "", shell, "the shells", Shells)
	}
	script, err := completionScripts.ReadFile("completion/" + shell)
	return strings.ReplaceAll(string(script), "PROGRAM", program), err
}

// Values are what an option takes.
type Values struct {
	Words []string
	List  bool                      // several words, separated by commas
	Found iter.Seq2[string, string] // words that are looked for when they are needed, and what they mean
	Files bool
	Dirs  bool
}

// Completion is what may stand in the place of the last word of a command line.
type Completion struct {
	Before []string // the words before it

	current string
	values  map[string]Values
	lines   []string
	paths   string // "files", "dirs" or ""
	nospace bool
}

// NewCompletion begins the completion of the last of words. values tells what each
// option takes, by its name.
func NewCompletion(words []string, values map[string]Values) *Completion {
	c := &Completion{values: values}
	if n := len(words) - 1; n >= 0 {
		c.Before, c.current = words[:n], words[n]
	}
	return c
}

// Print answers the completion script.
func (c *Completion) Print(s *IO) {
	directives := c.paths
	if c.nospace {
		directives = strings.TrimSpace(directives + " nospace")
	}
	fmt.Fprintln(s.Out, directives)
	for _, line := range c.lines {
		fmt.Fprintln(s.Out, line)
	}
}

// Add offers a word if it begins as the current one does.
func (c *Completion) Add(word, about string) {
	if len(word) >= len(c.current) && strings.EqualFold(word[:len(c.current)], c.current) {
		c.lines = append(c.lines, word+"\t"+about)
		c.nospace = c.nospace || strings.HasSuffix(word, "=")
	}
}

// IsOption reports whether the current word begins as an option does.
func (c *Completion) IsOption() bool { return strings.HasPrefix(c.current, "-") }

// Options offers the options of a command, or the values of the one that the current
// word belongs to, and files for any other word. args are the words before it that
// are the command's own. It reports whether the word is an argument of its own.
func (c *Completion) Options(fs *pflag.FlagSet, args []string) (isArgument bool) {
	name, _, hasValue := strings.Cut(c.current, "=")
	switch f := valueOf(fs, args); {
	case slices.Contains(args, "--"):
	case f != nil:
		c.value(f, "")
		return false
	case hasValue && strings.HasPrefix(name, "--"):
		if f := fs.Lookup(name[2:]); f != nil {
			c.value(f, name+"=")
		}
		return false
	case c.IsOption():
		c.flags(fs)
		return false
	}
	c.paths = "files"
	return true
}

// valueOf returns the flag whose value comes after args, nil if there is none.
func valueOf(fs *pflag.FlagSet, args []string) *pflag.Flag {
	if len(args) == 0 {
		return nil
	}
	var f *pflag.Flag
	word := args[len(args)-1]
	if name, ok := strings.CutPrefix(word, "--"); ok {
		f = fs.Lookup(name)
	} else if len(word) == 2 && word[0] == '-' {
		f = fs.ShorthandLookup(word[1:])
	}
	if f == nil || f.NoOptDefVal != "" {
		return nil
	}
	return f
}

// flags offers the options.
func (c *Completion) flags(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		_, about := pflag.UnquoteUsage(f)
		if f.NoOptDefVal != "" {
			c.Add("--"+f.Name, about)
		}
		if f.Value.Type() != "bool" {
			c.Add("--"+f.Name+"=", about)
		}
	})
	c.Add("--help", "print the manual")
}

// value offers the values of an option; prefix stands before them in the word.
func (c *Completion) value(f *pflag.Flag, prefix string) {
	v := c.values[f.Name]
	switch {
	case v.Files:
		c.paths = "files"
	case v.Dirs:
		c.paths = "dirs"
	}
	taken := ""
	if v.List {
		typed := c.current[len(prefix):]
		taken = typed[:strings.LastIndexByte(typed, ',')+1]
	}
	for _, word := range v.Words {
		if !strings.Contains(","+strings.ToLower(taken), ","+strings.ToLower(word)+",") {
			c.Add(prefix+taken+word, "")
		}
	}
	if v.Found != nil {
		for word, about := range v.Found {
			c.Add(prefix+word, about)
		}
	}
	c.nospace = c.nospace || v.List
}
