// Package sysfault runs a program and kills it, or makes a system call of it
// fail, at a chosen point of its work on the file system.
//
// It is a test harness. A writer that promises "wholly old or wholly new" is
// run once under [Trace] to learn how many file-system changes it makes, then
// once per change under [Kill] and under [Fail], and the test looks at what is
// left each time. [Run] takes a decision function for anything else, such as a
// disk that is full from the n-th write on. The harness needs no help from the
// program: it is ptrace(2), and the program may have threads and children.
//
// The package has code for linux/amd64 only; elsewhere it is empty.
//
// # What counts
//
// A mutating call is one that asks the kernel to change a file system: to
// create, open for writing, write, clone, allocate, truncate, sync, rename,
// link, remove, or to change mode, owner, times, attributes. It counts when the
// program enters it, whether or not it would succeed. These do not count:
//
//   - calls on a descriptor that is not a regular file or a directory on a file
//     system (pipe, terminal, socket, eventfd, memfd), and opening an existing
//     file that is neither, such as /dev/null: the Go runtime writes to an
//     eventfd to wake its poller, and how often is chance;
//   - calls on a descriptor that is not open, which fail by themselves;
//   - calls on paths outside [Options].Under, if that is set;
//   - a call repeated by the same code because a signal interrupted it: the
//     kernel restarts calls for Go's preemption signal, and the os package
//     repeats them after EINTR. An attempt that ends so had no effect.
//
// sync(2) does not count: it names no file and cannot fail.
//
// # Order and repetition
//
// Calls are numbered from 1 in the order in which they are about to be made. One
// goroutine that works alone makes the same calls in the same order each time.
// Where several goroutines or processes change files at once, the order, and
// the number after a fault, may differ from run to run; and calls let through
// shortly before a kill may be cut off by it, so the first n-1 calls are then
// an upper bound of what happened. With one worker they are exact.
//
// # Limits
//
// Changes that no mutating call announces would be holes in the test, so the run
// ends with an [UnsupportedError] if the program tries to set up io_uring or
// AIO, maps a regular file shared and writable, opens a file for writing by
// handle, or makes a 32-bit or x32 call. The same holds for setpgid(2) and
// setsid(2): the harness waits for, and kills, a process group. A mapping that
// mprotect(2) makes writable later is not seen. Programs that share neither
// root directory nor mount namespace with the harness get wrong paths. A stop
// signal (SIGSTOP, SIGTSTP) does not keep a traced program stopped. The program runs
// below a filter of seccomp(2), which has it stop at these calls and at no others; with
// no_new_privs, therefore, so that set-user-ID programs that it starts are none.
package sysfault
