package cpuid

import (
	"errors"
	"fmt"
)

// UnsupportedError says that the machine that the program runs on cannot be asked.
// It is [errors.ErrUnsupported].
type UnsupportedError struct{ GOOS, GOARCH string }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the CPU can be probed on linux/amd64 only, not on %s/%s", e.GOOS, e.GOARCH)
}

func (e *UnsupportedError) Unwrap() error { return errors.ErrUnsupported }
