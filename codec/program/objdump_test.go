package program

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/isa"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// objdump returns the length of each instruction of code, by its offset: 0 where none
// starts, or it is none.
func objdump(t *testing.T, code []byte) []uint8 {
	tool := testcmd.Tool(t, "objdump")
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "-D", "-z", "-w", "--insn-width=15", "-b", "binary", "-m", "i386:x86-64", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lengths := make([]uint8, len(code))
	in := bufio.NewScanner(out)
	for in.Scan() {
		addr, line, _ := strings.Cut(in.Text(), ":\t")
		bytes, text, found := strings.Cut(line, "\t")
		at, err := strconv.ParseUint(strings.TrimSpace(addr), 16, 32)
		if found && err == nil && !strings.Contains(text, "(bad)") {
			lengths[at] = uint8(len(strings.Fields(bytes)))
		}
	}
	if err := cmd.Wait(); err != nil || in.Err() != nil {
		t.Fatal(err, in.Err())
	}
	return lengths
}

// The instructions of this machine's libraries are as long as objdump has them, in all
// functions, or every [testcmd.Step]th. It joins FWAIT with what follows.
func TestLengthsByObjdump(t *testing.T) {
	paths := libraries(t)
	crypto, _ := filepath.Glob(filepath.Join(filepath.Dir(paths[0]), "libcrypto.so.*"))
	if len(crypto) == 0 {
		testcmd.Lack(t, "no libcrypto on this machine")
	}
	for _, path := range append(paths, crypto[0]) {
		o := open(t, path)
		// Between functions there are NOPs, where objdump finds into step again.
		var code []byte
		var starts, ends []int
		functions := o.functions().all()
		for i := range testcmd.Cases(len(functions), 0) {
			f := functions[i]
			starts = append(starts, len(code))
			code = append(code, o.table(f.start, f.end-f.start)...)
			ends = append(ends, len(code))
			code = append(code, bytes.Repeat([]byte{0x90}, 15)...)
		}
		want := objdump(t, code)
		n, wrong := 0, 0
		for f, at := range starts {
			for at < ends[f] {
				i, _ := isa.Decode(code[at:ends[f]])
				size := i.Len
				if i.Map == isa.OneByte && i.Op == 0x9b && size < int(want[at]) {
					next, _ := isa.Decode(code[at+size : ends[f]])
					size += next.Len
				}
				if n++; size == 0 || size != int(want[at]) {
					if wrong++; wrong <= 10 {
						t.Errorf("%s: %x: %d bytes, objdump has %d", path, code[at:min(at+15, ends[f])], size, want[at])
					}
					break
				}
				at += size
			}
		}
		if n < 1000 {
			t.Errorf("%s: only %d instructions", path, n)
		}
		t.Logf("%s: %d functions, %d instructions, %d of other length", path, len(starts), n, wrong)
	}
}
