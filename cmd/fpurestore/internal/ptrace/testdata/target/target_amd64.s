#include "textflag.h"

// The signal handler of the threads: no stack, no registers but these.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0-0
	LEAQ ·counts(SB), AX
	LOCK
	INCQ (AX)(DI*8)
	RET

TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0-0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT $3

// func handlerPC() uintptr
TEXT ·handlerPC(SB), NOSPLIT, $0-8
	LEAQ ·handler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func restorerPC() uintptr
TEXT ·restorerPC(SB), NOSPLIT, $0-8
	LEAQ ·restorer(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func cloneThread(flags uintptr, stack unsafe.Pointer, ctid *uint32, b *block) int
TEXT ·cloneThread(SB), NOSPLIT, $0-40
	MOVQ flags+0(FP), DI
	ORQ $0x1200000, DI // CHILD_SETTID CHILD_CLEARTID
	MOVQ stack+8(FP), SI
	XORL DX, DX
	MOVQ ctid+16(FP), R10
	MOVQ b+24(FP), R12
	XORL R8, R8
	MOVL $56, AX
	SYSCALL
	TESTQ AX, AX
	JEQ child
	MOVQ AX, ret+32(FP)
	RET
child:
	JMP ·body(SB)

// The life of a thread. R12 is its block, for the offsets see there.
TEXT ·body(SB), NOSPLIT|NOFRAME, $0-0
	CMPQ 128(R12), $0
	JEQ extended
	FXRSTOR64 4096(R12)
	JMP loaded
extended:
	CMPQ 40(R12), $0
	JEQ loaded
	MOVL 40(R12), AX
	MOVL 44(R12), DX
	XRSTOR64 4096(R12)
loaded:
	MOVQ $1, 32(R12)
yield:
	// There may be a thousand others: the rest of this turn is theirs.
	XORL R14, R14
	MOVL $24, AX // sched_yield
	SYSCALL
loop:
	MOVQ 0(R12), AX
	MOVQ (AX), R13
	CMPQ R13, 16(R12)
	JEQ same
	CMPQ 128(R12), $0
	JEQ save
	FXSAVE64 20480(R12)
	JMP saved
save:
	MOVL 40(R12), AX
	MOVL 44(R12), DX
	XSAVE64 20480(R12)
saved:
	MOVQ R13, 16(R12)
	JMP yield
same:
	MOVQ 8(R12), AX
	CMPQ (AX), $0
	JNE out
	CMPQ 48(R12), $-1
	JEQ spin
	CMPQ 48(R12), $-2
	JEQ loop
	MOVQ 48(R12), AX
	MOVQ 56(R12), DI
	MOVQ 64(R12), SI
	MOVQ 72(R12), DX
	MOVQ 80(R12), R10
	MOVQ 88(R12), R8
	MOVQ 96(R12), R9
	SYSCALL
	MOVQ AX, 104(R12)
	INCQ 112(R12)
	JMP loop
spin:
	PAUSE
	INCL R14
	CMPL R14, $2000
	JEQ yield
	JMP loop
out:
	MOVQ $1, 24(R12)
	XORL DI, DI
	MOVL $60, AX
	SYSCALL
	INT $3
