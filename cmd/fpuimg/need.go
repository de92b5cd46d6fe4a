package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/compat"
)

type needOptions struct {
	as       string
	code     codeOptions
	noMemory bool
}

// needForms are the values of --as, the default first.
var needForms = []string{"text", "json", "affinity", "nfd-rule", "annotations"}

func setupNeed(fs *pflag.FlagSet) func(*cli.IO, []string) (cli.Exit, error) {
	var o needOptions
	fs.StringVar(&o.as, "as", "text", "print it as `FORM`: text, json, or for Kubernetes affinity, nfd-rule or annotations")
	o.code.flags(fs, "say what the code needs too, by the programs' files below `DIR`: /, or a container's root file system; may be repeated")
	fs.BoolVar(&o.noMemory, "no-memory", false, "look at registers alone, not at the dumped memory")
	return func(s *cli.IO, args []string) (cli.Exit, error) {
		if !slices.Contains(needForms, o.as) {
			return 0, cli.Unknown(fmt.Errorf("--as=%s: unknown form", o.as), "--as=", o.as, "the forms", needForms)
		}
		if o.noMemory && len(o.code.dirs) > 0 {
			return 0, errNoMemoryRoot
		}
		if err := o.code.open(); err != nil {
			return 0, err
		}
		defer o.code.close()
		return o.run(s, inputs(args))
	}
}

// needs are what one image needs.
type needs struct {
	path string
	compat.Need
	errs []error
}

func (o *needOptions) run(s *cli.IO, paths []string) (cli.Exit, error) {
	code := cli.OK
	var all []*needs
	for _, path := range paths {
		spool := o.code.spool()
		found, err := openAll(s, path, checkpoint.Options{Spool: spool})
		if err != nil {
			found = []checkpoint.Found{{Path: path, Err: err}}
		}
		for _, f := range found {
			n := &needs{path: f.Path, errs: []error{f.Err}}
			if f.Err == nil {
				n = o.need(f.Checkpoint)
			}
			for _, err := range n.errs {
				s.Error(err)
				s.Hint(inputHint(n.path, err))
				code = cli.Damaged
			}
			if len(n.errs) == 0 {
				all = append(all, n)
			}
		}
		spool.Close()
	}
	switch o.as {
	case "json":
		return code, s.WriteJSON(needDocOf(all))
	case "text":
		named := namedCPUs()
		for i, n := range all {
			if i > 0 {
				fmt.Fprintln(s.Out)
			}
			n.text(s, named)
		}
	default:
		for i, n := range all {
			if i > 0 {
				fmt.Fprintln(s.Out, "---")
			}
			n.kubernetes(s.Out, o.as)
		}
	}
	return code, nil
}

func (o *needOptions) need(ckpt *checkpoint.Checkpoint) *needs {
	out := &needs{path: ckpt.Path, errs: slices.Clone(ckpt.Problems)}
	var threads []codec.Thread
	for th, err := range ckpt.Threads() {
		if err != nil {
			out.errs = codec.AppendFault(out.errs, err)
			continue
		}
		threads = append(threads, th)
	}
	n := compat.NewNeeder()
	if o.noMemory {
		n.Code(nil)
	} else {
		n.Code(o.code.look(ckpt, threads))
	}
	for _, th := range threads {
		n.Thread(convert.Subject(ckpt, th))
	}
	out.Need = n.Need()
	return out
}

// levelOf is the lowest level of the x86-64 psABI that guarantees all that is needed; ""
// if none does.
func (n *needs) levelOf() string {
	for _, name := range xstate.LevelNames() {
		if host, _ := xstate.ByName(name); !slices.ContainsFunc(n.Flags, func(flag string) bool { return compat.Unfit(host, []string{flag}) }) {
			return name
		}
	}
	return ""
}

// namedCPUs are the machines that have names of their own.
func namedCPUs() (cpus []*xstate.CPU) {
	for _, name := range cpuid.Names() {
		if c, ok := cpuid.ByName(name); ok && c.Vendor != "" {
			cpus = append(cpus, c)
		}
	}
	return cpus
}

// on says which of the machines have all that is needed.
func (n *needs) on(cpus []*xstate.CPU) string {
	var names []string
	for _, c := range cpus {
		if n.Met(c) {
			names = append(names, c.Name)
		}
	}
	switch len(names) {
	case 0:
		return "none that has a name has it"
	case len(cpus):
		return "each that has a name has it"
	}
	return strings.Join(names, " ")
}

func (n *needs) text(s *cli.IO, named []*xstate.CPU) {
	fmt.Fprintf(s.Out, "%s needs\n", s.OutStyle(color.Bold).Sprint(cli.Printable(n.path)))
	level := n.levelOf()
	row := func(head, text string) {
		for _, line := range cli.Wrap(strings.Fields(text), max(s.Width()-16, 20)) {
			fmt.Fprintf(s.Out, "  %-12s  %s\n", head, line)
			head = ""
		}
	}
	if level != "" {
		row("level", level)
	} else {
		row("level", "more than any level guarantees")
	}
	if n.Components != 0 {
		row("components", strings.Join(n.Components.Names(), ", "))
	}
	if len(n.Flags) > 0 {
		row("CPU flags", strings.Join(n.Flags, " "))
	}
	if n.MXCSR != 0 {
		row("MXCSR", fmt.Sprintf("bits %#x in its mask", n.MXCSR))
	}
	if n.XSaveSize != 0 {
		row("XSAVE area", fmt.Sprintf("of no more than %d bytes, which is the room that lazy binding has", n.XSaveSize))
	}
	row("machines", n.on(named))
	if len(n.Possible) > 0 {
		row("perhaps", strings.Join(n.Possible, " "))
	}
	for _, u := range n.Unknown {
		row("not known", cli.Printable(u))
	}
}

// The JSON document of schema fpuimg.need/1.
type needDoc struct {
	Schema string      `json:"schema"`
	Images []needImage `json:"images"`
}

type needImage struct {
	Path       string   `json:"path"`
	Level      *string  `json:"level"` // null if no level guarantees it all
	Components []string `json:"components"`
	Flags      []string `json:"flags"`
	Possible   []string `json:"possible_flags"`
	MXCSR      string   `json:"mxcsr"`
	XSaveSize  *int     `json:"xsave_size"` // null if it does not matter
	Unknown    []string `json:"unknown"`
}

func needDocOf(all []*needs) needDoc {
	d := needDoc{Schema: "fpuimg.need/1", Images: []needImage{}}
	for _, n := range all {
		img := needImage{Path: n.path, Components: n.Components.Names(), Flags: append([]string{}, n.Flags...), Possible: append([]string{}, n.Possible...),
			MXCSR: "0x" + strconv.FormatUint(uint64(n.MXCSR), 16), Unknown: append([]string{}, n.Unknown...)}
		if level := n.levelOf(); level != "" {
			img.Level = &level
		}
		if n.XSaveSize != 0 {
			img.XSaveSize = &n.XSaveSize
		}
		d.Images = append(d.Images, img)
	}
	return d
}
