package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// archiveURI is Debian's archive where apt names no mirror of it.
const archiveURI = "http://deb.debian.org/debian"

// RequireSuite returns the directory that [Suite] makes. It fails the test if that
// cannot be had. The test has called [Require].
func RequireSuite(t testing.TB, suite string, packages ...string) string {
	t.Helper()
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := Suite(t.Context(), cache, t.Output(), suite, packages...)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Suite returns the root of a file system that has the packages of a suite of Debian
// ("trixie"), and what these depend on, unpacked and without /usr/share: to be put
// into a guest, where programs run in it by chroot. It comes from the cache if it was
// made before; else apt-get gets the packages, whatever the suite of this machine, and
// what it says goes to log. That needs no root.
//
// The error is of the command that failed or of the file system.
func Suite(ctx context.Context, cache string, log io.Writer, suite string, packages ...string) (string, error) {
	unlock, err := lockCache(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	dir := filepath.Join(cache, "suite-"+suite+"-"+hex.EncodeToString(sum[:4]))
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	tmp, err := os.MkdirTemp(cache, "suite-*.tmp")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	apt, err := suiteApt(ctx, tmp, suite)
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{
		append([]string{"update", "-q"}, apt...),
		append(append([]string{"install", "-q", "-y", "--download-only", "--no-install-recommends"}, apt...), packages...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Stdout = log
		if err := run(cmd); err != nil {
			return "", err
		}
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "cache", "archives", "*.deb"))
	if err != nil {
		return "", err
	}
	// Bookworm's packages have files in /lib, which is a link in both suites.
	root := filepath.Join(tmp, "root")
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", name), 0o755); err != nil {
			return "", err
		}
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			return "", err
		}
	}
	for _, deb := range debs {
		unpack := `dpkg-deb --fsys-tarfile "$1" | tar -x --no-same-owner --keep-directory-symlink -C "$2" --exclude=./usr/share --exclude='./*/gconv'`
		if err := run(exec.CommandContext(ctx, "sh", "-ec", unpack, "sh", deb, root)); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "tmp"), 0o755); err != nil {
		return "", err
	}
	if err := relativeLinks(root); err != nil {
		return "", err
	}
	return dir, os.Rename(root, dir)
}

// relativeLinks has absolute links below a root lead to where they lead in it: seen from
// this machine they lead out of it, to its own dynamic linker for one.
func relativeLinks(root string) error {
	return filepath.WalkDir(root, func(link string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		target, err := os.Readlink(link)
		if err != nil || !filepath.IsAbs(target) {
			return err
		}
		if target, err = filepath.Rel(filepath.Dir(link), filepath.Join(root, target)); err != nil {
			return err
		}
		return errors.Join(os.Remove(link), os.Symlink(target, link))
	})
}

// suiteApt makes a state of apt's own in dir, which knows the suite alone, with what it builds on, and has
// nothing installed. It returns the options that have apt-get use it.
func suiteApt(ctx context.Context, dir, suite string) ([]string, error) {
	uri := archiveURI
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	if found := strings.Fields(string(out)); len(found) > 0 {
		uri = found[0]
	}
	suites, prefer := []string{suite}, ""
	if suite == "experimental" { // which has only what sid does not have yet
		suites, prefer = []string{"sid", suite}, suite
	}
	var sources strings.Builder
	for _, suite := range suites {
		fmt.Fprintf(&sources, "deb [target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", uri, suite)
	}
	for _, name := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{
		"status":       "",
		"sources.list": sources.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	var options []string
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + filepath.Join(dir, "sources.list"), "Dir::Etc::sourceparts=/dev/null",
		"Dir::State=" + filepath.Join(dir, "state"), "Dir::State::status=" + filepath.Join(dir, "status"),
		"Dir::Cache=" + filepath.Join(dir, "cache"), "APT::Architecture=amd64", "APT::Sandbox::User=root",
		"Acquire::Languages=none", "Debug::NoLocking=true", "APT::Default-Release=" + prefer,
	} {
		options = append(options, "-o", o)
	}
	return options, nil
}
