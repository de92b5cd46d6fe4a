//go:build !(linux && amd64)

package cpuid

import (
	"runtime"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Host returns the machine that the program runs on, where that is possible. The
// error is an [*UnsupportedError]: this one is not linux/amd64.
func Host() (*xstate.CPU, error) {
	return nil, &UnsupportedError{runtime.GOOS, runtime.GOARCH}
}
