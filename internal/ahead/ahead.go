// Package ahead does work ahead of who takes its results, on several goroutines.
package ahead

import (
	"iter"
	"sync"
)

// Map yields what workers make of the elements, in the order of the elements. Up to n
// workers are at work at once, and as many results wait. worker makes one of them, which
// serves one goroutine. With n below 2 no goroutine is started.
func Map[T, R any](n int, elements iter.Seq[T], worker func() func(T) R) iter.Seq[R] {
	return func(yield func(R) bool) {
		if n < 2 {
			work := worker()
			for e := range elements {
				if !yield(work(e)) {
					return
				}
			}
			return
		}
		type job struct {
			element T
			result  chan R
		}
		jobs, results, stop := make(chan job), make(chan chan R, n), make(chan struct{})
		var all sync.WaitGroup
		defer all.Wait()
		defer close(stop)
		for range n {
			all.Go(func() {
				work := worker()
				for j := range jobs {
					j.result <- work(j.element)
				}
			})
		}
		all.Go(func() {
			defer close(results)
			defer close(jobs)
			for e := range elements {
				j := job{e, make(chan R, 1)}
				select {
				case results <- j.result:
				case <-stop:
					return
				}
				jobs <- j // a worker takes it: none waits for anything but jobs
			}
		})
		for result := range results {
			if !yield(<-result) {
				return
			}
		}
	}
}
