// Gocrit decodes the core images that it is given, and those of directories, with the
// crit library of go-criu.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v8/crit"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
)

func main() {
	for _, arg := range os.Args[1:] {
		paths, err := filepath.Glob(filepath.Join(arg, "core-*.img"))
		if len(paths) == 0 {
			paths = []string{arg}
		}
		for _, path := range paths {
			if err = decode(path); err != nil {
				break
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "gocrit:", err)
			os.Exit(1)
		}
	}
}

func decode(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = crit.New(f, nil, "", false, true).Decode(new(criu_core.CoreEntry))
	return err
}
