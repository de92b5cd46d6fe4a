package guest

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/xi2/xz"
)

const kernelPackage = "linux-image-cloud-amd64"

// modules are the kernel's modules that the guest loads, besides those that
// these need. A name that the kernel has built in is fine.
var modules = []string{
	"virtio_pci", "virtio_blk", // the result disk
	// What CRIU probes at its start, or asks about sockets.
	"nf_tables", "veth", "tun", "macvlan",
	"unix_diag", "inet_diag", "tcp_diag", "udp_diag", "netlink_diag", "af_packet_diag",
}

// kernel is an unpacked or installed kernel.
type kernel struct {
	version string // as in /lib/modules
	vmlinuz string
	modules string // its directory in /lib/modules
}

// findKernel returns the newest cloud kernel below root: a file system root,
// or what a package was unpacked to. There being none is fs.ErrNotExist.
func findKernel(root string) (kernel, error) {
	all, err := filepath.Glob(filepath.Join(root, "lib", "modules", "*-cloud-amd64"))
	if err != nil {
		return kernel{}, err
	}
	var best kernel
	var bestTime int64
	for _, modules := range all {
		k := kernel{version: filepath.Base(modules), modules: modules}
		// Beside its modules from forky on. A removed package may leave either.
		for _, image := range []string{filepath.Join(root, "boot", "vmlinuz-"+k.version), filepath.Join(modules, "vmlinuz")} {
			fi, err := os.Stat(image)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return kernel{}, err
			}
			if t := fi.ModTime().UnixNano(); best.version == "" || t > bestTime {
				k.vmlinuz = image
				best, bestTime = k, t
			}
		}
	}
	if best.version == "" {
		return kernel{}, &fs.PathError{Op: "find", Path: filepath.Join(root, "lib", "modules", "*-cloud-amd64"), Err: fs.ErrNotExist}
	}
	return best, nil
}

// load returns the wanted modules and those they need, each behind what it needs, as
// the guest has them in /mod.
func (k kernel) load(want []string) ([]part, error) {
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(k.modules, "kernel"), func(p string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(strings.TrimSuffix(filepath.Base(p), ".xz"), ".ko"); ok && err == nil && d.Type().IsRegular() {
			files[moduleName(name)] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	builtin := map[string]bool{}
	for _, p := range strings.Fields(string(list)) {
		builtin[moduleName(strings.TrimSuffix(filepath.Base(p), ".ko"))] = true
	}

	var order []part
	seen := map[string]bool{}
	var visit func(name, by string) error
	visit = func(name, by string) error {
		name = moduleName(name)
		if seen[name] || builtin[name] {
			return nil
		}
		seen[name] = true
		p, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel %s: no module %s, wanted by %s", k.version, name, by)
		}
		data, err := readModule(p)
		if err != nil {
			return err
		}
		deps, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, dep := range deps {
			if err := visit(dep, name); err != nil {
				return err
			}
		}
		order = append(order, part{path: path.Join("/mod", name+".ko"), data: data})
		return nil
	}
	for _, name := range want {
		if err := visit(name, "the guest"); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// readModule reads a module, which Debian compresses from trixie on.
func readModule(p string) ([]byte, error) {
	data, err := os.ReadFile(p)
	if err != nil || !strings.HasSuffix(p, ".xz") {
		return data, err
	}
	r, err := xz.NewReader(bytes.NewReader(data), 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	if data, err = io.ReadAll(r); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return data, nil
}

// moduleDepends returns the modules that a module takes symbols from.
func moduleDepends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	for _, field := range bytes.Split(data, []byte{0}) {
		if v, ok := strings.CutPrefix(string(field), "depends="); ok && v != "" {
			return strings.Split(v, ","), nil
		}
	}
	return nil, nil
}

// moduleName folds the two spellings of a module's name.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }
