package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// ParseFlags reads a command line; help is where to read on: "fpuimg show --help".
// The error is [pflag.ErrHelp] or a [*UsageError].
func ParseFlags(fs *pflag.FlagSet, args []string, help string) error {
	err := fs.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case err != nil:
		return flagError(fs, err, help)
	}
	// No option means anything by nothing. A variable that a script forgot to set
	// would do what is done without the option.
	fs.Visit(func(f *pflag.Flag) {
		if v := f.Value.String(); v == "" || v == "[]" {
			value, _ := pflag.UnquoteUsage(f)
			err = &UsageError{Err: fmt.Errorf("--%s has an empty value", f.Name), Hint: fmt.Sprintf("--%s=%s, or leave it out", f.Name, strings.ToUpper(value))}
		}
	})
	return err
}

// flagError returns what is wrong with a command line, by the error of
// [pflag.FlagSet.Parse].
func flagError(fs *pflag.FlagSet, err error, help string) error {
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
		if near := Nearest(name, names); near != "" {
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
