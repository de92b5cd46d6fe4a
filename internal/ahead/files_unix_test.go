//go:build unix

package ahead_test

import (
	"syscall"
	"testing"

	"github.com/fpuimg/fpuimg/internal/ahead"
)

// TestWorkers: one worker where few files may be open, and all that are asked for where
// many may.
func TestWorkers(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	for _, tt := range []struct {
		limit          uint64
		n, files, want int
	}{
		{8, 8, 1, 1}, {32, 8, 1, 1}, {36, 8, 1, 4}, {64, 8, 1, 8}, {64, 8, 16, 2}, {64, 0, 16, 1}, {256, 8, 16, 8},
	} {
		limit := before
		limit.Cur = tt.limit
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if got := ahead.Workers(tt.n, tt.files); got != tt.want {
			t.Errorf("limit %d: %d of %d workers with %d files, want %d", tt.limit, got, tt.n, tt.files, tt.want)
		}
	}
}
