// Package ptrace stops every thread of running processes, reads and writes
// their x86 FPU state, and lets them go again: bytes in, bytes out. It knows
// no image format and decides nothing; what is to be written, and whether it
// may be, is the caller's business.
//
// It works on linux/amd64 (64-bit and 32-bit targets). Elsewhere the package
// holds its types and errors, and nothing that makes them.
//
// # Order
//
// A caller opens a [Tracer] with [Open], stops the processes with
// [Tracer.Stop], looks at the threads ([Tracer.Threads], [Tracer.Read],
// [Tracer.Compat], [Tracer.ReadShadowStack]), replaces state
// with [Tracer.Swap], and ends with [Tracer.Close]. The kernel takes ptrace
// requests from the one OS thread that attached (ptrace(2)), so Open locks the
// calling goroutine to its OS thread, and every method must be called from
// that goroutine; any other gets [ErrWrongThread].
//
// # All or nothing
//
// Swap writes the new state of all given threads and reads all of it back. If
// anything fails, every thread that was written gets its old state back. The
// error tells the two outcomes apart: a [*RestoreError] names threads that
// could not be put back; with any other error every living thread is as it
// was. See [Backend] for the system calls behind it, which a test may replace
// to make any of them fail.
//
// # What the target notices
//
// PTRACE_O_EXITKILL is never set: if the tracer is killed, the kernel detaches
// its tracees and they run on, a group-stopped one stays stopped. A signal
// that arrives while a thread is being stopped is delivered when it is let go.
// A blocked system call is restarted by the kernel, except for those that
// signal(7) lists as never restarted after a stop (epoll_wait, semop,
// sigtimedwait and a few more): these return EINTR, as after SIGSTOP and
// SIGCONT.
//
// # Threads that cannot be stopped
//
// A thread in uninterruptible sleep, which includes the parent of a vfork
// until its child has called exec or exit, does not stop before it wakes up.
// Stop gives up at its context's deadline, and on a busy machine it gives up on
// threads that wait for a CPU too. The kernel offers no way to detach from a thread
// that has not stopped; it does so by itself when the OS thread of the tracer ends.
// Close therefore leaves the goroutine locked in these cases, so that the OS thread
// ends with it; the main thread ends with the program.
package ptrace
