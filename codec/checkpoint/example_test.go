package checkpoint_test

import (
	"fmt"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// The threads of a checkpoint that use AVX-512.
func ExampleOpen() {
	ckpt, err := checkpoint.Open("../../testdata/images/h-avx512")
	if err != nil {
		fmt.Println(err)
		return
	}
	for th, err := range ckpt.Threads() {
		if err != nil { // of this thread alone
			fmt.Println(err)
			continue
		}
		used := th.State.With(xstate.InUse)
		fmt.Println(th.TID, th.Comm, used&xstate.AVX512)
	}
	// Output:
	// 20000 fpat opmask|ZMM_Hi256|Hi16_ZMM
}
