package main

import "github.com/fpuimg/fpuimg/internal/cli"

const exits = `
  0  compatible, or done
  1  refused by policy (what --force lifts), incompatible, or different
  2  the command line makes no sense
  3  damaged or unreadable input, or an I/O error

The worst over all inputs counts, in the order 0, 1, 3.
`

var rootManual = cli.Manual{
	Name:     "fpuimg",
	Short:    "the x86 floating-point state in CRIU checkpoints",
	Synopsis: "COMMAND [OPTION]... [PATH]...",
	Body: `
CRIU freezes a process tree into image files and thaws it elsewhere. Each
thread's FPU state stands in core-TID.img: no record at all, an FXSAVE record
(x87 and XMM) or an XSAVE record (YMM, AVX-512, PKRU and more). fpuimg shows it,
says whether it fits another machine, and changes its format.

Every PATH is a CRIU images directory or one core-*.img, "-" is a core image on
standard input, and without one the current directory is read.

  show     every thread's state components and registers
  help     the manual of a command: fpuimg help show
  version  the version

Standard output is data, standard error is talk. NO_COLOR is honoured, and
nothing is told by colour alone.
`,
	Exits: exits,
	See:   []string{"fpuimg-show", "criu(8)"},
}

var showManual = cli.Manual{
	Name:     "fpuimg show",
	Short:    "show the FPU state of every thread of a checkpoint",
	Synopsis: "[OPTION]... [PATH]...",
	Body: `
Prints a table of the threads: their format, XSTATE_BV as it is recorded, and the
state of each component. Threads in the same state share a row.

  in use  the bit is set in XSTATE_BV, and some register differs from INIT
  zero    the bit is set, but every register holds its INIT value
  init    the bit is clear
  lost    the bit is set, but the image holds no data

For x87 and SSE the content decides, because CRIU restores both whatever
XSTATE_BV says. Findings about damage follow the table; a fatal one makes the
exit status 3.

With --regs every register is printed: ST(0) to ST(7) in stack order with their
tags, and vector registers as wide as the record goes, most significant digit
first. --as prints vector registers as lanes instead, lane 0 first.

    fpuimg show ckpt
    fpuimg show --regs --component=AVX,PKRU --tid=4711 ckpt
    fpuimg show --regs --as=f64 core-4711.img
    ssh host cat core-7.img | fpuimg show -
`,
	Exits: exits,
	See:   []string{"fpuimg"},
}
