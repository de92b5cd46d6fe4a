//go:build unix

package ahead

import "syscall"

// Workers returns how many of n workers may be at work at once where each has so many
// files open, at least one. Half of the process's limit is left to others.
func Workers(n, files int) int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		n = int(min(uint64(n), uint64(limit.Cur)/2/uint64(files)))
	}
	return max(n, 1)
}
