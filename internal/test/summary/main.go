// Summary reads what "go test -json" writes, prints what "go test" would, and then how
// many tests were skipped, and why. Its exit code is 1 if a test or a build failed, and if
// there is a line that is no event: so a caller can tell that go test ended badly.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() { os.Exit(run(os.Stdin, os.Stdout)) }

// event is one line (cmd/test2json; go help buildjson).
type event struct {
	Action, ImportPath, Package, Test, Output string
}

// reason is the line that a call of Skip leaves: file:line: why.
var reason = regexp.MustCompile(`(?m)^\s+[\w.]+:\d+: (.*)$`)

func run(in io.Reader, out io.Writer) (code int) {
	said := map[[2]string]string{} // by package and test, until it has passed
	skips := map[string][]string{}
	tests, skipped := 0, 0
	for r := bufio.NewReader(in); ; {
		line, err := r.ReadBytes('\n')
		if err != nil && len(line) == 0 {
			break
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			fmt.Fprintf(out, "%s", line)
			code = 1
			continue
		}
		key := [2]string{e.Package, e.Test}
		switch e.Action {
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "build-fail":
			code = 1
		case "output":
			if !strings.HasPrefix(e.Output, "=== ") {
				said[key] += e.Output
			}
		case "pass", "skip", "fail":
			if e.Test == "" {
				code = max(code, ended(out, said, e))
				continue
			}
			if tests++; e.Action == "skip" {
				skipped++
				why := "it did not say why"
				if m := reason.FindStringSubmatch(said[key]); m != nil {
					why = m[1]
				}
				skips[why] = append(skips[why], e.Package[strings.LastIndexByte(e.Package, '/')+1:]+" "+e.Test)
			}
			if e.Action != "fail" {
				delete(said, key)
			}
		}
	}
	fmt.Fprintf(out, "%d of %d tests were skipped\n", skipped, tests)
	for _, why := range slices.Sorted(maps.Keys(skips)) {
		fmt.Fprintf(out, "%4d  %s: %s\n", len(skips[why]), why, strings.Join(skips[why], ", "))
	}
	return code
}

// ended prints what is left of a package: all that failed tests wrote, or one that came to
// no end, and its last line. It returns the exit code.
func ended(out io.Writer, said map[[2]string]string, e event) int {
	var names []string
	for key := range said {
		if key[0] == e.Package && key[1] != "" {
			names = append(names, key[1])
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprint(out, said[[2]string{e.Package, name}])
		delete(said, [2]string{e.Package, name})
	}
	own := [2]string{e.Package, ""}
	fmt.Fprint(out, strings.TrimPrefix(said[own], "PASS\n"))
	delete(said, own)
	if e.Action == "fail" {
		return 1
	}
	return 0
}
