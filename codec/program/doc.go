// Package program finds out what the code of a checkpoint's processes is: which ELF files
// they map, which CPU glibc found when they started, which functions their IFUNC slots
// hold, and what CPU features all that needs. It reads what was dumped, and ELF files
// below the roots that it is given, each proven by its build-id.
//
// # Hostile input
//
// Images and ELF files may be anything. Nothing is allocated by a length that was not
// compared with what is there, every walk is bounded, and no path leaves its root.
package program
