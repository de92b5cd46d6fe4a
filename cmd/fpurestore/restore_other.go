//go:build !(linux && amd64)

package main

import (
	"fmt"
	"runtime"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

// live says that there is nothing here to restore into.
func live(s *cli.IO, o *options) (cli.Exit, error) {
	s.Errorf("%v", fmt.Errorf("needs linux/amd64, this is %s/%s", runtime.GOOS, runtime.GOARCH))
	s.Hint("fpuimg converts and checks images on any machine")
	return cli.Unchanged, nil
}
