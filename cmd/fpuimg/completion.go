package main

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

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
			return 0, &cli.UsageError{Err: errors.New("for which shell?"), Hint: "fpuimg completion " + strings.Join(cli.Shells, "|")}
		}
		script, err := cli.CompletionScript("fpuimg", args[0])
		if err != nil {
			return 0, err
		}
		_, err = s.Out.WriteString(script)
		return cli.OK, err
	}
}

// flagValues returns what each option with a value takes, by its name, which means
// the same in every command.
func flagValues() map[string]cli.Values {
	return map[string]cli.Values{
		"as":        {Words: laneNames},
		"color":     {Words: cli.Colors},
		"component": {Words: xstate.Known.Names(), List: true},
		"compress":  {Words: compressions},
		"elf-core":  {Files: true},
		"features":  {Words: xstate.Known.Names(), List: true},
		"format":    {Words: profileFormats},
		"host":      {Words: xstate.LevelNames(), Files: true},
		"output":    {Files: true},
		"tid":       {},
		"to":        {Words: xstate.FormatNames()},
	}
}

// complete answers a completion script.
func complete(s *cli.IO, words []string) {
	c := cli.NewCompletion(words, flagValues())
	completeWord(s, c)
	c.Print(s)
}

// completeWord looks at the words before the current one.
func completeWord(s *cli.IO, c *cli.Completion) {
	addVerbs := func() {
		for _, v := range verbs() {
			c.Add(strings.TrimPrefix(v.manual.Name, "fpuimg "), v.manual.Short)
		}
	}
	if len(c.Before) == 0 {
		addVerbs()
		c.Add("help", "print the manual of a command")
		c.Add("version", "print the version")
		if c.IsOption() {
			c.Add("--help", "print the manual")
			c.Add("--version", "print the version")
		}
		return
	}
	switch c.Before[0] {
	case "help":
		addVerbs()
		return
	case "completion":
		for _, shell := range cli.Shells {
			c.Add(shell, "")
		}
		return
	}
	v, err := findVerb(c.Before[0])
	if err != nil {
		return
	}
	fs, _ := v.flags(s)
	if c.Options(fs, c.Before[1:]) && v.manual.Name == "fpuimg profile" {
		for _, level := range xstate.LevelNames() {
			c.Add(level, "")
		}
	}
}
