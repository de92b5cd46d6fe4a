package convert_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	"github.com/fpuimg/fpuimg/internal/test/sysfault"
)

// editing has this program, run as a child, edit the checkpoint ckpt.
const editing = "FPUIMG_TEST_EDITING"

func TestMain(m *testing.M) {
	if how := os.Getenv(editing); how != "" {
		if err := editCheckpoint(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fewEdits are at both ends of pages, and in between.
var fewEdits = []convert.Edit{editOf(0, 8), editOf(128<<10-3, 8), editOf(len(pages)-9, 9)}

func editCheckpoint(how string) error {
	if _, err := convert.Recover("ckpt"); err != nil {
		return err
	}
	b, err := os.ReadFile("ckpt/pages-9.img")
	if err != nil || b[0] != pages[0] {
		return err // a second run has nothing to do
	}
	c, err := checkpoint.Open("ckpt")
	if err != nil {
		return err
	}
	p, err := convert.NewPlan(c, forced(xstate.FormatFXSave))
	if err == nil {
		err = p.Edit("pages-9.img", fewEdits...)
	}
	if err != nil {
		return err
	}
	if how == "in place" {
		return p.InPlace()
	}
	return p.WriteDir("out", convert.DirOptions{})
}

// TestEditAllOrNothing kills edits before every one of their changes to the file system,
// and lets every one fail: what is left is the old checkpoint, the new one, or one that
// the next run completes.
func TestEditAllOrNothing(t *testing.T) {
	for _, how := range []string{"directory", "in place"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			newWork := func() string {
				work := scratch(t)
				ckpt := filepath.Join(work, "ckpt")
				must(t, os.Mkdir(ckpt, 0o755))
				for _, name := range []string{"core-20600.img", "pstree.img"} {
					must(t, os.WriteFile(filepath.Join(ckpt, name), testimg.Read(t, "h-sse", name), 0o600))
				}
				must(t, os.WriteFile(filepath.Join(ckpt, "pages-9.img"), pages, 0o640))
				return work
			}
			program := func(work string) *exec.Cmd {
				cmd := exec.Command(os.Args[0])
				// With the race detector it would sleep for a second at its end.
				cmd.Dir, cmd.Env = work, append(os.Environ(), "GORACE=atexit_sleep_ms=0", editing+"="+how)
				return cmd
			}
			work := newWork()
			old := contents(t, work)
			res, err := sysfault.Trace(t.Context(), program(work), sysfault.Options{Under: work})
			if err != nil || res.ExitCode != 0 {
				t.Fatalf("exit status %d, %v: %s", res.ExitCode, err, res.Stderr)
			}
			done := contents(t, work)
			tried := 0
			for turn, action := range []sysfault.Action{{Kill: true}, {Errno: unix.ENOSPC}} {
				for n := range testcmd.Points(len(res.Calls), turn) {
					tried++
					work := newWork()
					res, err := sysfault.Run(t.Context(), program(work), sysfault.Options{Under: work}, func(c sysfault.Call) sysfault.Action {
						if c.N == n {
							return action
						}
						return sysfault.Action{}
					})
					must(t, err)
					left := contents(t, work)
					_, interrupted := left["ckpt/"+codec.RedoName]
					maps.DeleteFunc(left, func(name, _ string) bool {
						return action.Kill && (strings.Contains(name, ".fpuimg-stage") || strings.Contains(name, ".fpuimg-new"))
					})
					if !interrupted && !maps.Equal(left, old) && !maps.Equal(left, done) {
						t.Fatalf("%+v at %v: neither old nor new: %v", action, res.Hit, slices.Sorted(maps.Keys(left)))
					}
					if err := program(work).Run(); err != nil && !maps.Equal(left, done) { // the output is there
						if exit, ok := errors.AsType[*exec.ExitError](err); ok {
							t.Fatalf("%+v at %v: the next run: %v: %s", action, res.Hit, err, exit.Stderr)
						}
						t.Fatal(err)
					}
					if again := contents(t, work); !maps.Equal(again, done) {
						t.Fatalf("%+v at %v: after the next run: %v, want %v", action, res.Hit, slices.Sorted(maps.Keys(again)), slices.Sorted(maps.Keys(done)))
					}
					os.RemoveAll(work)
				}
			}
			t.Logf("%d calls, killed or failed at %d", len(res.Calls), tried)
		})
	}
}
