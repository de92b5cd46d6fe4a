#include "textflag.h"

// noteSignal is the handler: it writes the signal's number into the pipe. What the CPU
// raised, an error of this program, it leaves to Go. The kernel calls it as C, on the stack
// for signals, and gives all registers back.
TEXT noteSignal<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVL $0x800009b0, AX // 1<<SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS
	BTL  DI, AX
	JCC  note
	CMPL 8(SI), $0 // si_code: that of a signal from a process is not above 0
	JGT  raised

note:
	MOVB DI, -8(SP)
	MOVL $1, AX // write
	MOVL ·noted(SB), DI
	LEAQ -8(SP), SI
	MOVL $1, DX
	SYSCALL
	RET

raised:
	MOVQ ·goHandler(SB), AX
	JMP  AX

// func noteSignalPC() uint64
TEXT ·noteSignalPC(SB), NOSPLIT, $0-8
	LEAQ noteSignal<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
