package ahead_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/internal/ahead"
)

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// TestOrder takes all results, and then fewer and fewer: they come in order, each worker
// serves one goroutine, and no goroutine outlives the walk.
func TestOrder(t *testing.T) {
	const n = 200
	for _, workers := range []int{0, 1, 2, 8} {
		for _, take := range []int{n, 50, 1, 0} {
			var working, most, made atomic.Int32
			var got []int
			walk := ahead.Map(workers, slices.Values(numbers(n)), func() func(int) int {
				made.Add(1)
				calls := 0 // the race detector tells if two goroutines count
				return func(i int) int {
					calls++
					most.Store(max(most.Load(), working.Add(1)))
					defer working.Add(-1)
					if i%7 == 0 {
						time.Sleep(time.Millisecond)
					}
					return i * i
				}
			})
			if take > 0 {
				for r := range walk {
					if got = append(got, r); len(got) == take {
						break
					}
				}
			}
			for i, r := range got {
				if r != i*i {
					t.Fatalf("%d workers: result %d is %d", workers, i, r)
				}
			}
			if len(got) != take {
				t.Errorf("%d workers: %d results, want %d", workers, len(got), take)
			}
			if limit := int32(max(workers, 1)); working.Load() != 0 || most.Load() > limit || made.Load() > limit {
				t.Errorf("%d workers: %d made, %d at once, %d still at work", workers, made.Load(), most.Load(), working.Load())
			}
		}
	}
}
