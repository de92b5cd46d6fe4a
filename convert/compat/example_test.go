package compat_test

import (
	"fmt"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// A thread with a live YMM register does not fit a CPU without AVX.
func ExampleDecide() {
	s := xstate.NewState(xstate.FormatXSave)
	s.BV |= xstate.AVX.Mask()
	ymm := make([]byte, xstate.AVX.Component().Size)
	ymm[0] = 1
	s.SetData(xstate.AVX, ymm)

	old, _ := xstate.ByName("x86-64-v2")
	report := compat.Decide(s, compat.Target{Host: old}, compat.Policy{})
	fmt.Println(report.Verdict, "refused:", report.Refused, "lost:", compat.LossNames(report.Lost))

	forced := compat.Decide(s, compat.Target{Host: old}, compat.Policy{Force: true})
	fmt.Println("refused:", forced.Refused, "result:", forced.Apply(s).Format)
	// Output:
	// downgrade-lossy refused: true lost: [ymm0]
	// refused: false result: fxsave
}
