package xstate_test

import (
	"fmt"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// A thread that has used one YMM register.
func ExampleState() {
	s := xstate.NewState(xstate.FormatXSave)
	s.BV |= xstate.AVX.Mask()
	ymm := make([]byte, xstate.AVX.Component().Size)
	ymm[3*16] = 0x2a // the upper half of YMM3, little endian
	s.SetData(xstate.AVX, ymm)

	for f, status := range s.Present() {
		fmt.Println(f, status, s.Used(f))
	}
	// Output:
	// x87 init []
	// SSE init []
	// AVX in-use [ymm3]
}

func ExampleFeatures() {
	set := xstate.Legacy | xstate.AVX.Mask() | 1<<40
	fmt.Println(set)
	for f := range set.All() {
		fmt.Print(f, "; ")
	}
	// Output:
	// x87|SSE|AVX|0x10000000000
	// x87; SSE; AVX; bit 40;
}

func ExampleComponent_Registers() {
	for _, r := range xstate.BNDCSR.Component().Registers() {
		fmt.Println(r.Name, r.Off, r.Size)
	}
	// Output:
	// bndcfgu 0 8
	// bndstatus 8 8
}
