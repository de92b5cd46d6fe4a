// Readall reads every file of the directories, and the files, that it is given, and
// does nothing with them: what any program has to pay.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	buf := make([]byte, 64<<10)
	for _, path := range os.Args[1:] {
		if err := read(path, buf); err != nil {
			fmt.Fprintln(os.Stderr, "readall:", err)
			os.Exit(1)
		}
	}
}

func read(path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		switch _, err := f.Read(buf); {
		case errors.Is(err, io.EOF):
			return nil
		case err == nil:
			continue
		}
		entries, err := f.ReadDir(-1)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := read(filepath.Join(path, e.Name()), buf); err != nil {
				return err
			}
		}
		return nil
	}
}
