package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// pluginName is the name under which checkpointctl finds fpuimg, as its command
// "checkpointctl fpu"; make install links it.
const pluginName = "checkpointctl-fpu"

// pluginDescribed is the exit code by which a plugin tells checkpointctl that it
// printed its description (checkpointctl, cmd/plugin.go).
const pluginDescribed = 42

// runPlugin is run for a program that may have been started as the plugin: a path
// without a command is shown.
func runPlugin(argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	name, args := filepath.Base(argv[0]), argv[1:]
	if name != pluginName {
		return run(args, stdin, stdout, stderr)
	}
	if len(args) == 1 && args[0] == "--plugin-description" {
		fmt.Fprintln(stdout, "Show, check and convert "+strings.TrimPrefix(rootManual.Short, "the "))
		return pluginDescribed
	}
	if len(args) == 0 || !isCommand(args[0]) {
		args = append([]string{"show"}, args...)
	}
	return run(args, stdin, stdout, stderr)
}

// isCommand reports whether an argument is for fpuimg itself, not for show.
func isCommand(arg string) bool {
	switch arg {
	case "help", "version", "--help", "-h", "--version":
		return true
	}
	_, err := findVerb(arg)
	return err == nil
}
