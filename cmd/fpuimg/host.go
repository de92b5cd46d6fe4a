package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
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
func loadHost(s *cli.IO, value string) (*host, error) { return loadMachine(s, "--host=", value) }

// loadMachine resolves a PROFILE: this machine, standard input, a file or directory if
// the value has a slash or a colon or exists, else the name of a level or a CPU; after it
// may stand flags to add and to take away. flag is what stands before it.
func loadMachine(s *cli.IO, flag, value string) (*host, error) {
	machine, add, drop := splitChanges(value)
	h, err := loadUnchanged(s, flag, machine)
	if err != nil || len(add)+len(drop) == 0 {
		return h, err
	}
	if h.CPU, err = cpuid.Modify(h.CPU, add, drop); err != nil {
		return nil, &cli.UsageError{Err: fmt.Errorf("%s%s: %w", flag, value, err), Hint: flagHint(err)}
	}
	changes := strings.TrimPrefix(value, machine)
	h.option, h.short, h.Name = "--host="+value, h.short+changes, h.Name+changes
	if h.recorded != "" {
		h.recorded += changes
	}
	return h, nil
}

// splitChanges takes the changes off a PROFILE: haswell,-rtm,+pku or rtm=off,pku=on, as
// QEMU has them. A file may have a comma in its name.
func splitChanges(value string) (machine string, add, drop []string) {
	for machine = value; ; {
		if _, err := os.Stat(machine); err == nil {
			return machine, add, drop
		}
		i := strings.LastIndexByte(machine, ',')
		change := machine[i+1:]
		name, state, equals := strings.Cut(change, "=")
		switch {
		case i < 0:
			return machine, add, drop
		case strings.HasPrefix(change, "+"):
			add = append(add, change[1:])
		case strings.HasPrefix(change, "-"):
			drop = append(drop, change[1:])
		case equals && state == "on":
			add = append(add, name)
		case equals && state == "off":
			drop = append(drop, name)
		default:
			return machine, add, drop
		}
		machine = machine[:i]
	}
}

// flagHint says what to write instead of a flag that there is none of.
func flagHint(err error) string {
	e, ok := errors.AsType[*cpuid.FlagError](err)
	if !ok || e.By != "" {
		return ""
	}
	var names []string
	for f := range xstate.AllFlags() {
		names = append(names, f.Name)
	}
	hint := "flags are named as in /proc/cpuinfo"
	if near := cli.Nearest(e.Flag, names); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return hint
}

func loadUnchanged(s *cli.IO, flag, value string) (*host, error) {
	h := &host{option: "--host=" + value, short: value}
	var err error
	switch _, stat := os.Stat(value); {
	case value == liveHost:
		h.option, h.short = "--host", "host"
		if h.CPU, err = cpuid.Host(); err != nil {
			return nil, &cli.UsageError{Err: err, Hint: "name the machine: --host=PROFILE, made there by fpuimg profile"}
		}
		h.Name = "this machine"
	case stat == nil || value == "-" || strings.ContainsAny(value, string(os.PathSeparator)+":"):
		if h.CPU, err = readProfile(s, value); err != nil {
			return nil, cli.Hinted(err, profileHint(err))
		}
		h.nameAfter(value)
	default:
		cpu, ok := cpuid.ByName(value)
		if !ok {
			err := fmt.Errorf("%s%s: no such file, and no such machine", flag, value)
			name, _, changed := strings.Cut(value, ",")
			if _, ok := cpuid.ByName(name); ok && changed {
				return nil, &cli.UsageError{Err: err, Hint: "flags are added and taken away as in " + flag + name + ",+pku,-rtm"}
			}
			return nil, cli.Unknown(err, flag, value, "the machines", cpuid.Names())
		}
		h.CPU = cpu
	}
	return h, nil
}

// nameAfter names a machine after the file that describes it.
func (h *host) nameAfter(path string) {
	if h.Name != h.ModelName { // a cpuinfo.img names the model only
		h.recorded = h.Name
	}
	h.short = profileName(path)
	h.Name = h.short
}

// hostsIn reads the profiles that a directory holds, such as a ConfigMap that is mounted:
// all but hidden names. The user has named none of them: links are followed within the
// directory alone, and no pipe is waited for.
func hostsIn(dir string) (hosts []*host, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if filepath.Dir(path) == "." { // a name alone may mean another thing
			path = "." + string(os.PathSeparator) + path
		}
		h := &host{option: "--host=" + path}
		if h.CPU, err = readIn(root, e.Name(), path); err != nil {
			return nil, cli.Hinted(err, profileHint(err))
		}
		h.nameAfter(path)
		hosts = append(hosts, h)
	}
	if err == nil && len(hosts) == 0 {
		err = cli.Hinted(fmt.Errorf("%s: no profile in it", dir), "fpuimg profile -o "+view.Path(filepath.Join(dir, "NAME.json"))+" makes one of the machine that it runs on")
	}
	return hosts, err
}

// readIn reads a machine from a regular file in a directory.
func readIn(root *os.Root, name, path string) (*xstate.CPU, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		e.Path = path
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, error(&codec.FormatError{Path: path, Field: "file", Err: codec.ErrIrregular}))
	}
	return readMachine(path, f)
}

// storedBy resolves the --host of show and diff: the machine that stored what does not
// say where its components lie. It is nil without the option.
func storedBy(s *cli.IO, value string, args []string) (*xstate.CPU, error) {
	if err := checkHosts([]string{value}, args); err != nil || value == "" {
		return nil, err
	}
	h, err := loadHost(s, value)
	if err != nil {
		return nil, err
	}
	return h.CPU, nil
}

// profileName is what to call the machine of a profile file.
func profileName(path string) string {
	switch {
	case path == "-" || path == "/dev/stdin":
		return "stdin"
	case strings.HasPrefix(path, "/dev/fd/") || strings.HasPrefix(path, "/proc/self/fd/"):
		return "pipe" // as <(command) of a shell names it
	}
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

// checkHosts refuses a machine that is named after --host with a space, which would count
// as an input, and --host as this machine; and to read standard input twice.
func checkHosts(hosts, paths []string) error {
	for _, arg := range paths {
		if !slices.Contains(hosts, liveHost) || strings.HasPrefix(filepath.Base(arg), "core-") {
			continue // there may be thousands
		}
		if hint := misplacedProfile(arg); hint != "" {
			return &cli.UsageError{Err: errors.New("--host stands alone, for this machine"), Hint: hint}
		}
	}
	n := 0
	for _, arg := range paths {
		if arg == "-" {
			n++
		}
	}
	inputs := n
	for _, arg := range hosts {
		if machine, _, _ := splitChanges(arg); machine == "-" {
			n++
		}
	}
	if n > 1 && n > inputs {
		return &cli.UsageError{Err: errors.New("standard input, -, can be read only once"), Hint: "name a file for one of the two"}
	}
	return nil
}

// maxDescription is how much of a file that describes a machine is read, in bytes:
// more than [cpuid.Parse] takes.
const maxDescription = 16<<20 + 1

// readProfile reads a machine from what the user named: a description in any form of
// [cpuid.Parse], a cpuinfo.img, or a directory or archive that has one. Links are
// followed and pipes waited for, as they are for any file that a user names.
func readProfile(s *cli.IO, path string) (*xstate.CPU, error) {
	var r io.Reader
	switch info, err := os.Stat(path); {
	case path == "-":
		r = s.In
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir():
		return readCheckpoint(path, err)
	default:
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	return readMachine(path, r)
}

// readMachine is readProfile for a file that is open.
func readMachine(path string, r io.Reader) (*xstate.CPU, error) {
	buf := bufio.NewReaderSize(r, 4096)
	cpu, err := readDescription(path, buf)
	if !errors.Is(err, codec.ErrMagic) {
		return cpu, err
	}
	head, _ := buf.Peek(8)
	all, aerr := checkpoint.ReadAll(path, buf, checkpoint.Options{})
	switch {
	case aerr == nil:
		return machineOf(path, all)
	case errors.Is(aerr, codec.ErrMagic) && !isForeign(aerr):
		return nil, err
	}
	for magic, program := range map[string]string{"\x1f\x8b": "gzip", "BZh": "bzip2", "\xfd7zXZ": "xz", "\x28\xb5\x2f\xfd": "zstd"} {
		if bytes.HasPrefix(head, []byte(magic)) && path != "-" {
			return nil, cli.Hinted(aerr, "if it describes a machine: "+program+" -dc "+view.Path(path)+" | fpuimg ... --host=-")
		}
	}
	return nil, aerr
}

// readDescription reads a description or a cpuinfo.img. Of what is neither nothing is
// consumed; the error is then a [codec.ErrMagic].
func readDescription(path string, r *bufio.Reader) (*xstate.CPU, error) {
	head, err := r.Peek(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	utf16 := bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff"))
	binary := !utf16 && bytes.ContainsFunc(head, func(c rune) bool { return c < ' ' && !strings.ContainsRune("\t\n\v\f\r\x1b", c) })
	if binary {
		if _, err := codec.ParseCPUInfo(path, head); errors.Is(err, codec.ErrMagic) {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(r, maxDescription))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if binary {
		info, err := codec.ParseCPUInfo(path, b)
		if err != nil {
			return nil, err
		}
		return info.CPU(), nil
	}
	if cpu := critMachine(b); cpu != nil {
		return cpu, nil
	}
	cpu, err := cpuid.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cpu, nil
}

func isForeign(err error) bool {
	_, ok := errors.AsType[*checkpoint.ForeignError](err)
	return ok
}

// critMachine reads what crit makes of a cpuinfo.img, nil if it is something else: crit
// show and crit decode print the fields as they are recorded.
func critMachine(b []byte) *xstate.CPU {
	var doc struct {
		Magic   string `json:"magic"`
		Entries []struct {
			X86 []struct {
				Vendor       string   `json:"vendor_id"`
				Family       uint32   `json:"cpu_family"`
				Model        uint32   `json:"model"`
				Stepping     uint32   `json:"stepping"`
				Version      uint32   `json:"capability_ver"`
				Capability   []uint32 `json:"capability"`
				ModelID      string   `json:"model_id"`
				XFeatures    *uint64  `json:"xfeatures_mask"`
				XSaveSize    *uint32  `json:"xsave_size"`
				XSaveSizeMax *uint32  `json:"xsave_size_max"`
			} `json:"x86_entry"`
		} `json:"entries"`
	}
	if json.Unmarshal(b, &doc) != nil || doc.Magic != "CPUINFO" || len(doc.Entries) != 1 || len(doc.Entries[0].X86) != 1 {
		return nil
	}
	x := doc.Entries[0].X86[0]
	if n := len(x.Capability); n != xstate.CapabilityWords && n != xstate.CapabilityV1 {
		return nil
	}
	info := codec.CPUInfo{
		VendorID: map[string]uint32{"INTEL": 1, "AMD": 2}[x.Vendor], Family: x.Family, Model: x.Model, Stepping: x.Stepping,
		CPURecord: xstate.CPURecord{Capability: x.Capability, XFeaturesMask: x.XFeatures, XSaveSize: x.XSaveSize, XSaveSizeMax: x.XSaveSizeMax},
		Version:   x.Version, ModelID: x.ModelID,
	}
	return info.CPU()
}

// readCheckpoint reads the machine that a checkpoint was taken on: of a directory with a
// cpuinfo.img, whatever else it has, or of one of the checkpoints of a path. missing is
// why there is no file of that name.
func readCheckpoint(path string, missing error) (*xstate.CPU, error) {
	if missing == nil {
		file := filepath.Join(path, "cpuinfo.img")
		b, err := codec.ReadFile(file)
		if err == nil {
			info, err := codec.ParseCPUInfo(file, b)
			if err != nil {
				return nil, err
			}
			return info.CPU(), nil
		}
		if missing = err; !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	all, err := checkpoint.OpenAll(path, checkpoint.Options{})
	if err != nil {
		return nil, missing
	}
	return machineOf(path, all)
}

// machineOf is the machine that the one checkpoint of a path was taken on.
func machineOf(path string, all []checkpoint.Found) (*xstate.CPU, error) {
	c, err := checkpoint.Only(path, all)
	if err != nil {
		return nil, err
	}
	if c.CPUInfo == nil {
		return nil, cli.Hinted(fmt.Errorf("%s: it does not record the CPU that it was taken on", path), "criu dump --cpu-cap=cpu writes a cpuinfo.img, which does")
	}
	return c.CPUInfo.CPU(), nil
}

// misplacedProfile returns a hint for a path argument that names a machine: the
// equals sign of --host=PROFILE was forgotten.
func misplacedProfile(path string) string {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		machine, _, _ := splitChanges(path)
		if _, ok := cpuid.ByName(machine); ok {
			return "a machine is named with an equals sign: " + view.Quote("--host="+path)
		}
		return ""
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		f, err := os.Open(path)
		if err != nil {
			return ""
		}
		defer f.Close()
		if _, err := readDescription(path, bufio.NewReader(f)); err == nil {
			return "this is a profile; a machine is named with an equals sign: " + view.Quote("--host="+path)
		}
	}
	return ""
}
