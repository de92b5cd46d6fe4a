package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// liveHost is the value of --host without an argument: this machine.
const liveHost = "(this machine)"

// host is a machine named on the command line.
type host struct {
	*xstate.CPU
	option string // how to name it again: "--host" or "--host=haswell.json"
	short  string // for file names and table heads: "haswell"
	// recorded is the name that the profile gives itself, "" if it has none. Reports
	// use that of the file, which the user typed.
	recorded string
}

// loadHost resolves the value of --host.
func loadHost(value string) (*host, error) { return loadMachine("--host=", value) }

// loadMachine resolves a PROFILE: this machine, a file or directory if the value
// has a slash or exists, else the name of a level. flag is what stands before it.
func loadMachine(flag, value string) (*host, error) {
	h := &host{option: "--host=" + value, short: value}
	var err error
	switch _, stat := os.Stat(value); {
	case value == liveHost:
		h.option, h.short = "--host", "host"
		if h.CPU, err = cpuid.Host(); err != nil {
			return nil, &cli.UsageError{Err: err, Hint: "name the machine: --host=PROFILE, made there by fpuimg profile"}
		}
		h.Name = "this machine"
	case stat == nil || strings.ContainsRune(value, os.PathSeparator):
		if h.CPU, err = readProfile(value); err != nil {
			return nil, cli.Hinted(err, profileHint())
		}
		if h.Name != h.ModelName { // a cpuinfo.img names the model only
			h.recorded = h.Name
		}
		h.short = profileName(value)
		h.Name = h.short
	default:
		cpu, ok := xstate.ByName(value)
		if !ok {
			err := fmt.Errorf("%s%s: no such file, and no such level", flag, value)
			return nil, cli.Unknown(err, flag, value, "the levels", xstate.LevelNames())
		}
		h.CPU = cpu
	}
	return h, nil
}

// storedBy resolves the --host of show and diff: the machine that stored what does not
// say where its components lie. It is nil without the option.
func storedBy(value string, args []string) (*xstate.CPU, error) {
	switch value {
	case "":
		return nil, nil
	case liveHost:
		if hint := forgottenEquals(args); hint != "" {
			return nil, &cli.UsageError{Err: errors.New("--host stands alone, for this machine"), Hint: hint}
		}
	}
	h, err := loadHost(value)
	if err != nil {
		return nil, err
	}
	return h.CPU, nil
}

// profileName is what to call the machine of a profile file.
func profileName(path string) string {
	path = filepath.Clean(path)
	if filepath.Base(path) == "cpuinfo.img" {
		path = filepath.Dir(path)
	}
	if path == "." || strings.HasSuffix(path, "..") {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
	}
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// readProfile reads a machine from a file: a JSON profile, a cpuinfo.img, a
// directory that holds one, or a dump by cpuid -r.
func readProfile(path string) (*xstate.CPU, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "cpuinfo.img")
	}
	b, err := codec.ReadFile(path)
	if err != nil {
		return nil, err
	}
	starts := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return bytes.HasPrefix(bytes.TrimSpace(b), []byte(p)) })
	}
	switch {
	case starts("{"):
		cpu, err := cpuid.ParseProfile(b)
		return cpu, atPath(path, err)
	case starts("CPU", "0x", "#"):
		dump, err := cpuid.ParseDump(b)
		if err != nil {
			return nil, atPath(path, err)
		}
		return cpuid.CPU(dump), nil
	}
	info, err := codec.ParseCPUInfo(path, b)
	if err != nil {
		return nil, err
	}
	return info.CPU(), nil
}

// misplacedProfile returns a hint for a path argument that names a machine: the
// equals sign of --host=PROFILE was forgotten.
func misplacedProfile(path string) string {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, ok := xstate.ByName(path); ok {
			return "a machine is named with an equals sign: " + view.Quote("--host="+path)
		}
		return ""
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		if _, err := readProfile(path); err == nil {
			return "this is a profile; a machine is named with an equals sign: " + view.Quote("--host="+path)
		}
	}
	return ""
}

// forgottenEquals returns the hint for a machine that is named after --host with a
// space, "" if none is. It would count as an input, and --host as this machine.
func forgottenEquals(args []string) string {
	for _, arg := range args {
		if strings.HasPrefix(filepath.Base(arg), "core-") {
			continue // there may be thousands
		}
		if hint := misplacedProfile(arg); hint != "" {
			return hint
		}
	}
	return ""
}
