// Fpuimg reads, checks and converts the x86 floating-point state in the images of
// a CRIU checkpoint. `fpuimg help` is its manual.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
)

func main() { os.Exit(runPlugin(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// verb is one subcommand. It registers its flags and returns what runs it.
type verb struct {
	manual cli.Manual
	setup  func(*pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error)
}

// verbs lists the subcommands in the order in which help names them.
func verbs() []verb {
	return []verb{
		{showManual, setupShow},
		{checkManual, setupCheck},
		{convertManual, setupConvert},
		{levelManual, setupLevel},
		{needManual, setupNeed},
		{profileManual, setupProfile},
		{diffManual, setupDiff},
		{completionManual, setupCompletion},
	}
}

// run is the program, for main and for tests.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := cli.NewIO("fpuimg", stdin, stdout, stderr)
	code, err := dispatch(s, args)
	return int(s.Finish(code, err))
}

func dispatch(s *cli.IO, args []string) (cli.Exit, error) {
	root := pflag.NewFlagSet("fpuimg", pflag.ContinueOnError)
	root.SetInterspersed(false)
	root.Usage = func() {}
	version := root.Bool("version", false, "print the version and exit")
	if err := cli.ParseFlags(root, args, "fpuimg help"); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return cli.OK, help(s, nil)
		}
		return 0, err
	}
	args = root.Args()
	switch {
	case *version:
		fmt.Fprintln(s.Out, cli.Version("fpuimg"))
		return cli.OK, nil
	case len(args) == 0:
		return 0, &cli.UsageError{Err: errors.New("no command given"), Hint: "fpuimg help lists the commands; fpuimg show reads the checkpoint in this directory"}
	case args[0] == "help":
		return cli.OK, help(s, args[1:])
	case args[0] == "version":
		fmt.Fprintln(s.Out, cli.Version("fpuimg"))
		return cli.OK, nil
	}
	v, err := findVerb(args[0])
	if err != nil {
		return 0, err
	}
	fs, start := v.flags(s)
	if err := cli.ParseFlags(fs, args[1:], v.manual.Name+" --help"); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprint(s.Out, v.manual.Text())
			return cli.OK, nil
		}
		return 0, err
	}
	return start(s, fs.Args())
}

// flags registers the verb's flags and those that every verb has.
func (v *verb) flags(s *cli.IO) (*pflag.FlagSet, func(*cli.IO, []string) (cli.Exit, error)) {
	fs := pflag.NewFlagSet(v.manual.Name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	start := v.setup(fs)
	if host := fs.Lookup("host"); host != nil { // alone it is this machine, in every verb
		host.NoOptDefVal = liveHost
	}
	fs.Var(cli.ColorFlag(s), "color", "colour, by `WHEN`: auto (the default, on a terminal), always or never")
	v.manual.Flags = fs
	return fs, start
}

func findVerb(name string) (*verb, error) {
	vs := verbs()
	var names []string
	for i := range vs {
		if vs[i].manual.Name == "fpuimg "+name {
			return &vs[i], nil
		}
		names = append(names, vs[i].manual.Name[len("fpuimg "):])
	}
	err := fmt.Errorf("unknown command %q", name)
	if _, statErr := os.Lstat(name); statErr == nil {
		return nil, &cli.UsageError{Err: err, Hint: "fpuimg show " + view.Path(name)}
	}
	return nil, cli.Unknown(err, "fpuimg ", name, "the commands", append(names, "help", "version"))
}

// help prints the manual, or that of one verb; --roff prints it as a man page.
func help(s *cli.IO, args []string) error {
	roff := slices.Contains(args, "--roff")
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--roff" })
	m := &rootManual
	switch {
	case len(args) > 1:
		return &cli.UsageError{Err: fmt.Errorf("help takes one command, not %d", len(args)), Hint: "fpuimg help " + args[0]}
	case len(args) == 1:
		v, err := findVerb(args[0])
		if err != nil {
			return err
		}
		v.flags(s)
		m = &v.manual
	}
	text := m.Text()
	if roff {
		text = m.Roff()
	}
	_, err := s.Out.WriteString(text)
	return err
}
