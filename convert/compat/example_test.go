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

// A checkpoint of two threads, one of which CRIU would restore without its mask registers.
func ExampleJudge() {
	plain, wide := xstate.NewState(xstate.FormatXSave), xstate.NewState(xstate.FormatXSave)
	wide.BV |= xstate.Opmask.Mask()
	k := make([]byte, xstate.Opmask.Component().Size)
	k[8] = 1
	wide.SetData(xstate.Opmask, k)

	host, _ := xstate.ByName("x86-64-v3")
	j := compat.Judge(compat.Target{Host: host}, compat.Policy{})
	j.Thread(compat.Thread{TID: 1, State: plain})
	j.Thread(compat.Thread{TID: 2, State: wide})
	chief := j.Chief()
	fmt.Println(j.Verdict, chief.Rule, chief.Components)
	for _, r := range chief.Remedies {
		if r.Kind == compat.HostWith {
			fmt.Println("restore on a host with", r.Flags)
		}
	}
	fmt.Println("CRIU:", j.Predict(compat.CapDefault).Outcome)
	// Output:
	// downgrade-lossy component-missing [opmask]
	// restore on a host with [avx512f]
	// CRIU: restores-losing
}
