#include "textflag.h"

// A block; R12 is the thread's own.
#define global 0   // block 0: epoch 0, operation 8, futex word 16, no XSAVE 24
#define seen 8     // the last epoch that the thread has followed
#define ready 16
#define mask 24    // components to load and to save; 0: leave the registers alone
#define nr 32      // system call to make again and again; ^0: none
#define args 40
#define result 88  // its last result
#define returns 96
#define child 104  // blocks of threads and processes to start
#define next 112
#define flags 120  // of clone, for this block
#define ctid 128
#define tid 136    // as its creator sees it
#define mode 144   // 1: start the child again and again; 2: end
#define stack 168
#define area 4096
#define saved 20480

// func spawn(b unsafe.Pointer) int
TEXT ·spawn(SB), NOSPLIT, $0-16
	MOVQ b+0(FP), R13
	CALL clone<>(SB)
	TESTQ AX, AX
	JEQ started
	MOVQ AX, ret+8(FP)
	RET
started:
	MOVQ R13, R12
	JMP ·body(SB)

// Restore and save move the registers of thread R12, block 0 in R14.
TEXT restore<>(SB), NOSPLIT|NOFRAME, $0-0
	CMPQ 24(R14), $0
	JNE fx
	MOVL mask(R12), AX
	XORL DX, DX
	XRSTOR64 area(R12)
	RET
fx:
	FXRSTOR64 area(R12)
	RET

TEXT save<>(SB), NOSPLIT|NOFRAME, $0-0
	CMPQ 24(R14), $0
	JNE fx
	MOVL mask(R12), AX
	XORL DX, DX
	XSAVE64 saved(R12)
	RET
fx:
	FXSAVE64 saved(R12)
	RET

// Clone starts the thread or process of block R13.
TEXT clone<>(SB), NOSPLIT|NOFRAME, $0-0
	POPQ R15 // not on the new stack
	MOVQ flags(R13), DI
	ORQ $0x1300000, DI // PARENT_SETTID CHILD_CLEARTID CHILD_SETTID
	MOVQ stack(R13), SI
	LEAQ tid(R13), DX
	LEAQ ctid(R13), R10
	XORL R8, R8
	MOVL $56, AX
	SYSCALL
	JMP R15

TEXT ·body(SB), NOSPLIT|NOFRAME, $0-0
begin:
	CMPQ mode(R12), $2
	JEQ end
	TESTQ $0x10000, flags(R12)
	JNE thread
	MOVL $157, AX // prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVL $1, DI
	MOVL $9, SI
	SYSCALL
thread:
	CMPQ mode(R12), $1
	JEQ churn
	MOVQ child(R12), R13
start:
	TESTQ R13, R13
	JEQ load
	CALL clone<>(SB)
	TESTQ AX, AX
	JEQ isChild
	JMI fail
	MOVQ next(R13), R13
	JMP start
isChild:
	MOVQ R13, R12
	JMP begin
load:
	MOVQ global(R12), R14
	CMPQ mask(R12), $0
	JEQ loaded
	CALL restore<>(SB)
loaded:
	MOVQ $1, ready(R12)
loop:
	MOVQ (R14), R13
	CMPQ R13, seen(R12)
	JEQ same
	CMPQ 8(R14), $1
	JEQ again
	CALL save<>(SB)
	JMP followed
again:
	CALL restore<>(SB)
followed:
	MOVQ R13, seen(R12)
same:
	CMPQ nr(R12), $-1
	JEQ spin
	MOVQ nr(R12), AX
	MOVQ args+0(R12), DI
	MOVQ args+8(R12), SI
	MOVQ args+16(R12), DX
	MOVQ args+24(R12), R10
	MOVQ args+32(R12), R8
	MOVQ args+40(R12), R9
	SYSCALL
	MOVQ AX, result(R12)
	INCQ returns(R12)
	JMP loop
spin:
	MOVL $24, AX // sched_yield
	SYSCALL
	JMP loop

	// Starts the child, waits until it has ended, and so on.
churn:
	MOVQ $1, ready(R12)
	MOVQ child(R12), R13
another:
	CALL clone<>(SB)
	TESTQ AX, AX
	JEQ isChild
	JMI fail
	INCQ returns(R12)
wait:
	MOVL $24, AX
	SYSCALL
	CMPL ctid(R13), $0
	JNE wait
	JMP another

end:
	XORL DI, DI
	MOVL $60, AX
	SYSCALL
fail:
	INT $3
