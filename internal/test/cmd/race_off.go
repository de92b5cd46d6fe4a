//go:build !race

package testcmd

// Race tells that the race detector is on. It finds nothing where there is one goroutine,
// and takes up to ten times as long.
const Race = false
