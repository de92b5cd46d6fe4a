package main

import (
	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

// flagValues returns what each option with a value takes, by its name.
func flagValues() map[string]cli.Values {
	return map[string]cli.Values{
		"color":      {Words: cli.Colors},
		"completion": {Words: cli.Shells},
		"dir":        {Dirs: true},
		"map":        {},
		"save":       {Dirs: true},
		"target":     {},
		"timeout":    {},
	}
}

// completionScript prints the script for a shell.
func completionScript(s *cli.IO, fs *pflag.FlagSet, shell string) error {
	script, err := cli.Completions(shell, "fpurestore", []cli.Command{{Flags: fs, Args: cli.Values{Files: true}}}, flagValues())
	if err != nil {
		return err
	}
	_, err = s.Out.WriteString(script)
	return err
}
