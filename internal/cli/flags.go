package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"
)

// FlagError returns what is wrong with a command line as a [*UsageError]. The err
// is that of [pflag.FlagSet.Parse], and help is where to read on: "fpuimg show
// --help".
func FlagError(fs *pflag.FlagSet, err error, help string) error {
	out := &UsageError{Err: err, Hint: help}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name := unknown.GetSpecifiedName()
		if short := unknown.GetSpecifiedShortnames(); short != "" { // -json
			name = short
		}
		var names []string
		fs.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near := nearest(name, names); near != "" {
			out.Hint = "did you mean --" + near + "? " + help + " lists the options"
		}
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		var usage *UsageError
		var number *strconv.NumError
		switch {
		case errors.As(err, &usage):
			out = usage
		case invalid.GetFlag().Value.Type() == "duration":
			out.Hint = "a duration has a unit: --" + invalid.GetFlag().Name + "=" + invalid.GetFlag().DefValue
		case errors.As(err, &number):
			out.Err = fmt.Errorf("--%s=%s: %q is not a number", invalid.GetFlag().Name, invalid.GetValue(), number.Num)
			if errors.Is(number, strconv.ErrRange) {
				out.Err = fmt.Errorf("--%s=%s: out of range", invalid.GetFlag().Name, invalid.GetValue())
			}
		}
	}
	return out
}
