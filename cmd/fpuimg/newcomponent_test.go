package main

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// TestNewComponent does what docs/ARCHITECTURE.md says of the next state component:
// it builds fpuimg with one more line in the table, and looks at whether the commands
// know the component.
func TestNewComponent(t *testing.T) {
	t.Parallel()
	table, err := filepath.Abs(filepath.Join("..", "..", "codec", "xstate", "component.go"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	const line = "\t{Feature: 20, Name: \"MADEUP\", Size: 64, Intel: 11008, AMD: 2496, banks: []bank{{name: \"m\", n: 4, stride: 16, size: 16}}},\n"
	head, rest, ok := strings.Cut(string(source), "var components = ")
	entries, tail, ok2 := strings.Cut(rest, "\n}\n")
	if !ok || !ok2 {
		t.Fatalf("%s: no table", table)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, "component.go")
	write := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(changed, []byte(head+"var components = "+entries+"\n"+line+"}\n"+tail))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{table: changed}})
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "overlay.json"), overlay)
	program := filepath.Join(dir, "fpuimg")
	build := exec.Command("go", "build", "-ldflags=-w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	// A compacted area that has the component at once after the header.
	const bit, header = 1 << 20, 576
	area := make([]byte, header+64)
	fx := xstate.InitFXArea()
	copy(area, fx[:])
	binary.LittleEndian.PutUint64(area[512:], bit|3)
	binary.LittleEndian.PutUint64(area[520:], 1<<63|bit|3)
	copy(area[header+16:], []byte{0xef, 0xbe, 0xad, 0xde}) // m1
	path := filepath.Join(dir, "area.bin")
	write(path, area)

	tests := []struct {
		args string
		want []string
	}{
		{"show --xsave-area AREA", []string{"MADEUP"}},
		{"show --xsave-area --regs AREA", []string{"m0          0000000000000000 0000000000000000", "m1          0000000000000000 00000000deadbeef"}},
		{"show --xsave-area --json AREA", []string{`"bit": 20`, `"name": "MADEUP"`, `"state": "in-use"`, `"size": 64`}},
		{"check --xsave-area --host=x86-64-v4 AREA", []string{"downgrade-lossy", "fatal component-missing", "MADEUP"}},
		{"check --xsave-area --host=x86-64-v4 --json AREA", []string{`"component": "MADEUP"`, `"m1"`}},
		{"completion bash", []string{"SSE AVX", " MADEUP'"}},
	}
	for _, tt := range tests {
		cmd := exec.Command(program, strings.Fields(strings.ReplaceAll(tt.args, "AREA", path))...)
		out, err := cmd.CombinedOutput() // a finding makes an exit code
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", tt.args, want, out)
			}
		}
	}
}
