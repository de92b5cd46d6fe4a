//go:build unix

package main

import (
	"io/fs"
	"os"
	"syscall"
)

// setUID reports whether the program runs with another user's or group's rights
// than those of whoever started it.
func setUID() bool { return os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() }

// isOwn reports whether a file is this user's, and nobody else can write it.
func isOwn(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0
}
