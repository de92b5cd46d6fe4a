//go:build !unix

package main

import "io/fs"

func setUID() bool { return false }

func isOwn(fs.FileInfo) bool { return true }
