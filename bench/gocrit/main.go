// Gocrit decodes every core image of the directories that it is given, with the crit
// library of go-criu.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v8/crit"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
)

func main() {
	for _, dir := range os.Args[1:] {
		paths, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
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
