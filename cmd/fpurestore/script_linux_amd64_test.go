package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// TestScript runs testdata/script. $IMAGES is testdata/images of the module, and
// "target N" starts a process of N threads: $PID, $TID1 and so on, with the images
// of other registers in the directory ckpt.
func TestScript(t *testing.T) {
	thisCPU(t)
	testcmd.Script(t, map[string]func(*testscript.TestScript, bool, []string){
		// target N
		"target": func(ts *testscript.TestScript, neg bool, args []string) {
			n, err := strconv.Atoi(args[0])
			ts.Check(err)
			g := startTarget(t, targetConfig{threads: n})
			for !slices.IsSorted(g.tids()) { // numbers have begun anew, and what is printed goes by them
				g = startTarget(t, targetConfig{threads: n})
			}
			ts.Defer(g.End)
			ts.Setenv("PID", fmt.Sprint(g.pid))
			for i, tid := range g.tids() {
				ts.Setenv(fmt.Sprintf("TID%d", i), fmt.Sprint(tid))
			}
			ts.Check(os.CopyFS(ts.MkAbs("ckpt"), os.DirFS(g.images(g.others(1, xstate.Legacy), same))))
		},
		// numbers FILE: replaces the numbers of the target by their names.
		"numbers": func(ts *testscript.TestScript, neg bool, args []string) {
			text := ts.ReadFile(args[0])
			for _, name := range []string{"TID2", "TID1", "PID"} {
				if v := ts.Getenv(name); v != "" {
					text = regexp.MustCompile(`\b`+v+`\b`).ReplaceAllString(text, name)
				}
			}
			text = regexp.MustCompile(`(\S) {2,}`).ReplaceAllString(text, "$1  ") // columns
			ts.Check(os.WriteFile(ts.MkAbs("named"), []byte(text), 0o666))
		},
	}, func(cond string) (bool, error) {
		if cond == "xsave" {
			return *thisCPU(t).XSave, nil
		}
		f, ok := xstate.ParseFeature(cond)
		if !ok {
			return false, fmt.Errorf("no component %q", cond)
		}
		return components(t).Has(f), nil
	})
}
