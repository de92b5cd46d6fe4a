//go:build deb

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDeb builds the Debian package, unpacks it and runs what is in it. That takes
// nfpm: NFPM names the program, or "go run" of it where the network is. So it has a
// build tag, which make deb-test gives.
func TestDeb(t *testing.T) {
	nfpm := os.Getenv("NFPM")
	if nfpm == "" {
		t.Fatal("NFPM is not set: the command that runs nfpm")
	}
	out := t.TempDir()
	cmd := exec.Command("make", "-C", filepath.Join("..", ".."), "deb", "OUT="+out, "NFPM="+nfpm, "VERSION=1.2.3",
		"BIN="+out+"/build")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make deb: %v\n%s", err, text)
	}
	debs, _ := filepath.Glob(filepath.Join(out, "fpuimg_1.2.3_*.deb"))
	if len(debs) != 1 {
		t.Fatalf("packages: %q", debs)
	}
	root := t.TempDir()
	if text, err := exec.Command("dpkg-deb", "-x", debs[0], root).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb -x: %v\n%s", err, text)
	}
	checkInstalled(t, filepath.Join(root, "usr"))
}
