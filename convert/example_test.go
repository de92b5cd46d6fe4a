package convert_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// Convert a checkpoint to legacy records, although registers are lost, and say which.
func ExampleNewPlan() {
	ckpt, err := checkpoint.Open("../testdata/images/h-avx")
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, err := convert.NewPlan(ckpt, convert.Options{
		Target: compat.Target{Format: new(xstate.FormatFXSave)},
		Policy: compat.Policy{Force: true},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plan.Verdict, compat.LostNames(plan.Threads))

	tmp, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "h-avx.fxsave")
	if err := plan.WriteDir(out, convert.DirOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	converted, err := checkpoint.Open(out)
	if err != nil {
		fmt.Println(err)
		return
	}
	for th := range converted.Threads() {
		fmt.Println(th.TID, th.State.Format)
	}
	// Output:
	// downgrade-lossy [ymm0-ymm15]
	// 20300 fxsave
}
