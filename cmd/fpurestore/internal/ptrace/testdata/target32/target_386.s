#include "textflag.h"

// func hold(b *block)
TEXT ·hold(SB), NOSPLIT, $0-4
	MOVL b+0(FP), DI
	CMPL 12(DI), $0
	JEQ fxrstor
	MOVL 12(DI), AX
	XORL DX, DX
	XRSTOR 4096(DI)
	JMP loaded
fxrstor:
	FXRSTOR 4096(DI)
loaded:
	MOVL $1, 8(DI)
loop:
	MOVL 0(DI), CX
	CMPL CX, 4(DI)
	JEQ same
	CMPL 12(DI), $0
	JEQ fxsave
	MOVL 12(DI), AX
	XORL DX, DX
	XSAVE 20480(DI)
	JMP saved
fxsave:
	FXSAVE 20480(DI)
saved:
	MOVL CX, 4(DI)
same:
	PAUSE
	JMP loop

// func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL subleaf+4(FP), CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL BX, ebx+12(FP)
	MOVL CX, ecx+16(FP)
	MOVL DX, edx+20(FP)
	RET

// func xgetbv() uint32
TEXT ·xgetbv(SB), NOSPLIT, $0-4
	XORL CX, CX
	XGETBV
	MOVL AX, ret+0(FP)
	RET
