package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// MissingError names the Debian packages without which there is no guest.
type MissingError struct {
	Packages []string
}

func (e *MissingError) Error() string {
	return "guest: missing Debian packages: " + strings.Join(e.Packages, " ")
}

// requirements is what Build, Run and the test programs' compiler need, by
// the package that has it. The kernel is not here: see findHostKernel.
var requirements = []struct {
	pkg   string
	found func() bool
}{
	{"qemu-system-x86", func() bool { return lookPath("qemu-system-x86_64") != "" }},
	{"criu", func() bool { return lookPath("criu") != "" }},
	{"busybox-static", func() bool { return isStatic(busyboxPath) }},
	{"cpio", func() bool { return lookPath("cpio") != "" }},
	{"gcc", func() bool { return lookPath("gcc") != "" }},
	{"libc6-dev", func() bool { _, err := os.Stat("/usr/include/stdio.h"); return err == nil }},
}

// busyboxPath is where Debian's busybox-static puts it. The package busybox
// puts a dynamic one there, hence isStatic.
const busyboxPath = "/bin/busybox"

// lookPath finds a program on PATH or where Debian keeps those for root.
func lookPath(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return ""
}

// Check reports what [Build] and [Image.Run] need and do not find, and which of
// the further programs are missing; each is in the package of its name. The error
// is a [*MissingError] if packages are missing, else from the file system.
// The kernel may be installed, or be in the cache directory from an earlier
// [Install].
func Check(cache string, programs ...string) error {
	var missing []string
	for _, r := range requirements {
		if !r.found() {
			missing = append(missing, r.pkg)
		}
	}
	for _, p := range programs {
		if lookPath(p) == "" {
			missing = append(missing, p)
		}
	}
	_, err := findHostKernel(cache)
	if errors.Is(err, fs.ErrNotExist) {
		missing = append(missing, kernelPackage)
	} else if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

// Install installs the packages that [Check] misses, with apt-get as root;
// what apt-get says goes to log. The kernel's package is not installed but
// unpacked into the cache directory: installed, it would make the machine's
// own boot its business. With nothing missing Install does nothing, and needs
// neither root nor a network.
//
// The error is of the command that failed, or says that root is needed.
func Install(ctx context.Context, cache string, log io.Writer, programs ...string) error {
	unlock, err := lockCache(cache)
	if err != nil {
		return err
	}
	defer unlock()
	err = Check(cache, programs...)
	var missing *MissingError
	if !errors.As(err, &missing) {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: need root to install them", err)
	}
	run := func(dir, name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
		}
		return nil
	}
	if err := run("", "apt-get", "update", "-q"); err != nil {
		return err
	}
	packages := slices.DeleteFunc(slices.Clone(missing.Packages), func(p string) bool { return p == kernelPackage })
	if len(packages) > 0 {
		args := append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...)
		if err := run("", "apt-get", args...); err != nil {
			return err
		}
	}
	if slices.Contains(missing.Packages, kernelPackage) {
		if err := unpackKernel(ctx, cache, run); err != nil {
			return err
		}
	}
	return Check(cache, programs...)
}

// unpackKernel downloads the newest cloud kernel into the cache.
func unpackKernel(ctx context.Context, cache string, run func(dir, name string, args ...string) error) error {
	// The package itself is empty; it depends on that of one version.
	show := exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", kernelPackage)
	out, err := show.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(show.Args, " "), err)
	}
	pkg := kernelDepends(string(out))
	if pkg == "" {
		return fmt.Errorf("%s: depends on no linux-image", kernelPackage)
	}
	tmp, err := os.MkdirTemp(cache, "kernel-*.tmp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// apt-get drops root for downloads, to a user who cannot write here.
	if err := run(tmp, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, pkg+"_*.deb"))
	if err != nil {
		return err
	}
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	root := filepath.Join(tmp, "root")
	if err := run(tmp, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	if _, err := findKernel(root); err != nil {
		return err
	}
	to := filepath.Join(cache, "kernel")
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(root, to)
}

// kernelDepends finds the versioned kernel package in the Depends line of
// "apt-cache show".
func kernelDepends(show string) string {
	for line := range strings.Lines(show) {
		deps, ok := strings.CutPrefix(line, "Depends:")
		if !ok {
			continue
		}
		for d := range strings.SplitSeq(deps, ",") {
			if f := strings.Fields(d); len(f) > 0 && strings.HasPrefix(f[0], "linux-image-") {
				return f[0]
			}
		}
	}
	return ""
}

// findHostKernel returns the kernel in the cache, else the installed one.
func findHostKernel(cache string) (kernel, error) {
	k, err := findKernel(filepath.Join(cache, "kernel"))
	if errors.Is(err, fs.ErrNotExist) {
		return findKernel("/")
	}
	return k, err
}
