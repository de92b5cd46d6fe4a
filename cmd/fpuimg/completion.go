package main

import (
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/internal/cli"
)

// The scripts ask the program itself what may follow, so that they never name a flag
// that it does not have: completeVerb and the words typed so far, the last one being
// that under the cursor. The first line of the answer is what the shell has to add
// ("files") or to leave out ("nospace"), the others are words, each with a tab and
// what it means.
//
//go:embed completion/*
var completionScripts embed.FS

const completeVerb = "__complete"

var shells = []string{"bash", "zsh", "fish"}

var completionManual = cli.Manual{
	Name:     "fpuimg completion",
	Short:    "print a script that completes fpuimg's commands in a shell",
	Synopsis: "bash|zsh|fish",
	Body: `
Completes commands, options, and the values of options: formats, components,
levels and files.

    . <(fpuimg completion bash)
    fpuimg completion zsh > ~/.zfunc/_fpuimg
    fpuimg completion fish > ~/.config/fish/completions/fpuimg.fish
`,
	Exits: exits,
	See:   []string{"fpuimg"},
}

func setupCompletion(*pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	return func(s *cli.IO, args []string) (cli.Exit, error) {
		if len(args) != 1 {
			return 0, &cli.UsageError{Err: errors.New("for which shell?"), Hint: "fpuimg completion " + strings.Join(shells, "|")}
		}
		script, err := completionScripts.ReadFile("completion/" + args[0])
		if err != nil {
			return 0, &cli.UsageError{Err: fmt.Errorf("unknown shell %q", args[0]), Hint: strings.Join(shells, ", ")}
		}
		_, err = s.Out.Write(script)
		return cli.OK, err
	}
}

// values are what an option takes.
type values struct {
	words []string
	list  bool // several, separated by commas
	files bool
}

// flagValues returns what each option with a value takes, by its name, which means
// the same in every command.
func flagValues() map[string]values {
	return map[string]values{
		"as":        {words: []string{"hex", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"}},
		"color":     {words: []string{"auto", "always", "never"}},
		"component": {words: xstate.Known.Names(), list: true},
		"compress":  {words: []string{"none", "gzip", "zstd", "xz"}},
		"elf-core":  {files: true},
		"features":  {words: xstate.Known.Names(), list: true},
		"format":    {words: []string{"json", "criu"}},
		"host":      {words: xstate.LevelNames(), files: true},
		"output":    {files: true},
		"tid":       {},
		"to":        {words: []string{"none", "fxsave", "xsave"}},
	}
}

// completion is what may stand in the place of the last word.
type completion struct {
	current        string
	lines          []string
	files, nospace bool
}

// add offers a word if it begins as the current one does.
func (c *completion) add(word, about string) {
	if len(word) >= len(c.current) && strings.EqualFold(word[:len(c.current)], c.current) {
		c.lines = append(c.lines, word+"\t"+about)
		c.nospace = c.nospace || strings.HasSuffix(word, "=")
	}
}

// complete answers a completion script.
func complete(s *cli.IO, words []string) {
	c := &completion{}
	if len(words) > 0 {
		c.current, words = words[len(words)-1], words[:len(words)-1]
	}
	c.words(s, words)
	var directives []string
	if c.files {
		directives = append(directives, "files")
	}
	if c.nospace {
		directives = append(directives, "nospace")
	}
	fmt.Fprintln(s.Out, strings.Join(directives, " "))
	for _, line := range c.lines {
		fmt.Fprintln(s.Out, line)
	}
}

// words looks at the words before the current one.
func (c *completion) words(s *cli.IO, before []string) {
	vs := verbs()
	addVerbs := func() {
		for _, v := range vs {
			c.add(strings.TrimPrefix(v.manual.Name, "fpuimg "), v.manual.Short)
		}
	}
	if len(before) == 0 {
		addVerbs()
		c.add("help", "print the manual of a command")
		c.add("version", "print the version")
		if strings.HasPrefix(c.current, "-") {
			c.add("--help", "print the manual")
			c.add("--version", "print the version")
		}
		return
	}
	switch before[0] {
	case "help":
		addVerbs()
		return
	case "completion":
		for _, shell := range shells {
			c.add(shell, "")
		}
		return
	}
	v, err := findVerb(before[0])
	if err != nil {
		return
	}
	fs, _ := v.flags(s)
	before = before[1:]
	for i, word := range before {
		if word == "--" {
			c.files = true
			return
		}
		if i == len(before)-1 {
			if f := wantsValue(fs, word); f != nil {
				c.value(f, "")
				return
			}
		}
	}
	name, _, isValue := strings.Cut(c.current, "=")
	switch {
	case isValue && strings.HasPrefix(name, "--"):
		if f := fs.Lookup(name[2:]); f != nil {
			c.value(f, name+"=")
		}
	case strings.HasPrefix(c.current, "-"):
		c.flags(fs)
	default:
		c.files = true
		if before := v.manual.Name; before == "fpuimg profile" {
			for _, level := range xstate.LevelNames() {
				c.add(level, "")
			}
		}
	}
}

// wantsValue returns the flag that a word names if its value is the next word.
func wantsValue(fs *pflag.FlagSet, word string) *pflag.Flag {
	var f *pflag.Flag
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
func (c *completion) flags(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		_, about := pflag.UnquoteUsage(f)
		if f.NoOptDefVal != "" {
			c.add("--"+f.Name, about)
		}
		if f.Value.Type() != "bool" {
			c.add("--"+f.Name+"=", about)
		}
	})
	c.add("--help", "print the manual")
}

// value offers the values of an option; prefix stands before them in the word.
func (c *completion) value(f *pflag.Flag, prefix string) {
	v := flagValues()[f.Name]
	c.files = v.files
	taken := ""
	if v.list {
		typed := c.current[len(prefix):]
		taken = typed[:strings.LastIndexByte(typed, ',')+1]
	}
	for _, word := range v.words {
		if !strings.Contains(","+strings.ToLower(taken), ","+strings.ToLower(word)+",") {
			c.add(prefix+taken+word, "")
		}
	}
	c.nospace = c.nospace || v.list
}
