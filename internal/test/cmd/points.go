package testcmd

import (
	"iter"
	"os"
)

// pointsVar has the tests try all points, as make test does.
const pointsVar = "FPU_POINTS"

// Points gives those of the points 1 to n, at each of which a test would cut a program off,
// that it is to try: every fourth, from another one for each turn, or all of them with
// FPU_POINTS=all.
func Points(n, turn int) iter.Seq[int] {
	first, step := 1+turn%4, 4
	if os.Getenv(pointsVar) == "all" {
		first, step = 1, 1
	}
	return func(yield func(int) bool) {
		for i := first; i <= n && yield(i); i += step {
		}
	}
}
