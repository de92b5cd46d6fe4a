package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const start = `{"Action":"start","Package":"m/p"}
{"Action":"run","Package":"m/p","Test":"TestA"}
{"Action":"output","Package":"m/p","Test":"TestA","Output":"=== RUN   TestA\n"}
`
	tests := []struct {
		name, events, want string
		code               int
	}{
		{"nothing", "", "0 of 0 tests were skipped\n", 0},
		{"passed", start + `{"Action":"output","Package":"m/p","Test":"TestA","Output":"    a_test.go:1: talk\n"}
{"Action":"pass","Package":"m/p","Test":"TestA"}
{"Action":"output","Package":"m/p","Output":"PASS\n"}
{"Action":"output","Package":"m/p","Output":"ok  \tm/p\t0.1s\n"}
{"Action":"pass","Package":"m/p"}
`, "ok  \tm/p\t0.1s\n0 of 1 tests were skipped\n", 0},
		{"skipped", start + `{"Action":"output","Package":"m/p","Test":"TestA","Output":"    a_test.go:1: no: such CPU\n"}
{"Action":"output","Package":"m/p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"m/p","Test":"TestA"}
{"Action":"run","Package":"m/p","Test":"TestB"}
{"Action":"skip","Package":"m/p","Test":"TestB"}
{"Action":"pass","Package":"m/p"}
`, "2 of 2 tests were skipped\n   1  it did not say why: p TestB\n   1  no: such CPU: p TestA\n", 0},
		{"failed", start + `{"Action":"output","Package":"m/p","Test":"TestA","Output":"    a_test.go:1: wrong\n"}
{"Action":"fail","Package":"m/p","Test":"TestA"}
{"Action":"output","Package":"m/p","Output":"FAIL\n"}
{"Action":"fail","Package":"m/p"}
`, "    a_test.go:1: wrong\nFAIL\n0 of 1 tests were skipped\n", 1},
		{"crashed", start + `{"Action":"output","Package":"m/p","Test":"TestA","Output":"panic: x\n"}
{"Action":"fail","Package":"m/p"}
`, "panic: x\n0 of 0 tests were skipped\n", 1},
		{"not built", `{"ImportPath":"m/p","Action":"build-output","Output":"p.go:1: no\n"}
{"ImportPath":"m/p","Action":"build-fail"}
`, "p.go:1: no\n0 of 0 tests were skipped\n", 1},
		{"go test ended badly", "go test: exit status 2\n", "go test: exit status 2\n0 of 0 tests were skipped\n", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if code := run(strings.NewReader(tt.events), &out); code != tt.code || out.String() != tt.want {
				t.Errorf("exit code %d, %q, want %d, %q", code, out.String(), tt.code, tt.want)
			}
		})
	}
}
