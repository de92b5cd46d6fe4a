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
	MOVL $2000, R15 // the rest of this turn is others'
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
	MOVL $2000, R15
same:
	CMPQ Control_NR(R12), $const_Yield
	JEQ yield
	CMPQ Control_NR(R12), $const_Spin
	JEQ spin
	CMPQ Control_NR(R12), $const_Hog
	JEQ loop
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
	PAUSE
	INCL R15
	CMPL R15, $2000
	JLT loop
	XORL R15, R15
yield:
	MOVL $24, AX // sched_yield
	SYSCALL
	JMP loop

	// Starts the children that there are not, and so on.
churn:
	MOVQ $1, Control_Ready(R12)
round:
	MOVQ Control_Child(R12), R13
another:
	TESTQ R13, R13
	JEQ reap
	CMPL Control_CTID(R13), $0
	JNE there
	CALL clone<>(SB)
	TESTQ AX, AX
	JEQ isChild
	JMI fail
	INCQ Control_Returns(R12)
there:
	MOVQ Control_Next(R13), R13
	JMP another
reap:
	MOVL $61, AX // wait4(-1, 0, __WALL|WNOHANG, 0)
	MOVQ $-1, DI
	XORL SI, SI
	MOVL $0x40000001, DX
	XORL R10, R10
	SYSCALL
	TESTQ AX, AX
	JGT reap
	MOVL $24, AX
	SYSCALL
	JMP round

end:
	XORL DI, DI
	MOVL $60, AX
	SYSCALL
fail:
	INT $3

// The handler has no stack, and no registers but these.
TEXT handler<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ Control_Head(R12), AX
	LOCK
	INCQ Head_Counts(AX)(DI*8)
	RET

TEXT restorer<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT $3

// func handlerPC() uintptr
TEXT ·handlerPC(SB), NOSPLIT, $0-8
	LEAQ handler<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func restorerPC() uintptr
TEXT ·restorerPC(SB), NOSPLIT, $0-8
	LEAQ restorer<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
