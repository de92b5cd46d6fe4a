package endtoend

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the path of fpuimg, built by TestMain.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "endtoend")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "fpuimg")
	build := exec.Command("go", "build", "-o", program, "./cmd/fpuimg")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

// fpuimg runs the program and returns its standard output. A verdict may be its exit
// code, so only what it cannot have done fails.
func fpuimg(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program, args...)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() == 2) {
		t.Fatalf("%q: %v\n%s", args, err, exit.Stderr)
	}
	return out
}

// images are the checkpoints of the repository that have a cpuinfo.img, which makes them
// machines too.
func images(t *testing.T) []string {
	t.Helper()
	infos, err := filepath.Glob(filepath.Join("..", "testdata", "images", "*", "cpuinfo.img"))
	if err != nil || len(infos) < 10 {
		t.Fatalf("%d images, %v", len(infos), err)
	}
	for i, path := range infos {
		infos[i], _ = filepath.Abs(filepath.Dir(path))
	}
	return infos
}
