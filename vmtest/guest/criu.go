package guest

import (
	"context"
	"io"
	"path"
	"path/filepath"
	"testing"
)

// CRIU is the CRIU of a suite of Debian, with libraries of its own: guests can have
// several beside the host's.
type CRIU struct {
	Version string // "4.1.1"

	files map[string]string // what is in its directory, by name
}

// RequireCRIU returns the CRIU that [SuiteCRIU] gets. It fails the test if that cannot be
// had. The test has called [Require].
func RequireCRIU(t testing.TB, suite string) *CRIU {
	t.Helper()
	c, err := SuiteCRIU(t.Context(), suite, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// SuiteCRIU gets the CRIU of a suite, as [Suite] does. The error is Suite's, or that the
// program does not run.
func SuiteCRIU(ctx context.Context, suite string, log io.Writer) (*CRIU, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	root, err := Suite(ctx, cache, log, suite, "criu")
	if err != nil {
		return nil, err
	}
	return BuiltCRIU(ctx, root, "usr/sbin/criu")
}

// BuiltCRIU takes a program with the libraries below a root: "/", for one that was built
// on this machine. The error is that it does not run.
func BuiltCRIU(ctx context.Context, root, program string) (*CRIU, error) {
	c := &CRIU{files: map[string]string{"criu": filepath.Join(root, program)}}
	libs, err := libraries(root, c.files["criu"])
	if err != nil {
		return nil, err
	}
	for _, l := range libs {
		c.files[path.Base(l)] = l
	}
	dirs := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	c.Version, err = firstLine(ctx, c.files[loader], "--library-path", dirs, c.files["criu"], "--version")
	return c, err
}

// loader is the dynamic linker, which runs a program with other libraries than the
// system's.
const loader = "ld-linux-x86-64.so.2"

func (c *CRIU) dir() string { return "/criu-" + c.Version }

// Files are what it needs in a guest: see [Job].
func (c *CRIU) Files() map[string]string {
	files := map[string]string{}
	for name, host := range c.files {
		files[path.Join(c.dir(), name)] = host
	}
	return files
}

// Shell defines, for a step's script, the command criu to be this one. What another
// release found out about the kernel is forgotten, as each keeps that in its own form.
func (c *CRIU) Shell() string {
	return "rm -f /run/criu.kdat\ncriu() { " + path.Join(c.dir(), loader) + " --library-path " + c.dir() + " " + path.Join(c.dir(), "criu") + ` "$@"; }` + "\n"
}
