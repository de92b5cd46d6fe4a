package codec_test

import (
	"errors"
	"fmt"

	"github.com/fpuimg/fpuimg/codec"
)

// What malformed bytes say.
func ExampleFormatError() {
	_, err := codec.ParseCore("core-7.img", []byte("not an image"))
	if format, ok := errors.AsType[*codec.FormatError](err); ok {
		fmt.Printf("%s, offset %d: %s\n", format.Path, format.Offset, format.Field)
	}
	// Output:
	// core-7.img, offset 0: magic
}
