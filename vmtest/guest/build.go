package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// initPackage is the guest's init, built from this module.
const initPackage = "github.com/fpuimg/fpuimg/vmtest/guest/internal/guestinit"

// CacheDir returns the directory for downloaded kernels and built guests: the
// environment variable FPU_VM_CACHE, else one in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("FPU_VM_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w (or set FPU_VM_CACHE)", err)
	}
	return filepath.Join(dir, "fpuimg-vmtest"), nil
}

// Image is a guest that can be booted.
type Image struct {
	Linux string // version of its kernel
	CRIU  string // version of its criu
	QEMU  string // version of the qemu that boots it

	kernel, initrd, qemu string // paths
}

// Build returns the guest made of this machine's packages, from the cache if
// it was built before of the same parts. Its criu is the first on PATH, and so
// are further programs, which it has in /usr/bin. The working directory must be
// in this module, for the guest's init is compiled from it.
//
// The error is a [*MissingError] if packages are missing, else says which
// part could not be had.
func Build(ctx context.Context, cache string, programs ...string) (*Image, error) {
	if err := Check(cache, programs...); err != nil {
		return nil, err
	}
	k, err := findHostKernel(cache)
	if err != nil {
		return nil, err
	}
	return build(ctx, cache, k, programs)
}

// BuildSuite is [Build] with the kernel of a suite of Debian, which [Suite] gets.
func BuildSuite(ctx context.Context, cache string, log io.Writer, suite string, programs ...string) (*Image, error) {
	if err := Check(cache, programs...); err != nil {
		return nil, err
	}
	root, err := Suite(ctx, cache, log, suite, kernelPackage)
	if err != nil {
		return nil, err
	}
	k, err := findKernel(root)
	if err != nil {
		return nil, err
	}
	return build(ctx, cache, k, programs)
}

// build returns the guest with a kernel.
func build(ctx context.Context, cache string, k kernel, programs []string) (*Image, error) {
	unlock, err := lockCache(cache)
	if err != nil {
		return nil, err
	}
	defer unlock()
	criu := lookPath("criu")
	im := &Image{Linux: k.version, qemu: lookPath("qemu-system-x86_64")}
	if im.CRIU, err = firstLine(ctx, criu, "--version"); err != nil {
		return nil, err
	}
	if im.QEMU, err = firstLine(ctx, im.qemu, "--version"); err != nil {
		return nil, err
	}

	tmp, err := os.MkdirTemp(cache, "build-*.tmp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	initProgram := filepath.Join(tmp, "init")
	if err := buildInit(ctx, initProgram); err != nil {
		return nil, err
	}
	fromHost := []part{{path: "/usr/sbin/criu", host: criu}}
	for _, p := range programs {
		fromHost = append(fromHost, part{path: "/usr/bin/" + p, host: lookPath(p)})
	}
	parts, err := rootParts(ctx, k, initProgram, fromHost)
	if err != nil {
		return nil, err
	}
	key, err := partsKey(k.vmlinuz, parts)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "guest-"+key)
	im.kernel, im.initrd = filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd")
	if _, err := os.Stat(dir); err == nil {
		return im, nil
	}

	// A guest directory is complete or not there: it gets its name last.
	stage := filepath.Join(tmp, "guest")
	if err := os.Mkdir(stage, 0o755); err != nil {
		return nil, err
	}
	if err := copyFile(filepath.Join(stage, "vmlinuz"), k.vmlinuz); err != nil {
		return nil, err
	}
	if err := appendArchive(ctx, filepath.Join(stage, "initrd"), parts); err != nil {
		return nil, err
	}
	if err := os.Rename(stage, dir); err != nil {
		return nil, err
	}
	return im, nil
}

func firstLine(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, "Version:")), nil
}

func buildInit(ctx context.Context, to string) error {
	// The same bytes on every build of the same source, as the cache's key
	// holds them; and nothing that the plainest CPU model lacks.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", to, initPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// part is one file of the guest's root file system: of a host file, or a
// symbolic link, or a few bytes.
type part struct {
	path   string
	host   string
	target string
	data   []byte
}

// rootParts lists the guest's root file system. Programs of the host come with
// their libraries, and in place of busybox's of the same name: so other programs
// find them, while the shell prefers its own.
func rootParts(ctx context.Context, k kernel, initProgram string, programs []part) ([]part, error) {
	parts := append([]part{
		{path: "/init", host: initProgram},
		{path: "/bin/busybox", host: busyboxPath},
	}, programs...)
	own := map[string]bool{"busybox": true}
	var hosts []string
	for _, p := range programs {
		own[path.Base(p.path)] = true
		hosts = append(hosts, p.host)
	}
	applets, err := exec.CommandContext(ctx, busyboxPath, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", busyboxPath, err)
	}
	for _, a := range strings.Fields(string(applets)) {
		if !own[a] {
			parts = append(parts, part{path: path.Join("/bin", a), target: "busybox"})
		}
	}
	libs, err := libraries("/", hosts...)
	if err != nil {
		return nil, err
	}
	for _, l := range libs {
		parts = append(parts, part{path: l, host: l})
	}
	mods, err := k.load(modules)
	if err != nil {
		return nil, err
	}
	var order strings.Builder
	for _, m := range mods {
		fmt.Fprintln(&order, path.Base(m.path))
	}
	return append(append(parts, mods...), part{path: "/mod/order", data: []byte(order.String())}), nil
}

// partsKey hashes everything that goes into a guest.
func partsKey(vmlinuz string, parts []part) (string, error) {
	h := sha256.New()
	for _, p := range append([]part{{path: "vmlinuz", host: vmlinuz}}, parts...) {
		sum := sha256.New()
		if p.host != "" {
			f, err := os.Open(p.host)
			if err != nil {
				return "", err
			}
			_, err = io.Copy(sum, f)
			f.Close()
			if err != nil {
				return "", err
			}
		} else {
			sum.Write(p.data)
		}
		fmt.Fprintf(h, "%q %q %x\n", p.path, p.target, sum.Sum(nil))
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// appendArchive writes parts behind what a file has, as a cpio archive in the format of
// the kernel's initramfs, which may be several in a row. All in it belongs to root.
func appendArchive(ctx context.Context, to string, parts []part) (err error) {
	root, err := os.MkdirTemp(filepath.Dir(to), "root-*.tmp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := place(ctx, root, parts); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = closeFile(f, err) }()
	// Not compressed: the guest would decompress it on an emulated CPU.
	cmd := exec.CommandContext(ctx, "sh", "-ec", "find . -mindepth 1 | LC_ALL=C sort | cpio --create --format=newc --owner=+0:+0 --quiet")
	cmd.Dir, cmd.Stdout = root, f
	return run(cmd)
}

// place puts parts below a root, with the modes, times and symbolic links of the host's
// files.
func place(ctx context.Context, root string, parts []part) error {
	for _, p := range parts {
		at := filepath.Join(root, p.path)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		switch {
		case err != nil:
		case p.target != "":
			err = os.Symlink(p.target, at)
		case p.host != "":
			err = run(exec.CommandContext(ctx, "cp", "-aH", "--", p.host, at))
		default:
			err = os.WriteFile(at, p.data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run runs a command whose standard error says what went wrong.
func run(cmd *exec.Cmd) error {
	var msg strings.Builder
	cmd.Stderr = &msg
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, msg.String())
	}
	return nil
}

func copyFile(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = closeFile(dst, err) }()
	_, err = io.Copy(dst, src)
	return err
}

// closeFile closes f and returns the first error of the two.
func closeFile(f *os.File, err error) error {
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
