//go:build !linux

package main

import "os"

// renameNew renames within a directory, where nothing of the new name is.
func renameNew(dir *os.Root, from, to string) error { return renameIfNew(dir, from, to) }
