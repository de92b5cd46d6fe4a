package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// TestInstall installs below a temporary directory, looks at what is there, and runs
// it.
func TestInstall(t *testing.T) {
	t.Parallel()
	testcmd.Tool(t, "install")
	dest := t.TempDir()
	cmd := exec.Command(testcmd.Tool(t, "make"), "-C", filepath.Join("..", ".."), "install", "PREFIX=/usr", "DESTDIR="+dest,
		"BIN="+dest+"/build")
	goflags := "GOFLAGS=-ldflags=-w " + os.Getenv("GOFLAGS") // linking is most of it
	cmd.Env = append(cmd.Environ(), goflags)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	checkInstalled(t, filepath.Join(dest, "usr"))

	// What the README says for programs alone gives the same ones.
	install := exec.Command("go", "install", "../...")
	install.Env = append(install.Environ(), goflags, "CGO_ENABLED=0", "GOBIN="+filepath.Join(dest, "gobin"))
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("go install: %v\n%s", err, out)
	}
	for _, program := range []string{"fpuimg", "fpurestore"} {
		made, err := os.ReadFile(filepath.Join(dest, "usr", "bin", program))
		if err != nil {
			t.Fatal(err)
		}
		if installed, err := os.ReadFile(filepath.Join(dest, "gobin", program)); err != nil || !bytes.Equal(made, installed) {
			t.Errorf("%s: make and go install build two programs, or %v", program, err)
		}
	}
}

func checkInstalled(t *testing.T, root string) {
	t.Helper()
	for _, name := range []string{
		"share/man/man1/fpuimg.1", "share/man/man1/fpuimg-show.1", "share/man/man1/fpurestore.1",
		"share/bash-completion/completions/fpuimg", "share/zsh/site-functions/_fpuimg",
		"share/fish/vendor_completions.d/fpuimg.fish",
		"share/bash-completion/completions/fpurestore", "share/zsh/site-functions/_fpurestore",
		"share/fish/vendor_completions.d/fpurestore.fish", "share/doc/fpuimg/copyright",
	} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o644 {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
	}
	tests := []struct {
		args string
		code int
		want string
	}{
		{"fpuimg version", 0, "fpuimg "},
		{"fpurestore --version", 0, "fpurestore "},
		{"checkpointctl-fpu --plugin-description", pluginDescribed, "Show, check and convert x86 floating-point state in CRIU checkpoints\n"},
		{"checkpointctl-fpu version", 0, "fpuimg "},
		{"checkpointctl-fpu help show", 0, "fpuimg show - "},
		{"checkpointctl-fpu ../../testdata/images/h-avx", 0, "XSTATE_BV"},
		{"checkpointctl-fpu --regs ../../testdata/images/h-avx", 0, "zmm15"},
		{"checkpointctl-fpu check --host=x86-64-v3 ../../testdata/images/h-avx", 0, "compatible"},
	}
	for _, tt := range tests {
		args := strings.Fields(tt.args)
		out, err := exec.Command(filepath.Join(root, "bin", args[0]), args[1:]...).Output()
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Error(err)
			continue
		}
		if code != tt.code || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: exit code %d, %q", tt.args, code, out)
		}
	}
}
