package main

import (
	"bytes"
	"iter"
	"os"
	"path/filepath"

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
		"target":     {Found: processes()},
		"timeout":    {},
	}
}

// complete answers a completion script.
func complete(s *cli.IO, fs *pflag.FlagSet, words []string) {
	c := cli.NewCompletion(words, flagValues())
	c.Options(fs, c.Before)
	c.Print(s)
}

// processes yields the processes that have registers to restore into, with their
// names: all but this one and the kernel's own, which have no command line.
func processes() iter.Seq2[string, string] {
	return func(yield func(pid, name string) bool) {
		dirs, _ := filepath.Glob("/proc/[1-9]*")
		self, _ := os.Readlink("/proc/self")
		for _, dir := range dirs {
			command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
			name, err2 := os.ReadFile(filepath.Join(dir, "comm"))
			pid := filepath.Base(dir)
			if err != nil || err2 != nil || len(command) == 0 || pid == self {
				continue
			}
			if !yield(pid, cli.Printable(string(bytes.TrimSpace(name)))) {
				return
			}
		}
	}
}

// completionScript prints the script for a shell.
func completionScript(s *cli.IO, shell string) error {
	script, err := cli.CompletionScript("fpurestore", shell)
	if err != nil {
		return err
	}
	_, err = s.Out.WriteString(script)
	return err
}
