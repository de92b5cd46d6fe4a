package codec

import (
	"errors"
	"fmt"
	"io/fs"
)

// FormatError is an image file with bytes that cannot be what they should be.
type FormatError struct {
	Path   string // the file, as it was named
	Offset int64  // byte in the file
	Field  string // "size", "fpregs.cwd", ...
	Err    error  // what is wrong
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: offset %#x: %s: %v", e.Path, e.Offset, e.Field, e.Err)
}

func (e *FormatError) Unwrap() error { return e.Err }

// ErrMagic is a file that does not begin as the kind of image that is read.
var ErrMagic = errors.New("not the magic number of such an image")

// MagicError is an image of another kind than the one that is read, or no image. It is
// an [ErrMagic].
type MagicError struct{ Magic, Want uint32 }

// Is makes it an ErrMagic.
func (e *MagicError) Is(target error) bool { return target == ErrMagic }

// Kind is the kind of image that has the magic number, as its file is named: "mm"; "" if
// none has.
func (e *MagicError) Kind() string { return magicNames[e.Magic] }

func (e *MagicError) Error() string {
	kind := "unknown magic"
	if n := e.Kind(); n != "" {
		kind = "magic of a " + n + " image"
	}
	return fmt.Sprintf("%s, %#08x; want %#08x of a %s image", kind, e.Magic, e.Want, magicNames[e.Want])
}

// ArchError is a core image of a machine that is not x86.
type ArchError struct{ Arch string }

func (e *ArchError) Error() string {
	return fmt.Sprintf("core image of architecture %s, not x86", e.Arch)
}

// MissingError is a file that is not there though it should be.
type MissingError struct {
	Path   string
	Reason string // why it should be, or what follows
}

func (e *MissingError) Error() string { return fmt.Sprintf("%s: missing: %s", e.Path, e.Reason) }

func (e *MissingError) Unwrap() error { return fs.ErrNotExist }

// RedoName is the file that marks a checkpoint which a conversion in place was
// changing when it was cut off.
const RedoName = ".fpuimg-redo"

// InterruptedError is a checkpoint that a conversion in place was changing when it
// was cut off: some of its files are new and some old.
type InterruptedError struct{ Dir string }

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("%s: a conversion of this checkpoint was interrupted", e.Dir)
}

// MoreError stands for the faults that [AppendFault] has counted only.
type MoreError struct{ N int }

func (e *MoreError) Error() string { return fmt.Sprintf("and %d more", e.N) }

// MaxFaults is how many faults AppendFault keeps.
const MaxFaults = 10

// AppendFault appends to a list of faults, of which a damaged checkpoint may have one
// for each thread. Those after the tenth are counted in a last [*MoreError].
func AppendFault(list []error, faults ...error) []error {
	for _, err := range faults {
		more, counted := errors.AsType[*MoreError](err)
		switch {
		case len(list) < MaxFaults && !counted:
			list = append(list, err)
			continue
		case !counted:
			more = &MoreError{1}
		}
		if n := len(list); n > 0 {
			if last, ok := errors.AsType[*MoreError](list[n-1]); ok {
				more, list = &MoreError{last.N + more.N}, list[:n-1:n-1]
			}
		}
		list = append(list, more)
	}
	return list
}

var (
	errMissing = errors.New("required field is missing")
	errThread  = errors.New("no thread_info, and the task is not dead")
)
