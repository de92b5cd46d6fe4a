package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// TestArchive unpacks two archives that follow each other.
func TestArchive(t *testing.T) {
	cpio := testcmd.Tool(t, "cpio")
	root := t.TempDir()
	when := time.Unix(1700000000, 0)
	write := func(name, data string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, when, when); err != nil {
			t.Fatal(err)
		}
	}
	write("tree/core-1.img", "12345", 0o600)
	write("tree/sub/run", "x", 0o755)
	if err := os.Symlink("core-1.img", filepath.Join(root, "tree", "link")); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "initrd")
	for _, parts := range [][]part{
		{{path: "/bin/sh", target: "busybox"}, {path: "/job/job.json", data: []byte("{}")}},
		{{path: "/job/in", host: filepath.Join(root, "tree")}, {path: "/job/one", host: filepath.Join(root, "tree", "link")}},
	} {
		if err := appendArchive(t.Context(), to, parts); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(to), "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left %q, %v", left, err)
	}

	initrd, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer initrd.Close()
	list := func() []string {
		t.Helper()
		cmd := exec.Command(cpio, "-tvn", "--quiet") // numbers for owners
		cmd.Stdin = initrd
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("cpio -t: %v", err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	var got []string
	for range 2 { // cpio reads one archive at a time
		for _, line := range list() {
			f := strings.Fields(line)
			if len(f) < 9 || f[2] != "0" || f[3] != "0" {
				t.Fatalf("%q does not belong to root", line)
			}
			got = append(got, f[0]+" "+strings.Join(f[8:], " "))
		}
	}
	want := `drwxr-xr-x bin
lrwxrwxrwx bin/sh -> busybox
drwxr-xr-x job
-rw-r--r-- job/job.json
drwxr-xr-x job
drwxr-xr-x job/in
-rw------- job/in/core-1.img
lrwxrwxrwx job/in/link -> core-1.img
drwxr-xr-x job/in/sub
-rwxr-xr-x job/in/sub/run
-rw------- job/one`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if err := appendArchive(t.Context(), to, []part{{path: "/x", host: filepath.Join(root, "missing")}}); err == nil {
		t.Error("a missing file is taken")
	}
}
