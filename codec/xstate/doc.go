// Package xstate is the model of one thread's x86 floating-point state, as the
// XSAVE feature set and Linux define it, and of the CPU that holds it.
//
// The package is pure: it asks nothing of the host, reads no file and knows no
// container. CRIU images, ELF core notes and live threads are turned into a
// [State] by other packages, and a machine, whether this one or one recorded
// years ago, is a [CPU] value.
//
// # State components
//
// One table of [Component] holds what the Intel SDM (vol. 1, chapter 13) and the
// Linux kernel (arch/x86/include/asm/fpu/types.h, enum xfeature) say about each
// component, its bit in XSTATE_BV, its name, its size and its registers, and which
// array of a CRIU image holds it. Everything else ranges over that table.
//
// # In use, INIT and lost
//
// A clear bit in XSTATE_BV means that the component is in its INIT state. The
// legacy components, x87 and SSE, are the exception: CRIU restores them with
// their bits always set (criu/arch/x86/crtools.c:restore_fpu), so there the bytes
// count. A decoder of another container normalises to that, and [State.Status]
// has one meaning everywhere.
//
// INIT is not all zero bytes: FCW is 0x37F and MXCSR is 0x1F80 (SDM vol. 1,
// 13.6). A zero-filled legacy area would unmask every exception.
package xstate
