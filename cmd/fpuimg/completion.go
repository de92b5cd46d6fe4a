package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

var completionManual = cli.Manual{
	Name:     "fpuimg completion",
	Short:    "print a script that completes fpuimg's commands in a shell",
	Synopsis: "bash|zsh|fish",
	Body: `
Completes commands, options, and the values of options: formats, components,
machines and files.

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
		script, err := cli.Completions(args[0], "fpuimg", completed(s), flagValues())
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
		"accept":    {Words: strings.Split(acceptable(), ", ")},
		"as":        {Words: slices.Concat(laneNames, needForms)},
		"color":     {Words: cli.Colors},
		"component": {Words: xstate.Known.Names()},
		"criu":      {},
		"compress":  {Words: compressions},
		"elf-core":  {Files: true},
		"features":  {Words: xstate.Known.Names()},
		"format":    {Words: profileFormats},
		"host":      {Words: cpuid.Names(), Files: true},
		"hosts":     {Files: true},
		"html":      {Files: true},
		"output":    {Files: true},
		"root":      {Files: true},
		"spool":     {},
		"every":     {},
		"tid":       {},
		"to":        {Words: xstate.FormatNames()},
	}
}

// completed are the commands, with what their arguments are.
func completed(s *cli.IO) []cli.Command {
	var out []cli.Command
	var names []string
	for _, v := range verbs() {
		fs, _ := v.flags(s)
		name := strings.TrimPrefix(v.manual.Name, "fpuimg ")
		args := cli.Values{Files: true}
		switch name {
		case "profile":
			args.Words = cpuid.Names()
		case "completion":
			args = cli.Values{Words: cli.Shells}
		}
		names = append(names, name)
		out = append(out, cli.Command{Name: name, About: v.manual.Short, Flags: fs, Args: args})
	}
	return append(out, cli.Command{Name: "help", About: "print the manual of a command", Args: cli.Values{Words: names}},
		cli.Command{Name: "version", About: "print the version"})
}
