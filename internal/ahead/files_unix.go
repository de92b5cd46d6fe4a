//go:build unix

package ahead

import "syscall"

// others is how many files a program may have open besides those of workers.
const others = 32

// Workers returns how many of n workers may be at work at once where each has so many
// files open, by the process's limit; at least one.
func Workers(n, files int) int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		spare := max(uint64(limit.Cur), others) - others
		n = int(min(uint64(max(n, 0)), spare/uint64(files)))
	}
	return max(n, 1)
}
