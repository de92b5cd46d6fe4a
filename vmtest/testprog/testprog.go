// Package testprog holds the programs that the guests checkpoint and restore,
// and the scripts of the steps in their lives.
//
// fpuhold holds known values in the FPU registers and says ten times a second
// whether they are still there. It is freestanding: no libc, no Go runtime,
// since both choose AVX code when they start. lazycall is the opposite, a
// plain glibc program that does what ordinary programs do. The comments at the
// top of src/fpuhold.c and src/lazycall.c are their manuals. Both append lines to
// a status file, which [ParseStatus] reads.
//
// A [Program] is one of them in a guest.
package testprog

import (
	"context"
	_ "embed" // for the sources
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed src/fpuhold.c
var fpuhold []byte

//go:embed src/lazycall.c
var lazycall []byte

// Tunables is the environment under which lazycall, started on a CPU of Intel's,
// survives the move to one without XSAVE and AVX. It counts when the program starts; at restore it is
// too late. The first two settings are for the lazy resolver, the third for
// glibc's choice of memmove, which the others do not change (glibc 2.36,
// sysdeps/x86_64/multiarch/ifunc-memmove.h).
const Tunables = "GLIBC_TUNABLES=glibc.cpu.hwcaps=-XSAVEC,-XSAVE,-AVX_Fast_Unaligned_Load"

// TunablesAMD is the same for a CPU of AMD's. There glibc has no preference that
// would keep it from the next memmove in its list, the one with SSSE3.
const TunablesAMD = Tunables + ",-SSSE3"

// Binaries are the paths of the compiled programs.
type Binaries struct {
	FPUHold  string // static
	LazyCall string // needs libc.so.6
}

// Build compiles the programs for amd64 into dir, which must exist. The error
// is of the file system or of gcc, with what it said.
func Build(ctx context.Context, dir string) (Binaries, error) {
	p := Binaries{filepath.Join(dir, "fpuhold"), filepath.Join(dir, "lazycall")}
	// No FPU instruction but those in the source, no calls into a libc that is
	// not there, and a build id, by which CRIU tells that the program it
	// restores is the one it dumped.
	err := compile(ctx, p.FPUHold, fpuhold, "-O1", "-mgeneral-regs-only", "-ffreestanding", "-nostdlib", "-static",
		"-fno-pie", "-no-pie", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns",
		"-fcf-protection=none", "-Wl,--build-id")
	if err != nil {
		return Binaries{}, err
	}
	if err := LinkLazyCall(ctx, p.LazyCall, "", "-Wl,-z,lazy"); err != nil {
		return Binaries{}, err
	}
	return p, nil
}

// LinkLazyCall compiles lazycall into the file to, with gcc's options for linking: lazily
// bound ("-Wl,-z,lazy"), bound at its start, static. It takes the libc and its headers
// below the directory root, laid out as Debian's libc6-dev; "" is this machine's. The
// error is as Build's.
func LinkLazyCall(ctx context.Context, to, root string, options ...string) error {
	if root != "" {
		lib, include := filepath.Join(root, "usr/lib/x86_64-linux-gnu"), filepath.Join(root, "usr/include")
		options = append(options, "-Wl,--sysroot="+root, "-B"+lib, "-L"+lib,
			"-isystem", include, "-isystem", filepath.Join(include, "x86_64-linux-gnu"))
	}
	return compile(ctx, to, lazycall, append([]string{"-O1", "-march=x86-64", "-fno-builtin", "-pthread", "-Wl,--build-id"}, options...)...)
}

func compile(ctx context.Context, to string, source []byte, flags ...string) error {
	src := to + ".c"
	if err := os.WriteFile(src, source, 0o644); err != nil {
		return err
	}
	args := append([]string{"-Wall", "-Wextra", "-Werror", "-m64", "-o", to, src}, flags...)
	cmd := exec.CommandContext(ctx, "gcc", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
