// Package vmtest proves what fpuimg promises of checkpoints against CRIU itself,
// on a real kernel, in guests of unlike CPUs. It holds tests only: package guest
// boots the guests, package testprog has the programs in them.
//
// # The matrix
//
// TestMatrix boots a guest of each CPU model twice. In the first, CRIU
// checkpoints the test programs, and fpuimg and CRIU both describe the machine.
// On the host, the fpuimg program checks every checkpoint against every machine,
// and converts some. In the second, CRIU restores, with each value of --cpu-cap,
// what was dumped elsewhere, and the programs say what became of their registers.
//
// Each such restore is a row of the table out/vm-matrix.tsv (FPU_VM_TABLE names
// another file): what fpuimg check predicted and what happened. They agree in
// every row, or the test fails. A prediction is exact:
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
// Like all tests that boot guests it needs FPU_VM=1; "make vmtest" sees to the
// rest.
package vmtest
