package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protowire"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

func TestMain(m *testing.M) {
	testcmd.Main(m, map[string]func(){"fpuimg": main})
}

func TestScript(t *testing.T) {
	testcmd.Script(t, map[string]func(*testscript.TestScript, bool, []string){"image": imageCmd, "zombie": zombieCmd}, nil)
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

	// task_state dead, exit_code, personality, flags, blk_sigset
	tc := field(field(field(field(field(nil, 1, 2), 2, 0), 3, 0), 4, 0), 5, 0)
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
