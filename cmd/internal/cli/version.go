package cli

import (
	"fmt"
	"runtime/debug"
)

// Release and ReleaseDate are those of the newest release that CHANGELOG.md lists. Man
// pages bear them.
const (
	Release     = "0.1.0"
	ReleaseDate = "2026-11-29"
)

// Version returns the program's name, version, commit and Go version, from what
// the Go toolchain stamps into the binary.
func Version(program string) string {
	out := program + " (unknown version)"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return out
	}
	version := info.Main.Version
	var commit, dirty string
	for _, kv := range info.Settings {
		switch {
		case kv.Key == "vcs.revision":
			commit = " commit " + kv.Value[:min(12, len(kv.Value))]
		case kv.Key == "vcs.modified" && kv.Value == "true":
			dirty = " (modified)"
		}
	}
	return fmt.Sprintf("%s %s%s%s %s", program, version, commit, dirty, info.GoVersion)
}
