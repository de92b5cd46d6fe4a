//go:build !linux

package codec

import "golang.org/x/sys/unix"

// readNow reads from the start of a file.
func readNow(fd int, b []byte) (int, error) { return unix.Pread(fd, b, 0) }

func willNeed(int, int64) {}
