//go:build release

package main

import (
	"bytes"
	"debug/elf"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

// TestRelease builds a release of a clone twice and looks at what is in it. That takes
// nfpm: NFPM names the program, or "go run" of it where the network is. So it has a
// build tag, which make release-test gives.
func TestRelease(t *testing.T) {
	nfpm := os.Getenv("NFPM")
	if nfpm == "" {
		t.Fatal("NFPM is not set: the command that runs nfpm")
	}
	must := func(dir, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		return string(out)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	must(".", "git", "clone", "-q", filepath.Join("..", ".."), clone)
	if out, err := exec.Command("make", "-C", clone, "release", "VERSION=9.9.9").CombinedOutput(); err == nil || !strings.Contains(string(out), "clean checkout of tag") {
		t.Errorf("a version without a tag is built: %s", out)
	}
	must(clone, "git", "tag", "-f", "v"+cli.Release)

	var files [2]map[string][]byte
	for i := range files {
		must(clone, "make", "release", "VERSION="+cli.Release, "NFPM="+nfpm)
		files[i] = map[string][]byte{}
		paths, _ := filepath.Glob(filepath.Join(clone, "out", "release", "*"))
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files[i][filepath.Base(path)] = b
		}
	}
	archive := func(platform string) string { return "fpuimg-" + cli.Release + "-" + platform + ".tar.gz" }
	deb := func(arch string) string { return "fpuimg_" + cli.Release + "_" + arch + ".deb" }
	names := slices.Sorted(maps.Keys(files[0]))
	want := []string{"SHA256SUMS", archive("darwin-arm64"), archive("linux-amd64"), archive("linux-arm64"), deb("amd64"), deb("arm64")}
	if !slices.Equal(names, want) {
		t.Fatalf("files %q, want %q", names, want)
	}
	for _, name := range names {
		if !bytes.Equal(files[0][name], files[1][name]) {
			t.Errorf("%s: two builds differ", name)
		}
	}

	release := filepath.Join(clone, "out", "release")
	must(release, "sha256sum", "--check", "--quiet", "SHA256SUMS")
	root := t.TempDir()
	for platform, machine := range map[string]elf.Machine{"linux-amd64": elf.EM_X86_64, "linux-arm64": elf.EM_AARCH64} {
		must(release, "tar", "-C", root, "-xf", archive(platform))
		f, err := elf.Open(filepath.Join(root, strings.TrimSuffix(archive(platform), ".tar.gz"), "bin", "fpuimg"))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine || slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("%s: the program is of %v, or not static", platform, f.Machine)
		}
		f.Close()
	}
	for _, platform := range []string{"darwin-arm64", "linux-arm64"} {
		if list := must(release, "tar", "-tf", archive(platform)); strings.Contains(list, "fpurestore") || !strings.Contains(list, "/bin/fpuimg\n") {
			t.Errorf("%s holds\n%s", platform, list)
		}
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return
	}
	unpacked := filepath.Join(root, "fpuimg-"+cli.Release+"-linux-amd64")
	checkInstalled(t, unpacked)
	if version := must(".", filepath.Join(unpacked, "bin", "fpuimg"), "version"); !strings.HasPrefix(version, "fpuimg v"+cli.Release+" ") {
		t.Errorf("version: %s", version)
	}
	must(release, "dpkg-deb", "-x", deb("amd64"), filepath.Join(root, "deb"))
	checkInstalled(t, filepath.Join(root, "deb", "usr"))
}
