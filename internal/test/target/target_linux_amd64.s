#include "textflag.h"
#include "go_asm.h"

// R12 is the thread's own block.

// func spawn(b *Block) int
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
	CMPQ Head_FX(R14), $0
	JNE fx
	MOVL Control_Mask(R12), AX
	XORL DX, DX
	XRSTOR64 Block_Area(R12)
	RET
fx:
	FXRSTOR64 Block_Area(R12)
	RET

TEXT save<>(SB), NOSPLIT|NOFRAME, $0-0
	CMPQ Head_FX(R14), $0
	JNE fx
	MOVL Control_Mask(R12), AX
	XORL DX, DX
	XSAVE64 Block_Saved(R12)
	RET
fx:
	FXSAVE64 Block_Saved(R12)
	RET

// Clone starts the thread or process of block R13.
TEXT clone<>(SB), NOSPLIT|NOFRAME, $0-0
	POPQ R15 // not on the new stack
	MOVQ Control_Flags(R13), DI
	ORQ $0x1300000, DI // PARENT_SETTID CHILD_CLEARTID CHILD_SETTID
	MOVQ Control_Stack(R13), SI
	LEAQ Control_TID(R13), DX
	LEAQ Control_CTID(R13), R10
	XORL R8, R8
	MOVL $56, AX
	SYSCALL
	JMP R15

TEXT ·body(SB), NOSPLIT|NOFRAME, $0-0
begin:
	CMPQ Control_Mode(R12), $const_ModeEnd
	JEQ end
	TESTQ $0x10000, Control_Flags(R12)
	JNE thread
	MOVL $157, AX // prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVL $1, DI
	MOVL $9, SI
	SYSCALL
thread:
	CMPQ Control_Mode(R12), $const_ModeChurn
	JEQ churn
	MOVQ Control_Child(R12), R13
start:
	TESTQ R13, R13
	JEQ load
	CALL clone<>(SB)
	TESTQ AX, AX
	JEQ isChild
	JMI fail
	MOVQ Control_Next(R13), R13
	JMP start
isChild:
	MOVQ R13, R12
	JMP begin
load:
	MOVQ Control_Head(R12), R14
	CMPQ Control_Mask(R12), $0
	JEQ loaded
	CALL restore<>(SB)
loaded:
	MOVQ $1, Control_Ready(R12)
loop:
	MOVQ Head_Epoch(R14), R13
	CMPQ R13, Control_Seen(R12)
	JEQ same
	CMPQ Head_Op(R14), $const_OpLoad
	JEQ again
	CALL save<>(SB)
	JMP followed
again:
	CALL restore<>(SB)
followed:
	MOVQ R13, Control_Seen(R12)
same:
	CMPQ Control_NR(R12), $-1
	JEQ spin
	MOVQ Control_NR(R12), AX
	MOVQ Control_Args+0(R12), DI
	MOVQ Control_Args+8(R12), SI
	MOVQ Control_Args+16(R12), DX
	MOVQ Control_Args+24(R12), R10
	MOVQ Control_Args+32(R12), R8
	MOVQ Control_Args+40(R12), R9
	SYSCALL
	MOVQ AX, Control_Result(R12)
	INCQ Control_Returns(R12)
	JMP loop
spin:
	MOVL $24, AX // sched_yield
	SYSCALL
	JMP loop

	// Starts the child, waits until it has ended, and so on.
churn:
	MOVQ $1, Control_Ready(R12)
	MOVQ Control_Child(R12), R13
another:
	CALL clone<>(SB)
	TESTQ AX, AX
	JEQ isChild
	JMI fail
	INCQ Control_Returns(R12)
wait:
	MOVL $24, AX
	SYSCALL
	CMPL Control_CTID(R13), $0
	JNE wait
	JMP another

end:
	XORL DI, DI
	MOVL $60, AX
	SYSCALL
fail:
	INT $3
