package cpuid

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// isFlagsLine tells the flags of an x86 CPU by their names, since lscpu translates the
// word before them.
func isFlagsLine(line string) bool {
	_, value, ok := strings.Cut(line, ":")
	words := strings.Fields(value)
	return ok && len(words) > 3 && words[0] == "fpu" && slices.Contains(words, "tsc")
}

// parseCPUInfoText reads /proc/cpuinfo of x86, or lscpu, which prints the same flags.
// A machine has what all of its CPUs have.
func parseCPUInfoText(lines []string) (*xstate.CPU, error) {
	var cpus []*xstate.CPU
	var cpu xstate.CPU
	var flags []string
	var last []string // flags of the CPU before, which is mostly the same
	end := func() {
		if flags != nil && (len(cpus) == 0 || !slices.Equal(flags, last) || !reflect.DeepEqual(signatureOf(&cpu), signatureOf(cpus[len(cpus)-1]))) {
			c := cpu
			fromPrinted(&c, flags)
			cpus = append(cpus, &c)
		}
		last, flags = flags, nil
	}
	inFlags := false
	for _, line := range lines {
		key, value, ok := strings.Cut(line, ":")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch {
		case isFlagsLine(line):
			if flags != nil {
				end()
			}
			flags = strings.Fields(value)
		case !ok && inFlags: // a mail program has broken the line
			if words := strings.Fields(line); !slices.ContainsFunc(words, func(w string) bool { return !isFlagName(w) }) {
				flags = append(flags, words...)
				continue
			}
		case key == "processor":
			end()
			cpu = xstate.CPU{}
		case key == "vendor_id" || key == "vendor id":
			cpu.Vendor = clip(xstate.VendorName(value))
		case key == "model name":
			cpu.ModelName = clip(value)
		case key == "cpu family":
			cpu.Family = within(value, maxFamily)
		case key == "model":
			cpu.Model = within(value, maxModel)
		case key == "stepping":
			cpu.Stepping = within(value, maxStepping)
		}
		inFlags = isFlagsLine(line)
	}
	end()
	return sameOrCommon(cpus), nil
}

// signatureOf is what a CPU says of itself besides its flags.
func signatureOf(c *xstate.CPU) []any {
	return []any{c.Vendor, c.ModelName, c.Family, c.Model, c.Stepping}
}

func within(s string, most int) *int {
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 || v > most {
		return nil
	}
	return &v
}

// clip makes a text one that a profile can hold.
func clip(s string) string { return printable(s[:min(len(s), maxName)]) }

// fromPrinted puts what the kernel's flags tell into a CPU. The kernel prints a flag if
// it uses the feature, so that the components follow from them; sizes and places do not.
func fromPrinted(c *xstate.CPU, printed []string) {
	has := func(name string) bool { return slices.Contains(printed, name) }
	c.Flags = []string{}
	for f := range xstate.AllFlags() {
		switch {
		case has(f.Name),
			f.Name == "osxsave" && has("xsave"),
			// What every CPU in 64-bit mode has, and Linux before 4.12 does not print.
			(f.Name == "cpuid" || f.Name == "nopl") && has("lm"):
			c.Flags = append(c.Flags, f.Name)
		}
	}
	c.FXSave, c.XSave = new(has("fxsr")), new(has("xsave"))
	var usable xstate.Features
	if *c.XSave {
		usable = xstate.Legacy
		for f := range (xstate.User() &^ xstate.Legacy).All() {
			if has(f.Flag()) && (f != xstate.PKRU || has("ospke")) {
				usable |= f.Mask()
			}
		}
	}
	c.XFeatures = &usable
	slices.Sort(c.Flags)
	c.Flags = usableFlags(c.Flags, usable)
	c.UnknownFlags = xstate.UnknownFlags(c.Flags, func(f xstate.Flag) bool { return !f.Hidden() || f.Name == "osxsave" })
}

// usableFlags leaves out the flags of the components that are not enabled, and
// what depends on them: their instructions fault.
func usableFlags(flags []string, usable xstate.Features) []string {
	var off []string
	for f := range (xstate.User() &^ xstate.Legacy &^ usable).All() {
		off = append(off, f.Flag())
	}
	return xstate.WithoutFlags(flags, off...)
}
