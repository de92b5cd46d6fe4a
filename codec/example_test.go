package codec_test

import (
	"errors"
	"fmt"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// The threads of a checkpoint that use AVX-512.
func ExampleOpen() {
	ckpt, err := codec.Open("../testdata/images/h-avx512")
	if err != nil {
		fmt.Println(err)
		return
	}
	for th, err := range ckpt.Threads() {
		if err != nil { // of this thread alone
			fmt.Println(err)
			continue
		}
		used := th.Core.State.With(xstate.InUse)
		fmt.Println(th.TID, th.Core.Comm, used&xstate.AVX512)
	}
	// Output:
	// 20000 fpat opmask|ZMM_Hi256|Hi16_ZMM
}

// What malformed bytes say.
func ExampleFormatError() {
	_, err := codec.ParseCore("core-7.img", []byte("not an image"))
	if format, ok := errors.AsType[*codec.FormatError](err); ok {
		fmt.Printf("%s, offset %d: %s\n", format.Path, format.Offset, format.Field)
	}
	// Output:
	// core-7.img, offset 0: magic
}
