//go:build !race

package testcmd

// Step is how far a test of one goroutine goes from case to case of very many. The race
// detector finds nothing there, and takes up to ten times as long.
const Step = 1
