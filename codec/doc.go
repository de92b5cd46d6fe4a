// Package codec reads and writes the CRIU image files that carry x86 FPU state.
//
// # Format
//
// A CRIU image file is one or two magic words and then entries: a 32-bit length
// and that many bytes of protobuf, all little endian (criu/image.c,
// criu/include/magic.h). Since CRIU 1.6 a common magic stands before the type's
// own; older files lack it, and both are read. core-TID.img holds one entry per
// thread, with the FPU record in thread_info.fpregs (images/core-x86.proto);
// pstree.img names the tasks and their threads; cpuinfo.img, in the few
// checkpoints that have it, names the CPU they were taken on.
//
// [Files] are the image files of a checkpoint, wherever they are. The package checkpoint
// finds them.
//
// # Other containers
//
// [Thread] is what all containers have of a thread. The package elfcore reads ELF cores
// and bare XSAVE areas, and writes cores.
//
// # Hostile input
//
// Images come from other machines. Every length is checked against the bytes that
// are there before anything is allocated, files that are not regular are refused,
// and malformed bytes give a [*FormatError] with file, offset and field.
//
// # Byte identity
//
// An image is never re-marshalled. [Core.Encode] and [CPUInfo.Encode] splice the
// changed fields into the bytes that were read; every other byte, unknown fields
// and trailing data included, stays as it was.
package codec
