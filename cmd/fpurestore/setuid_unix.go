//go:build unix

package main

import "os"

// setUID reports whether the program runs with another user's or group's rights
// than those of whoever started it.
func setUID() bool { return os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() }
