package guest

import (
	"errors"
	"os"
	"runtime"
	"testing"
)

// Require returns the guest for a test that needs one. It skips the test
// unless FPU_VM is 1 in the environment. With FPU_VM=1 it fails the test if
// something is missing, and says what to install; with FPU_VM_INSTALL=1 too,
// it installs that.
//
// The guest has the further programs too, from the host, where each is in the
// Debian package of its name.
func Require(t testing.TB, programs ...string) *Image {
	t.Helper()
	return require(t, func(cache string) (*Image, error) { return Build(t.Context(), cache, programs...) }, programs)
}

// RequireKernel is [Require] for a guest with the kernel of a suite of Debian.
func RequireKernel(t testing.TB, suite string, programs ...string) *Image {
	t.Helper()
	return require(t, func(cache string) (*Image, error) {
		return BuildSuite(t.Context(), cache, t.Output(), suite, programs...)
	}, programs)
}

func require(t testing.TB, build func(cache string) (*Image, error), programs []string) *Image {
	t.Helper()
	if os.Getenv("FPU_VM") != "1" {
		t.Skip("boots qemu guests; set FPU_VM=1 to run it")
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Fatalf("FPU_VM=1 needs linux/amd64, this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("FPU_VM_INSTALL") == "1" {
		if err := Install(t.Context(), cache, t.Output(), programs...); err != nil {
			t.Fatal(err)
		}
	}
	im, err := build(cache)
	if missing := (*MissingError)(nil); errors.As(err, &missing) {
		t.Fatalf("FPU_VM=1, but %v; install them, or set FPU_VM_INSTALL=1 to have it done (as root)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return im
}
