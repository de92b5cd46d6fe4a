package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fpuimg/fpuimg/internal/testimg"
)

var update = flag.Bool("update", false, "rewrite golden files, scripts and man pages")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fpuimg": main})
}

// TestScript runs testdata/script. $IMAGES is testdata/images of the module.
func TestScript(t *testing.T) {
	images := testimg.Path(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("IMAGES", images)
			env.Setenv("COLUMNS", "80")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exitsCmd,
			"image":  imageCmd,
			"zombie": zombieCmd,
		},
	})
}

// exitsCmd is "exits N command...": the command must end with exit code N.
func exitsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N command [argument]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}

// imageCmd is "image NAME DIR": it copies a checkpoint of testdata/images.
func imageCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: image NAME DIR")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(filepath.Join(ts.Getenv("IMAGES"), args[0]))))
}

// zombieCmd is "zombie DIR PID": it adds a dead task to the checkpoint as CRIU
// dumps one: a core image with a task state and no thread_info, and a pstree entry
// whose list of threads is rubbish.
func zombieCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: zombie DIR PID")
	}
	dir := ts.MkAbs(args[0])
	pid, err := strconv.ParseUint(args[1], 10, 32)
	ts.Check(err)

	tc := field(field(nil, 1, 2), 2, 0) // task_state dead, exit_code
	tc = protowire.AppendTag(tc, 6, protowire.BytesType)
	tc = protowire.AppendString(tc, "defunct")
	core := field(nil, 1, 1) // mtype x86_64
	core = protowire.AppendTag(core, 3, protowire.BytesType)
	core = protowire.AppendBytes(core, tc)
	file := []byte{0x19, 0x43, 0x56, 0x54, 0x47, 0x38, 0x05, 0x55}
	file = append(protowire.AppendFixed32(file, uint32(len(core))), core...)
	ts.Check(os.WriteFile(filepath.Join(dir, "core-"+args[1]+".img"), file, 0o666))

	task := field(field(field(field(nil, 1, pid), 2, 1), 3, pid), 4, pid)
	task = field(field(task, 5, 0xffffffff), 5, 12345)
	tree, err := os.OpenFile(filepath.Join(dir, "pstree.img"), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = tree.Write(append(protowire.AppendFixed32(nil, uint32(len(task))), task...))
	ts.Check(errors.Join(err, tree.Close()))
}

func field(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// golden compares got with a file; with -update it writes the file.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		gotLines, wantLines := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
		n := 0
		for n < min(len(gotLines), len(wantLines)) && slices.Equal(gotLines[n], wantLines[n]) {
			n++
		}
		t.Errorf("%s differs from line %d on (make golden rewrites it)\ngot:\n%s\nwant:\n%s", path, n+1,
			bytes.Join(gotLines[n:min(n+5, len(gotLines))], []byte("\n")),
			bytes.Join(wantLines[n:min(n+5, len(wantLines))], []byte("\n")))
	}
}

// capture runs the program in the directory of the real checkpoints, on 80
// columns.
func capture(t *testing.T, args ...string) (stdout, stderr []byte, code int) {
	t.Helper()
	t.Setenv("COLUMNS", "80")
	t.Chdir(testimg.Path(t))
	var out, errs bytes.Buffer
	code = run(args, nil, &out, &errs)
	return out.Bytes(), errs.Bytes(), code
}
