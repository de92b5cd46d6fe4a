package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

func TestJobValidate(t *testing.T) {
	ok := Job{CPU: "max", Steps: []Step{{Name: "a"}, {Name: "b-1.x_Y"}}, Files: map[string]string{"/job/f": "f"}}
	if err := ok.validate(); err != nil {
		t.Error(err)
	}
	for name, job := range map[string]Job{
		"no CPU":        {},
		"no name":       {CPU: "max", Steps: []Step{{}}},
		"path as name":  {CPU: "max", Steps: []Step{{Name: "a/b"}}},
		"parent":        {CPU: "max", Steps: []Step{{Name: ".."}}},
		"name twice":    {CPU: "max", Steps: []Step{{Name: "a"}, {Name: "a"}}},
		"relative file": {CPU: "max", Files: map[string]string{"job/f": "f"}},
	} {
		if err := job.validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMarker(t *testing.T) {
	for _, text := range []string{
		"no begin step here\r\nbegin step 1/2 a\r\nbegin step 2/2 b\r\n",
		"begin step 1/1 a\r\n",
	} {
		for _, chunk := range []int{1, 2, 7, 100} {
			var log bytes.Buffer
			seen := 0
			m := newMarker(&log, "begin step ", func() { seen++ })
			for b := range slices.Chunk([]byte(text), chunk) {
				if n, err := m.Write(b); n != len(b) || err != nil {
					t.Fatal(n, err)
				}
			}
			if seen != 1 || log.String() != text {
				t.Errorf("%q in chunks of %d: seen %d times, log %q", text, chunk, seen, log.String())
			}
		}
	}
}

func TestQuote(t *testing.T) {
	args := []string{"/usr/bin/qemu", "-cpu", "qemu64,-xsave", "-append", "console=ttyS0 quiet", "it's", ""}
	out, err := exec.Command("/bin/sh", "-c", `printf '%s\n' `+quote(args)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"); !slices.Equal(got, args) {
		t.Errorf("a shell reads %q, want %q", got, args)
	}
}

func TestTail(t *testing.T) {
	p := filepath.Join(t.TempDir(), "log")
	if got := tail(p, 3); got != "" {
		t.Errorf("of a missing file: %q", got)
	}
	text := strings.Repeat("x\r\n", 20000) + "a\r\nb\r\n"
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := tail(p, 3), "x\na\nb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKernelDepends(t *testing.T) {
	show := "Package: linux-image-cloud-amd64\nDepends: foo (>= 1), linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSize: 1\n"
	if got, want := kernelDepends(show), "linux-image-6.1.0-56-cloud-amd64"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := kernelDepends("Package: linux-image-cloud-amd64\n"); got != "" {
		t.Errorf("without Depends: %q", got)
	}
}

func TestFindKernel(t *testing.T) {
	root := t.TempDir()
	if _, err := findKernel(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in an empty root: %v, want fs.ErrNotExist", err)
	}
	make := func(version string, withModules bool) {
		if err := os.MkdirAll(filepath.Join(root, "boot"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "boot", "vmlinuz-"+version), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if withModules {
			if err := os.MkdirAll(filepath.Join(root, "lib/modules", version), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	make("6.1.0-9-amd64", true)       // not a cloud kernel
	make("6.1.0-9-cloud-amd64", true) // the one
	make("6.1.0-10-cloud-amd64", false)
	k, err := findKernel(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := "6.1.0-9-cloud-amd64"; k.version != want {
		t.Errorf("got %q, want %q", k.version, want)
	}

	// From forky on the image is beside the modules.
	beside := t.TempDir()
	image := filepath.Join(beside, "lib/modules/7.2.13+deb14-cloud-amd64/vmlinuz")
	if err := os.MkdirAll(filepath.Dir(image), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if k, err := findKernel(beside); err != nil || k.vmlinuz != image || k.version != "7.2.13+deb14-cloud-amd64" {
		t.Errorf("got %+v, %v", k, err)
	}
}

// Check names every package, and does not take a dynamic busybox for ours.
func TestCheckMissing(t *testing.T) {
	if runtime.GOOS != "linux" {
		testcmd.Lack(t, "this is not linux")
	}
	saved := requirements
	defer func() { requirements = saved }()
	requirements = append(slices.Clone(requirements[:0]), saved...)
	for i := range requirements {
		requirements[i].found = func() bool { return false }
	}
	var missing *MissingError
	if err := Check(t.TempDir(), "no-such-program"); !errors.As(err, &missing) {
		t.Fatalf("got %v, want a MissingError", err)
	}
	for _, pkg := range []string{"qemu-system-x86", "criu", "busybox-static", "gcc", "libc6-dev", "no-such-program"} {
		if !slices.Contains(missing.Packages, pkg) {
			t.Errorf("%q is not named in %q", pkg, missing.Packages)
		}
	}
	if _, err := findKernel("/"); err != nil && !slices.Contains(missing.Packages, kernelPackage) {
		t.Errorf("%q is not named in %q", kernelPackage, missing.Packages)
	}
}

func TestLibraries(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		testcmd.Lack(t, "this is not linux/amd64")
	}
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if isStatic(sh) {
		testcmd.Lack(t, "the shell is static")
	}
	libs, err := libraries("/", sh)
	if err != nil {
		testcmd.Lack(t, "this is not Debian: "+err.Error())
	}
	for _, want := range []string{"ld-linux-x86-64.so.2", "libc.so.6"} {
		if !slices.ContainsFunc(libs, func(l string) bool { return filepath.Base(l) == want }) {
			t.Errorf("%s is not among the libraries of %s: %q", want, sh, libs)
		}
	}
	for i, l := range libs {
		if slices.Contains(libs[:i], l) {
			t.Errorf("%s is there twice", l)
		}
		if _, err := os.Stat(l); err != nil {
			t.Error(err)
		}
	}
}

func TestPartsKey(t *testing.T) {
	host := filepath.Join(t.TempDir(), "f")
	key := func(content string, parts ...part) string {
		t.Helper()
		if err := os.WriteFile(host, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		k, err := partsKey(host, parts)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	keys := []string{
		key("a"),
		key("b"),
		key("a", part{path: "/x", data: []byte("1")}),
		key("a", part{path: "/x", data: []byte("2")}),
		key("a", part{path: "/y", data: []byte("1")}),
		key("a", part{path: "/x", target: "1"}),
		key("a", part{path: "/x", host: host}),
	}
	for i, k := range keys {
		if slices.Contains(keys[:i], k) {
			t.Errorf("guest %d has the key of another", i)
		}
	}
	if again := key("a"); again != keys[0] {
		t.Errorf("the same parts: %s, then %s", keys[0], again)
	}
}

// Without FPU_VM the tests that boot guests are skipped, not run and not
// failed.
func TestRequireSkips(t *testing.T) {
	t.Setenv("FPU_VM", "")
	if rec := required(t); rec.fatal != "" || !rec.skipped {
		t.Errorf("fatal %q, skipped %v", rec.fatal, rec.skipped)
	}
}

// With FPU_VM=1 and no packages they fail and say what to install.
func TestRequireFails(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		testcmd.Lack(t, "this is not linux/amd64")
	}
	saved := requirements
	defer func() { requirements = saved }()
	requirements = []struct {
		pkg   string
		found func() bool
	}{{"no-such-package", func() bool { return false }}}
	t.Setenv("FPU_VM", "1")
	t.Setenv("FPU_VM_INSTALL", "")
	t.Setenv("FPU_VM_CACHE", t.TempDir())
	if rec := required(t); !strings.Contains(rec.fatal, "no-such-package") || rec.skipped {
		t.Errorf("fatal %q, skipped %v", rec.fatal, rec.skipped)
	}
}

// required calls Require.
func required(t *testing.T) *recorder {
	rec := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // Skip and Fatalf end their goroutine
		defer close(done)
		Require(rec)
	}()
	<-done
	return rec
}

// recorder notes what Require does to a test instead of doing it.
type recorder struct {
	testing.TB
	fatal   string
	skipped bool
}

func (r *recorder) Helper() {}
func (r *recorder) Skip(...any) {
	r.skipped = true
	runtime.Goexit()
}
func (r *recorder) Fatal(args ...any) { r.Fatalf("%v", args) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestRelativeLinks(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/lib64", "usr/lib/x"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"lib": "usr/lib", "usr/lib64/ld": "../../lib/x/ld-1", "usr/lib/x/self": "ld-1"}
	for link, target := range map[string]string{"lib": "usr/lib", "usr/lib64/ld": "/lib/x/ld-1", "usr/lib/x/self": "ld-1"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/lib/x/ld-1"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := relativeLinks(root); err != nil {
		t.Fatal(err)
	}
	for link, want := range want {
		got, err := os.Readlink(filepath.Join(root, link))
		if err != nil || got != want {
			t.Errorf("%s leads to %q, %v, want %q", link, got, err, want)
		}
		if _, err := os.Stat(filepath.Join(root, link)); err != nil {
			t.Error(err)
		}
	}
}
