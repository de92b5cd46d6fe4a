package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// TestStart holds what each package does before main: tables are made and expressions
// compiled by those that need them, since a start is most of what a small run costs.
func TestStart(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// As in: init github.com/fpuimg/fpuimg/codec @10 ms, 0.093 ms clock, 4272 bytes, 13 allocs
	inits := regexp.MustCompile(`(?m)^init `+module+`((?:codec|convert|cmd)\S*) .* (\d+) allocs$`).FindAllStringSubmatch(string(out), -1)
	if len(inits) == 0 {
		t.Fatalf("no package of ours in\n%s", out)
	}
	for _, m := range inits {
		if n, _ := strconv.Atoi(m[2]); n > 500 {
			t.Errorf("%s makes %d allocations at the start", m[1], n)
		}
	}
}
