// Package vmtest proves what fpuimg promises of checkpoints against CRIU itself, and
// what fpurestore does to live processes, on a real kernel, in guests of unlike CPUs. It holds tests only: package guest
// boots the guests, package testprog has the programs in them.
//
// # The matrix
//
// TestMatrixVM boots a guest of each CPU model twice. In the first, CRIU
// checkpoints the test programs, and fpuimg and CRIU both describe the machine.
// On the host, the fpuimg program checks every checkpoint against every machine,
// and converts some. In the second, CRIU restores, with each value of --cpu-cap,
// what was dumped elsewhere, and the programs say what became of their registers.
//
// Each such restore is a row of the table out/vm-matrix.tsv (FPU_VM_TABLE names
// another file; beside it is the same in fewer lines, for readers): what fpuimg
// check predicted and what happened. They agree in every row, or the test fails. A
// prediction is exact:
//
//   - CRIU refuses, and its log says what the predicted class means;
//   - or it restores, and the program lives on and finds exactly the predicted
//     components gone;
//   - or it restores, and the program dies of SIGILL, having met one of the
//     instructions that check named as missing on that machine;
//   - or it restores, and the program finds its stack overwritten, as check warned,
//     where XSAVE writes more than on the machine it started on.
//
// For the last two, each program is known to use certain instructions: see
// program.needs and program.buffer.
//
// # What check finds in memory
//
// TestMemoryVM is a matrix of programs of which fpuimg check --root is to foretell all by
// their dumped memory. They run with the libc of a suite of Debian (glibc 2.31, 2.36, 2.41),
// in a root of their own: C programs linked in unlike ways, with one thread and six, and
// Debian's python3, perl, bash, redis-server and nginx. Such a program dies where check
// says that its code does not fit, of an instruction that needs what was named, and
// nowhere else; and where the buffer of lazy binding is said to be too small, the first
// such call overwrites the stack. Another is in a signal handler, and loses the registers
// in its frame where check says so.
//
// What does not fit is restored as fpuimg level makes it, too, and lives: from a machine
// with AVX2 on one with SSE4.2, and on one with SSE2 and no XSAVE. It dies again if words of
// one kind are put back as they were dumped: copies of functions, glibc's record of the
// CPU, what lazy binding enters, OpenSSL's record.
//
// The table is out/vm-matrix-memory.tsv. It takes some machines and programs, or all with
// FPU_VM_ALL=1, which "make vmtest-all" sets.
//
// # Recordings that are levelled
//
// TestRecordingsVM takes the checkpoints with pages that lie beside the project, most of
// them of a CPU with AVX-512, and has fpuimg level make each fit for each CPU model, as
// glibc described that one. The CRIU and the kernel of Debian sid restore the result and
// the checkpoint as it is, in one boot. What is levelled runs for 20 seconds, with its
// late calls, and finds nothing wrong; as it is it does what the recordings say, which is
// to die. Where words of one kind are left as they were it dies again. What was levelled,
// restored and dumped anew on one machine lives on another with a larger save area, and
// check has nothing against the CPU that it came from. Where this machine has AVX-512, it
// is one of the machines; else what was not done is said. It is not part of "make vmtest"
// but of "make vmtest-level", and skips where there are no recordings; FPU_VM_ENTRIES
// lists those to take, -run 'TestRecordingsVM/haswell' takes one machine. Results are in
// out/vm-matrix-level.tsv, and put into the table in docs/LEVEL.md.
//
// # What programs are started with
//
// TestTunablesVM starts programs with the environment that fpuimg profile
// --format=tunables prints for two machines, and the same without. Dumped on the one, the
// first live on the other, and the second die there. The table is
// out/vm-matrix-tunables.tsv.
//
// # The CRIU of the guests
//
// The guests have the host's CRIU, and fpuimg predicts that release (check --criu).
//
// TestReleasesVM is a matrix of releases besides: each CRIU dumps the programs, and each
// restores what all of them dumped. Those of bookworm (3.17.1) and trixie (4.1.1) must be
// there; with FPU_VM_ALL=1 those of sid and experimental are too, where they answer, and
// every machine restores. FPU_VM_CRIU lists further
// programs, built from source by whoever wants to know of another release.
// The table is out/vm-matrix-criu.tsv. What no release of Debian's since 3.17 dumps in an
// old form is made: a pagemap as CRIU writes it from 4.2 on, which older ones refuse.
//
// # Containers
//
// TestPodmanVM asks the same of podman: it exports containers on one machine, in
// archives of unlike compression, fpuimg converts these, and podman imports them on
// another. A container with a libc is levelled where it was dumped, by the root file
// system that podman mounts of its image. Here fpuimg knows the other machine by its
// level alone, x86-64-v2 or x86-64-v3. Podman also builds the image of "make image" and
// runs fpuimg in it.
//
// # The tests of fpurestore
//
// TestRestoreVM runs the tests of fpurestore and of its tracer, compiled, in two
// guests: one with protection keys, one without XSAVE. Both run 32-bit programs and
// have Yama, which not every machine does that people develop on. What passes and
// what skips there, and why, is in tables; anything else fails.
//
// Like all tests that boot guests these need FPU_VM=1; "make vmtest" sees to the rest.
package vmtest
