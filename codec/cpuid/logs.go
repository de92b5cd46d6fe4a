package cpuid

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// facts are the few flags that a log tells of, and whether the CPU has them.
type facts map[string]bool

// fill puts the facts into a CPU, with what they imply.
func (known facts) fill(c *xstate.CPU) {
	c.Flags = []string{}
	var off []string
	for name, has := range known {
		if has {
			c.Flags = append(c.Flags, name)
		} else {
			off = append(off, name)
		}
	}
	c.Flags = names(append(c.Flags, xstate.DependenciesOf(c.Flags...)...))
	c.Flags = xstate.WithoutFlags(c.Flags, off...)
	c.UnknownFlags = xstate.UnknownFlags(c.Flags, func(f xstate.Flag) bool { _, ok := known[f.Name]; return ok })
}

// components adds the flags of the user components: those of set are there.
func (known facts) components(set, judged xstate.Features) {
	for f := range (xstate.User() & judged).All() {
		known[f.Flag()] = set.Has(f)
		if f == xstate.PKRU {
			known["ospke"] = set.Has(f)
		}
	}
}

// areaSize is the size of an XSAVE area, nil if it can be none.
func areaSize(digits string, base int) *uint32 {
	size, _ := strconv.ParseUint(digits, base, 32)
	if size < xstate.MinArea || size > maxXSave {
		return nil
	}
	return new(uint32(size))
}

// What CRIU prints of the CPU with -v4 (compel/arch/x86/src/lib/cpu.c,
// criu/arch/x86/cpu.c).
var (
	criuModel = pattern(`cpu: x86_family (\d{1,4}) x86_vendor_id (\S+) x86_model_id (.*)`)
	criuMask  = pattern(`cpu: fpu: xfeatures_mask 0x([0-9a-f]{1,16}) xsave_size (\d{1,7}) xsave_size_max (\d{1,7})`)
	criuBit   = pattern(`\b(fpu|fxsr|xsave|xsaveopt|xsavec|xgetbv1|xsaves):([01])\b`)
	criuPlain = pattern(`cpu: fpu: x87 FPU will use (FXSAVE|FSAVE)`)
)

// parseCRIULog reads a dump.log or restore.log. As in a cpuinfo.img, the mask is CPUID's
// list of components with CRIU's fault.
func parseCRIULog(lines []string) (*xstate.CPU, error) {
	c := &xstate.CPU{}
	known := facts{}
	var mask *uint64
	for _, line := range lines {
		if m := criuModel().FindStringSubmatch(line); m != nil {
			c.Family = within(m[1], maxFamily)
			c.Vendor, c.ModelName = clip(xstate.VendorName(m[2])), clip(strings.TrimSpace(m[3]))
		} else if m := criuMask().FindStringSubmatch(line); m != nil {
			v, _ := strconv.ParseUint(m[1], 16, 64)
			mask, c.XSaveSize, c.XSaveSizeMax = &v, areaSize(m[2], 10), areaSize(m[3], 10)
		} else if criuPlain().MatchString(line) {
			known["xsave"], known["osxsave"] = false, false
		} else if strings.Contains(line, "cpu: fpu:") {
			for _, m := range criuBit().FindAllStringSubmatch(line, -1) {
				known[m[1]] = m[2] == "1"
				if m[1] == "xsave" { // which is OSXSAVE
					known["osxsave"] = known["xsave"]
				}
			}
		}
	}
	if len(known) == 0 && mask == nil {
		return nil, &TextError{Form: "CRIU's log", Reason: "it does not say what the CPU has", Hint: "criu dump -v4, or criu restore -v4, logs it"}
	}
	if xsave, ok := known["xsave"]; ok {
		c.XSave = &xsave
	}
	if fxsr, ok := known["fxsr"]; ok {
		c.FXSave = &fxsr
	}
	if mask != nil {
		set := xstate.FromCRIUMask(*mask, nil) & xstate.Known
		judged := xstate.Legacy | xstate.CRIURestores(xstate.NewestCRIU)
		if c.XSaveSize != nil { // CRIU does not know AMX, and the size tells
			switch size := int(*c.XSaveSize); {
			case xstate.GuessLayout(set, size) != nil:
				judged |= xstate.AMX
			case xstate.GuessLayout(set|xstate.AMX, size) != nil:
				set, judged = set|xstate.AMX, judged|xstate.AMX
			}
		}
		known.components(set, judged)
		c.XFeaturesHW, c.XFeatures = &set, new(set)
	}
	if c.XSave != nil && !*c.XSave {
		c.XFeatures = new(xstate.Features)
	}
	if c.XSaveSize != nil && c.XSaveSizeMax != nil && *c.XSaveSize > *c.XSaveSizeMax {
		return nil, &TextError{Form: "CRIU's log", Reason: "xsave_size is more than xsave_size_max"}
	}
	known.fill(c)
	return c, nil
}

// What the kernel logs when it starts (arch/x86/kernel/fpu/xstate.c, and xsave.c of
// Linux 2.6 and 3).
var (
	kernelMask  = pattern(`x86/fpu: Enabled xstate features 0x([0-9a-f]{1,16}), context size is (\d{1,7}) bytes, using '(\w+)' format`)
	kernelOld   = pattern(`xsave(?:/xrstor)?: enabled xstate_bv 0x([0-9a-f]{1,16}), cntxt size 0x([0-9a-f]{1,5})`)
	kernelPlain = pattern(`x86/fpu: x87 FPU will use (FXSAVE|FSAVE)`)
	kernelModel = pattern(`CPU0: (.*) \(fam(?:ily)?: (?:0x)?([0-9a-f]{1,3}), model: (?:0x)?([0-9a-f]{1,3}), stepping: (?:0x)?([0-9a-f]{1,2})\)`)
)

// parseKernelLog reads what dmesg prints. The size is that of CPUID leaf 0xD only where
// the kernel uses the standard format.
func parseKernelLog(lines []string) (*xstate.CPU, error) {
	c := &xstate.CPU{}
	known := facts{}
	enabled := func(digits string) {
		v, _ := strconv.ParseUint(digits, 16, 64)
		set := xstate.Features(v) & xstate.User()
		c.XFeatures, c.XSave, c.FXSave = &set, new(true), new(true)
		known["xsave"], known["osxsave"] = true, true
		known.components(set, xstate.Known)
	}
	for _, line := range lines {
		if m := kernelMask().FindStringSubmatch(line); m != nil {
			if enabled(m[1]); m[3] == "standard" {
				c.XSaveSize = areaSize(m[2], 10)
			}
		} else if m := kernelOld().FindStringSubmatch(line); m != nil {
			enabled(m[1])
			c.XSaveSize = areaSize(m[2], 16)
		} else if kernelPlain().MatchString(line) {
			c.XFeatures, c.XSave = new(xstate.Features), new(false)
			known["xsave"], known["osxsave"] = false, false
		} else if m := kernelModel().FindStringSubmatch(line); m != nil {
			c.ModelName = clip(strings.TrimSpace(m[1]))
			c.Family, c.Model, c.Stepping = within(strconv.Itoa(int(hex32(m[2]))), maxFamily), within(strconv.Itoa(int(hex32(m[3]))), maxModel), within(strconv.Itoa(int(hex32(m[4]))), maxStepping)
			for _, vendor := range []string{"Intel", "AMD", "Hygon"} {
				if strings.HasPrefix(c.ModelName, vendor) {
					c.Vendor = strings.ToLower(vendor)
				}
			}
		}
	}
	if len(known) == 0 {
		return nil, &TextError{Form: "kernel log", Reason: "it does not say which components are enabled", Hint: "dmesg of the whole boot has it: grep x86/fpu"}
	}
	known.fill(c)
	if c.FXSave == nil && slices.Contains(c.Flags, "fxsr") {
		c.FXSave = new(true)
	}
	return c, nil
}
