//go:build !unix

package ahead

// Workers returns n, at least one: these systems bound no process's files.
func Workers(n, files int) int { return max(n, 1) }
