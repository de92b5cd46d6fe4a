// Package testtarget is what the tests of fpurestore and of package ptrace restore into,
// processes of nothing but
// assembly, whose threads hold the registers that the test gives them and report, by an
// XSAVE or FXSAVE instruction of their own, those that they hold. The program that is
// [Main] starts them, waits for the end of its standard input, and takes them along.
//
// The test and the threads talk through a file that both have mapped: block 0 is
// everybody's, each further one a thread's. The assembly has its offsets from the types.
package testtarget
