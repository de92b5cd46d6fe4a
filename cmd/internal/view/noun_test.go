package view

import "testing"

func TestCount(t *testing.T) {
	for want, got := range map[string]string{"1 thread": Count(1, "thread"), "0 threads": Count(0, "thread"), "1 process": Count(1, "process"), "2 processes": Count(2, "process")} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
