package testcmd

import (
	"iter"
	"os"
)

// pointsVar has the tests try all points and cases, as make test does.
const pointsVar = "FPU_POINTS"

// all reports whether the environment asks for them.
var all = os.Getenv(pointsVar) == "all"

// Points gives those of the points 1 to n, at each of which a test would cut a program off,
// that it is to try: every fourth, from another one for each turn, or all of them with
// FPU_POINTS=all.
func Points(n, turn int) iter.Seq[int] {
	if all {
		return steps(1, n, 1)
	}
	return steps(1+turn%4, n, 4)
}

// Step is how far a test of one goroutine goes from case to case of very many: to every
// fifth, for what is aligned lies at even distances, or to the next with FPU_POINTS=all.
var Step = func() int {
	switch {
	case race:
		return 25 // the detector finds nothing there, and takes up to ten times as long
	case all:
		return 1
	}
	return 5
}()

// Cases gives those of the cases 0 to n-1 that a test of one goroutine is to try: each
// [Step]th, from another one for each turn.
func Cases(n, turn int) iter.Seq[int] { return steps(turn%Step, n-1, Step) }

// Rows returns those rows of a table that a test of one goroutine is to try: all, or every
// fifth with the race detector.
func Rows[T any](table []T) (rows []T) {
	for i, row := range table {
		if !race || i%5 == 0 {
			rows = append(rows, row)
		}
	}
	return rows
}

func steps(first, last, step int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := first; i <= last && yield(i); i += step {
		}
	}
}
