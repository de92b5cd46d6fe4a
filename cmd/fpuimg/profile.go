package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

type profileOptions struct {
	output, format string
	hosts          []string
	common, list   bool
	every          time.Duration
}

// profileFormats are the values of --format, the default first.
var profileFormats = []string{"json", "criu", "nfd", "tunables"}

func setupProfile(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	var o profileOptions
	fs.StringVarP(&o.output, "output", "o", "", "write to this new `file` instead of standard output, which is -")
	fs.StringVar(&o.format, "format", "json", "the `FORMAT`: json, criu for CRIU's cpuinfo.img, nfd for Node Feature Discovery, or tunables for glibc")
	fs.BoolVar(&o.common, "common", false, "the profile that all named machines share")
	fs.BoolVar(&o.list, "list", false, "print the machines that have names")
	fs.StringArrayVar(&o.hosts, "host", nil, "describe this machine or `PROFILE`: another way to name one")
	fs.DurationVar(&o.every, "every", 0, "with --format=nfd and -o, keep the file of this machine in place: write it anew each `INTERVAL`, such as 10m")
	return func(s *cli.IO, args []string) (cli.Exit, error) {
		if !fs.Changed("every") {
			return o.run(s, args)
		}
		return o.keep(s, args)
	}
}

func (o *profileOptions) run(s *cli.IO, args []string) (cli.Exit, error) {
	toStdout := o.output == "" || o.output == "-"
	args = append(o.hosts, args...)
	switch {
	case o.list && (len(args) > 0 || o.common || o.output != ""):
		return 0, &cli.UsageError{Err: errors.New("--list stands alone"), Hint: "fpuimg profile --host=NAME describes one of them"}
	case o.list:
		return cli.OK, listMachines(s)
	case !slices.Contains(profileFormats, o.format):
		return 0, cli.Unknown(fmt.Errorf("--format=%s: unknown format", o.format), "--format=", o.format, "the formats", profileFormats)
	case o.common && len(args) == 0:
		return 0, &cli.UsageError{Err: errors.New("--common of which machines?"), Hint: "fpuimg profile --common PROFILE..."}
	case !o.common && len(o.hosts) == 1 && o.hosts[0] == liveHost && len(args) == 2:
		return 0, &cli.UsageError{Err: errors.New("--host stands alone, for this machine"), Hint: "a machine is named with an equals sign: " + view.Quote("--host="+args[1])}
	case !o.common && len(args) > 1:
		return 0, &cli.UsageError{Err: errors.New("more than one machine"), Hint: "--common gives what they share"}
	case o.format == "criu" && toStdout && s.OutIsTerminal():
		return 0, &cli.UsageError{Err: errors.New("cpuinfo.img is binary, and standard output is a terminal"), Hint: "-o cpuinfo.img"}
	}
	cpu, err := o.machine(s, args)
	if err != nil {
		return 0, err
	}
	var b []byte
	switch o.format {
	case "criu":
		b, err = codec.MarshalCPUInfo(cpu)
		err = cli.Hinted(err, "--format=json takes a machine of which less is known")
	case "nfd":
		b = nfdFile(cpu)
	case "tunables":
		if cpu.Flags == nil {
			err = cli.Hinted(errors.New("nothing is recorded of which instruction sets it has"), "a profile made there by fpuimg profile records them")
		}
		b = []byte(strings.Join(cpuid.Tunables(cpu), "\n") + "\n")
	default:
		b, err = cli.EncodeJSON(cpuid.NewProfile(cpu), 0)
		b = append(b, '\n')
	}
	if err != nil {
		return 0, err
	}
	if toStdout {
		_, err = s.Out.Write(b)
		return cli.OK, err
	}
	return cli.OK, writeNew(o.output, "-o", b)
}

// keep keeps the local feature file of this machine in place until it is told to stop.
func (o *profileOptions) keep(s *cli.IO, args []string) (cli.Exit, error) {
	usage := func(text, hint string) (cli.Exit, error) {
		return 0, &cli.UsageError{Err: errors.New(text), Hint: hint}
	}
	switch {
	case o.format != "nfd" || o.output == "" || o.output == "-":
		return usage("--every keeps a feature file in place", "fpuimg profile --format=nfd --every=10m -o /etc/kubernetes/node-feature-discovery/features.d/fpuimg")
	case len(args) > 0 || o.common || o.list || slices.ContainsFunc(o.hosts, func(host string) bool { return host != liveHost }):
		return usage("--every describes this machine", "without --every any machine can be named")
	case o.every < time.Millisecond:
		return usage(fmt.Sprintf("--every=%v: no time to wait", o.every), "--every=10m")
	case o.every > math.MaxInt64/nfdLasts:
		return usage(fmt.Sprintf("--every=%v: the labels would outlast all calendars", o.every), "--every=10m")
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	for said := false; ; said = true {
		cpu, err := o.machine(s, nil)
		if err != nil {
			return 0, err
		}
		if err := replaceFile(o.output, append(nfdExpiry(time.Now().Add(nfdLasts*o.every)), nfdFile(cpu)...)); err != nil {
			return 0, err
		}
		if !said {
			s.Sayf("%s: written, and anew each %v; its labels last for %v", o.output, o.every, nfdLasts*o.every)
		}
		select {
		case <-stop.Done():
			return cli.OK, nil
		case <-time.After(o.every):
		}
	}
}

// listMachines prints the machines that have names.
func listMachines(s *cli.IO) error {
	var rows [][]string
	for _, name := range cpuid.Names() {
		c, ok := cpuid.ByName(name)
		if !ok {
			return fmt.Errorf("%s: no machine of that name", name)
		}
		row := []string{name, cmp.Or(c.Vendor, "-"), "-", "-", "-"}
		if n := c.Level(); n > 0 {
			row[2] = xstate.LevelNames()[n-1]
		}
		if c.XFeatures != nil {
			row[3] = fmt.Sprintf("%#x", uint64(*c.XFeatures))
		}
		if c.XSaveSize != nil {
			row[4] = fmt.Sprint(*c.XSaveSize)
		}
		rows = append(rows, row)
	}
	view.Table(s, []string{"NAME", "VENDOR", "LEVEL", "XCR0", "SIZE"}, rows)
	return nil
}

// machine returns the machine to describe: this one, a named one, or what several
// share.
func (o *profileOptions) machine(s *cli.IO, args []string) (*xstate.CPU, error) {
	if len(args) == 0 {
		args = []string{liveHost}
	}
	if err := checkHosts(args, nil); err != nil {
		return nil, err
	}
	cpus := make([]*xstate.CPU, len(args))
	for i, arg := range args {
		if arg == liveHost {
			cpu, err := cpuid.Host()
			if err != nil {
				return nil, &cli.UsageError{Err: err, Hint: "fpuimg profile PROFILE reads a recorded machine"}
			}
			cpus[i] = cpu
			continue
		}
		h, err := loadMachine(s, "", arg)
		if err != nil {
			return nil, err
		}
		if h.recorded != "" {
			h.Name = h.recorded
		}
		cpus[i] = h.CPU
	}
	if o.common {
		return cpuid.Common(cpus...), nil
	}
	return cpus[0], nil
}
