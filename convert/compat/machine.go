package compat

import (
	"fmt"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// What a program does with the instructions that it found at start only its memory tells
// (code.go), so none of the rules about the machines finds what is fatal. The source is
// nil where the checkpoint does not record it, as most do not, and no memory does.
func (sub *subject) isaMissing() {
	source, host := sub.machine(), sub.target.Host
	switch {
	case source == nil || source.Flags == nil:
		sub.find(0, "instruction sets not checked: the CPU that it was taken on is not recorded").as(Note).
			mend(Remedy{Kind: RecordCPU})
		return
	case host.Flags == nil:
		sub.find(0, "instruction sets not checked: %s does not list its own", hostName(host)).as(Note)
		return
	}
	isa, other := missingFlags(source, host)
	if len(isa) > 0 {
		sub.find(0, "the source had instruction sets that %s lacks: %s; a program that chose such code when it started dies of SIGILL",
			hostName(host), strings.Join(isa, " ")).about(isa...).mend(Remedy{HostWith, isa}, Remedy{Kind: StartAnew})
	}
	if len(other) > 0 {
		sub.find(0, "hints and kernel-side features of the source that %s lacks, which no program faults on: %s",
			hostName(host), strings.Join(other, " ")).as(Note).about(other...)
	}
}

// missingFlags returns the flags of the source that the host lacks, by Linux name:
// first the instruction sets of user mode, then the rest.
func missingFlags(source, host *xstate.CPU) (isa, other []string) {
	for _, name := range source.Flags {
		f, ok := xstate.LookupFlag(name)
		if has, known := host.HasFlag(name); !ok || has || !known {
			continue
		}
		if runs, _ := host.Executes(name); f.ISA() && !runs {
			isa = append(isa, name)
		} else {
			other = append(other, name)
		}
	}
	return isa, other
}

// lazyMask is the components that glibc's lazy PLT resolver saves, into a buffer
// that it sized when the program started (sysdeps/x86/cpu-features.h,
// STATE_SAVE_MASK).
const lazyMask xstate.Features = 0xee

// ComponentsEnd returns the end in bytes of the components of lazyMask in the CPU's
// standard-format area. Where the layout was not recorded, and no size tells it, it is the
// longest that there may be.
func ComponentsEnd(c *xstate.CPU) (end int, known bool) {
	if c.XFeatures == nil {
		return 0, false
	}
	layouts := c.Layouts()
	if len(layouts) == 0 {
		layouts = []xstate.Layout{xstate.IntelLayout(*c.XFeatures)}
	}
	for _, l := range layouts {
		end = max(end, l.End(*c.XFeatures&lazyMask))
	}
	return end, true
}

// xsavecEnd returns the end in bytes of what XSAVEC writes of the components of lazyMask
// where all that written has are in use: it lays out all that are enabled, one after the
// other, and leaves out what is in INIT (SDM vol. 1, 13.10).
func xsavecEnd(c *xstate.CPU, written xstate.Features) (end int, known bool) {
	if c.XFeatures == nil {
		return 0, false
	}
	return xstate.Layout(nil).CompactLayout(*c.XFeatures & lazyMask).End(written), true
}

// filled returns the components that CRIU leaves in use on the host, whatever the image
// says of them; none from CRIU 3.18 on.
func (t Target) filled() xstate.Features {
	if does(t.release(), followsBV) {
		return 0
	}
	has, _ := found(t.Host, t.release())
	return has
}

// bufferEnd returns how far into an XSAVE area a buffer has room that a program
// sized at start: glibc and others take the whole area of what is enabled, with its
// holes (CPUID 0xD.0.EBX; sysdeps/x86/cpu-features.c:update_active).
func bufferEnd(c *xstate.CPU) (end int, known bool) {
	if c.XSaveSize != nil && *c.XSaveSize != 0 {
		return int(*c.XSaveSize), true
	}
	return ComponentsEnd(c)
}

// xsaveSizeDiffers warns of a buffer that the program or its libc sized at start,
// from the source's CPUID. With XSAVEC the area depends on what is in use and the
// buffer suffices; with plain XSAVE the host's CPU writes up to the end of its
// highest component and overruns it.
func (sub *subject) xsaveSizeDiffers() {
	if answered(sub.tasks) {
		return // lazySave speaks of the buffer itself
	}
	source, host := sub.source, sub.target.Host
	note := func(format string, args ...any) { sub.find(0, format, args...).as(Note) }
	if source == nil || source.XSave == nil {
		note("XSAVE area size not checked: the CPU that it was taken on is not recorded")
		return
	}
	if !*source.XSave {
		if host.XSave != nil && *host.XSave {
			note("the source has no XSAVE, %s has: harmless, since programs started there save their state with FXSAVE", hostName(host))
		}
		return
	}
	from, ok := bufferEnd(source)
	to, ok2 := ComponentsEnd(host)
	if !ok || !ok2 || host.XSave == nil {
		note("XSAVE area size not checked: it is not recorded for both machines")
		return
	}
	room, _ := xsavecEnd(source, lazyMask)
	written, _ := xsavecEnd(host, sub.target.filled())
	xsavec, _ := source.HasFlag("xsavec")
	fills := xsavec && *host.XSave && written > room
	sizes := "the XSAVE area"
	if source.XSaveSize != nil && host.XSaveSize != nil {
		if *source.XSaveSize == *host.XSaveSize && from >= to && !fills {
			return
		}
		sizes = fmt.Sprintf("the XSAVE area has %d bytes on the source and %d on %s", *source.XSaveSize, *host.XSaveSize, hostName(host))
	} else if from >= to && !fills {
		return
	} else {
		sizes += fmt.Sprintf(" ends at %d on the source and at %d on %s", from, to, hostName(host))
	}
	switch {
	case !*host.XSave:
		note("%s, which has no XSAVE: no buffer can be overrun", sizes)
	case fills:
		sub.find(0, "%s, and CRIU before %v restores every component of %s as in use: XSAVEC then writes %d bytes where programs that "+
			"started on the source have room for %d, and the first lazily bound call overwrites the stack",
			sizes, since[followsBV], hostName(host), written, room).mend(Remedy{Kind: NewerCRIU}, Remedy{Kind: HostSmaller}, Remedy{Kind: BindNow})
	case !xsavec && to > from:
		sub.find(0, "%s, and the source lacks XSAVEC: glibc's lazy symbol resolver, and any program that sized "+
			"an XSAVE buffer at start, has room up to byte %d and the host writes up to byte %d; the first lazily bound call "+
			"then overwrites the stack", sizes, from, to).mend(Remedy{Kind: HostSmaller}, Remedy{Kind: BindNow})
	case to > from:
		note("%s; harmless, since the source has XSAVEC: its programs save only what is in use, and the larger "+
			"components stay in INIT", sizes)
	default:
		note("%s; harmless, since the components end no later there: a buffer sized at start is long enough", sizes)
	}
}

func (sub *subject) vendorDiffers() {
	source, host := sub.machine(), sub.target.Host
	if source == nil || source.Vendor == "" || host.Vendor == "" || source.Vendor == host.Vendor ||
		source.Vendor == "amd" && host.Vendor == "hygon" { // CRIU stores Hygon as AMD
		return
	}
	sub.find(0, "taken on a CPU of %s, %s is of %s; CRIU does not compare vendors, and images hold no vendor's layout",
		source.Vendor, hostName(host), host.Vendor)
}
