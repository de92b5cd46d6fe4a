// Package elfcore reads the threads of an ELF core from its notes, those of a bare XSAVE
// area, and writes a core of notes alone for a debugger.
//
// # Format
//
// A core has one PT_NOTE segment, or several. NT_PRSTATUS opens a thread, and the notes
// of its registers follow: NT_X86_XSTATE is an XSAVE area of standard format,
// NT_PRFPREG and NT_PRXFPREG are what FXSAVE or FSAVE stores (fs/binfmt_elf.c,
// arch/x86/kernel/fpu/regset.c). Where an area has its components, only the machine that
// stored it knows: NT_X86_XSAVE_LAYOUT says so since Linux 6.12; else XCR0 and the size
// tell, or a machine that the caller names. What all machines have at the same place is
// read from an area of any size.
//
// Other writers leave notes out. What no note tells is unknown in the state that is
// read, not in INIT.
//
// # Hostile input
//
// Notes and headers have bounds, and nothing is allocated for a length that the file
// does not have. Malformed bytes give a [*codec.FormatError] with file, offset and field.
package elfcore
