package convert_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// needRoot skips where a test would have to be two users.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		testcmd.Lack(t, "this user is not root, who can be two users")
	}
}

// writers are the ways to make a new output of a test image.
var writers = map[string]func(t *testing.T, out string) error{
	"directory": func(t *testing.T, out string) error {
		return plan(t, testimg.Path(t, "h-sse"), forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{})
	},
	"image": func(t *testing.T, out string) error {
		return plan(t, testCore(t, testimg.Path(t, "h-sse")), forced(xstate.FormatFXSave)).WriteFile(out)
	},
	"own directory": func(t *testing.T, out string) error {
		return convert.NewDir(out, func(dir *os.Root) error { return dir.WriteFile("file", []byte("data"), 0o600) })
	},
	"archive": func(t *testing.T, out string) error {
		return convert.WriteArchive(archivePlans(t, testimg.Path(t, "p-none", "p-none.tar"), forced(xstate.FormatFXSave)), out, convert.ArchiveOptions{})
	},
}

// all describes everything below a directory: metadata and contents.
func all(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		out[path] = meta(t, path)
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			out[path] += string(b)
			return err
		}
		return nil
	}))
	return out
}

// TestForeignStage puts things under the name of a staging directory that no
// conversion left there: nothing waits for them, follows, takes or removes them.
func TestForeignStage(t *testing.T) {
	needRoot(t)
	things := map[string]func(path string) error{
		"fifo":          func(path string) error { return unix.Mkfifo(path, 0o666) },
		"file":          func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"link to a dir": func(path string) error { return os.Symlink("other", path) },
		"dangling link": func(path string) error { return os.Symlink("nowhere", path) },
		"another user's": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, nobody, nobody))
		},
		"open to others": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777))
		},
		"a directory of root, renamed": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "precious"), []byte("mine"), 0o600))
		},
	}
	for what, put := range things {
		for how, write := range writers {
			base := scratch(t)
			must(t, os.Mkdir(filepath.Join(base, "other"), 0o755))
			must(t, os.WriteFile(filepath.Join(base, "other", "fpuimg-result"), []byte("mine"), 0o600))
			must(t, put(filepath.Join(base, ".out.fpuimg-stage")))
			before := all(t, base)
			if err := write(t, filepath.Join(base, "out")); !errors.Is(err, convert.ErrStage) {
				t.Errorf("%s, %s: error %v, want ErrStage", what, how, err)
			}
			if after := all(t, base); !maps.Equal(after, before) {
				t.Errorf("%s, %s: the directory holds %q, want %q", what, how, after, before)
			}
		}
	}
}

// TestSwappedStage has another user replace the stage by a link while a checkpoint is
// copied: what the link names stays as it is, and the copy is whole.
func TestSwappedStage(t *testing.T) {
	src := copyImage(t, "h-threads8")
	must(t, os.Mkdir(filepath.Join(src, "zz"), 0o777))
	must(t, os.WriteFile(filepath.Join(src, "zz", "set-id"), []byte("x"), 0o600))
	must(t, os.Chmod(filepath.Join(src, "zz", "set-id"), 0o4777))
	base, victim := scratch(t), scratch(t)
	must(t, os.MkdirAll(filepath.Join(victim, "zz"), 0o700))
	must(t, os.WriteFile(filepath.Join(victim, "zz", "set-id"), []byte("mine"), 0o600))
	must(t, os.MkdirAll(filepath.Join(victim, "fpuimg-result", "zz"), 0o700))
	before := all(t, victim)
	stage, out := filepath.Join(base, ".out.fpuimg-stage"), filepath.Join(base, "out")
	swapped := false
	must(t, plan(t, src, forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{Progress: func(int64) {
		if !swapped {
			swapped = true
			must(t, os.Rename(stage, stage+".moved"))
			must(t, os.Symlink(victim, stage))
		}
	}}))
	if !swapped {
		t.Fatal("the stage was never there")
	}
	if after := all(t, victim); !maps.Equal(after, before) {
		t.Errorf("what the link names is %q, want %q", after, before)
	}
	if got, want := contents(t, out), contents(t, convertDir(t, src, forced(xstate.FormatFXSave))); !maps.Equal(got, want) {
		t.Errorf("the copy holds %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}

	// A failure removes its own stage alone.
	must(t, unix.Mkfifo(filepath.Join(src, "zzz"), 0o600))
	must(t, os.RemoveAll(out))
	must(t, os.Remove(stage))
	must(t, os.Remove(stage+".moved"))
	swapped = false
	err := plan(t, src, forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{Progress: func(int64) {
		if !swapped {
			swapped = true
			must(t, os.Rename(stage, stage+".moved"))
			must(t, os.Rename(victim, stage))
		}
	}})
	if !errors.Is(err, convert.ErrSpecial) {
		t.Errorf("a FIFO in the checkpoint: %v", err)
	}
	must(t, os.Rename(stage, victim))
	if after := all(t, victim); !maps.Equal(after, before) {
		t.Errorf("the directory that took the stage's name is %q, want %q", after, before)
	}
	if left, err := os.ReadDir(stage + ".moved"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestSwappedSource has another user replace what is about to be copied.
func TestSwappedSource(t *testing.T) {
	secret := scratch(t)
	must(t, os.WriteFile(filepath.Join(secret, "zz"), []byte("secret"), 0o600))
	swaps := map[string]func(path string) error{
		"link":                func(path string) error { return os.Symlink(filepath.Join(secret, "zz"), path) },
		"link to a directory": func(path string) error { return os.Symlink(secret, path) },
		"fifo":                func(path string) error { return unix.Mkfifo(path, 0o666) },
	}
	for what, swap := range swaps {
		for _, name := range []string{"zz", "zzdir", "pstree.img"} {
			src, out := copyImage(t, "h-sse"), filepath.Join(scratch(t), "out")
			must(t, os.WriteFile(filepath.Join(src, "zz"), []byte("x"), 0o600))
			must(t, os.MkdirAll(filepath.Join(src, "zzdir", "deep"), 0o700))
			swapped := false
			err := plan(t, src, forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{Progress: func(int64) {
				if !swapped {
					swapped = true
					must(t, os.RemoveAll(filepath.Join(src, name)))
					must(t, swap(filepath.Join(src, name)))
				}
			}})
			if what == "fifo" && !errors.Is(err, convert.ErrSpecial) {
				t.Errorf("%s is a FIFO: %v, want ErrSpecial", name, err)
			}
			if err != nil {
				continue
			}
			for file, b := range contents(t, out) {
				if b == "secret" {
					t.Errorf("%s is a %s: %s was copied from outside", name, what, file)
				}
			}
		}
	}
}

func mode(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Mode & 0o7777
}

// capabilities is a security.capability with CAP_NET_RAW, permitted and effective
// (<linux/capability.h>, vfs_cap_data of version 2).
var capabilities = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func hasCapabilities(path string) bool {
	_, err := unix.Lgetxattr(path, "security.capability", make([]byte, 64))
	return err == nil
}

// privileged makes files in a directory that say who runs them or may use them.
func privileged(t *testing.T, dir string) {
	t.Helper()
	for name, mode := range map[string]os.FileMode{
		"set-uid": 0o755 | os.ModeSetuid, "set-gid": 0o755 | os.ModeSetgid, "capable": 0o755, "group": 0o674,
	} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("x"), 0o600))
		must(t, os.Lchown(path, 1234, 4321))
		must(t, os.Chmod(path, mode))
	}
	must(t, os.Mkdir(filepath.Join(dir, "set-gid.d"), 0o755))
	must(t, os.Lchown(filepath.Join(dir, "set-gid.d"), 1234, 4321))
	must(t, os.Chmod(filepath.Join(dir, "set-gid.d"), 0o775|os.ModeSetgid))
	must(t, unix.Setxattr(filepath.Join(dir, "capable"), "security.capability", capabilities, 0))
}

// TestSetID checks that what runs with the rights of an owner does so only where the
// owner is kept, and that another group gets no rights of the old one.
func TestSetID(t *testing.T) {
	needRoot(t)
	src := copyImage(t, "h-sse")
	privileged(t, src)
	core := testCore(t, src)
	must(t, os.Chmod(core, 0o6755))
	must(t, unix.Setxattr(core, "security.capability", capabilities, 0))

	kept := convertDir(t, src, forced(xstate.FormatFXSave))
	for _, name := range []string{"set-uid", "set-gid", "capable", "group", "set-gid.d"} {
		if got, want := meta(t, filepath.Join(kept, name)), meta(t, filepath.Join(src, name)); got != want {
			t.Errorf("%s, by root: got %s, want %s", name, got, want)
		}
	}
	// What has another content is not what the owner gave these rights to.
	rewritten := filepath.Join(kept, filepath.Base(core))
	if m := mode(t, rewritten); m != 0o755 || hasCapabilities(rewritten) {
		t.Errorf("the converted image has mode %#o, capabilities %t", m, hasCapabilities(rewritten))
	}

	base := scratch(t)
	must(t, os.Chmod(base, 0o777))
	must(t, os.Chmod(filepath.Dir(src), 0o755))
	asNobody(t)
	must(t, plan(t, src, forced(xstate.FormatFXSave)).WriteDir(filepath.Join(base, "out"), convert.DirOptions{}))
	must(t, plan(t, core, forced(xstate.FormatFXSave)).WriteFile(filepath.Join(base, "out", "single.img")))
	for name, want := range map[string]uint32{
		"set-uid": 0o755, "set-gid": 0o755, "capable": 0o755, "group": 0o644, "set-gid.d": 0o755, filepath.Base(core): 0o755, "single.img": 0o755,
	} {
		path := filepath.Join(base, "out", name)
		if m := mode(t, path); m != want {
			t.Errorf("%s, by another user: mode %#o, want %#o", name, m, want)
		}
		if hasCapabilities(path) {
			t.Errorf("%s, by another user: it has capabilities", name)
		}
	}
}

// mount mounts for a test.
func mount(t *testing.T, source, target, fstype string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, fstype, flags, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(target, unix.MNT_DETACH)) })
}

// TestNoSUID checks that rights that had no effect where a checkpoint lay have none
// where its copy does.
func TestNoSUID(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	mount(t, "none", src, "tmpfs", unix.MS_NOSUID)
	must(t, os.CopyFS(src, os.DirFS(testimg.Path(t, "h-sse"))))
	privileged(t, src)
	base := t.TempDir()
	mount(t, "none", base, "tmpfs", 0)
	out := filepath.Join(base, "out")
	must(t, plan(t, src, forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{}))
	for name, want := range map[string]uint32{"set-uid": 0o755, "set-gid": 0o755, "capable": 0o755, "group": 0o674} {
		if m := mode(t, filepath.Join(out, name)); m != want || hasCapabilities(filepath.Join(out, name)) {
			t.Errorf("%s: mode %#o, want %#o, capabilities %t", name, m, want, hasCapabilities(filepath.Join(out, name)))
		}
	}
}

// acl spells an access list (<linux/posix_acl_xattr.h>) that gives a user all rights.
func acl(user uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, ^uint32(0)}, {2, 7, user}, {4, 0, ^uint32(0)}, {16, 7, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// TestACL checks that nobody gets a right from where a copy is made, and that whom the
// original names keeps his.
func TestACL(t *testing.T) {
	base := t.TempDir()
	err := unix.Setxattr(base, "system.posix_acl_default", acl(nobody), 0)
	if errors.Is(err, unix.ENOTSUP) {
		testcmd.Lack(t, "the temporary directory has no access lists")
	}
	must(t, err)
	has := func(path string) string {
		t.Helper()
		names := ""
		for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			if _, err := unix.Lgetxattr(path, name, make([]byte, 256)); err == nil {
				names += name + " "
			}
		}
		return names
	}
	src := t.TempDir()
	must(t, os.CopyFS(src, os.DirFS(testimg.Path(t, "h-sse"))))
	must(t, os.MkdirAll(filepath.Join(src, "plugin", "data"), 0o770))
	must(t, os.WriteFile(filepath.Join(src, "listed"), nil, 0o660))
	must(t, unix.Setxattr(filepath.Join(src, "listed"), "system.posix_acl_access", acl(4321), 0))
	must(t, os.Chmod(testCore(t, src), 0o660))

	out := filepath.Join(base, "out")
	must(t, plan(t, src, forced(xstate.FormatFXSave)).WriteDir(out, convert.DirOptions{}))
	single := filepath.Join(base, "single.img")
	must(t, plan(t, testCore(t, src), forced(xstate.FormatFXSave)).WriteFile(single))
	must(t, filepath.WalkDir(out, func(path string, e os.DirEntry, err error) error {
		name, _ := filepath.Rel(out, path)
		if got, want := has(path), has(filepath.Join(src, name)); got != want {
			t.Errorf("%s has access lists %q, want %q", name, got, want)
		}
		return err
	}))
	if got := has(single); got != "" {
		t.Errorf("the single image has access lists %q", got)
	}

	// In place the directory itself says what new files inherit.
	must(t, unix.Setxattr(src, "system.posix_acl_default", acl(nobody), 0))
	must(t, plan(t, src, forced(xstate.FormatFXSave)).InPlace())
	if got := has(testCore(t, src)); got != "" {
		t.Errorf("in place: the new image has access lists %q", got)
	}
	if m := mode(t, testCore(t, src)); m != 0o660 {
		t.Errorf("in place: the new image has mode %#o", m)
	}
}

// setFlag sets a flag of chattr(1) until the test ends.
func setFlag(t *testing.T, path string, flag int) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	old, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, old|flag)
	}
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		t.Skipf("chattr: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, old)) })
}

// TestFixed checks that what cannot be renamed is found before anything changes.
func TestFixed(t *testing.T) {
	needRoot(t)
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL of <linux/fs.h>
	tests := map[string]func(t *testing.T, dir, core string){
		"immutable":        func(t *testing.T, dir, core string) { setFlag(t, core, immutable) },
		"append-only":      func(t *testing.T, dir, core string) { setFlag(t, core, appendOnly) },
		"append-only dir.": func(t *testing.T, dir, core string) { setFlag(t, dir, appendOnly) },
		"mounted":          func(t *testing.T, dir, core string) { mount(t, core, core, "", unix.MS_BIND) },
		"sticky": func(t *testing.T, dir, core string) {
			must(t, os.Chmod(dir, 0o777|os.ModeSticky))
			asNobody(t)
		},
	}
	for name, fix := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ckpt")
			must(t, os.CopyFS(dir, os.DirFS(testimg.Path(t, "h-threads8"))))
			must(t, os.Chmod(filepath.Dir(dir), 0o755))
			must(t, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755))
			cores, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
			must(t, err)
			before := contents(t, dir)
			fix(t, dir, cores[len(cores)-1])
			err = plan(t, dir, forced(xstate.FormatFXSave)).InPlace()
			if !errors.Is(err, convert.ErrFixed) {
				t.Errorf("error %v, want ErrFixed", err)
			}
			if after := contents(t, dir); !maps.Equal(after, before) {
				t.Errorf("the directory holds %v, want %v", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
			}
			if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// TestAppendOnly checks that nothing is begun where it could not be cleaned up.
func TestAppendOnly(t *testing.T) {
	needRoot(t)
	for how, write := range writers {
		base := t.TempDir()
		setFlag(t, base, 0x20) // FS_APPEND_FL
		if err := write(t, filepath.Join(base, "out")); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: error %v, want that it is not permitted", how, err)
		}
		if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v %v", how, left, err)
		}
	}
}

// TestForeignRecord has another user leave a commit record in a sticky directory, to
// have root replace what he could not.
func TestForeignRecord(t *testing.T) {
	needRoot(t)
	theirs := map[string][]string{
		"record":   {codec.RedoName, ".core-20600.img.fpuimg-new"},
		"new file": {".core-20600.img.fpuimg-new"},
	}
	for what, names := range theirs {
		dir := copyImage(t, "h-sse")
		must(t, os.Chmod(dir, 0o777|os.ModeSticky))
		must(t, os.WriteFile(filepath.Join(dir, codec.RedoName), []byte(`{"files":["core-20600.img"]}`), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, ".core-20600.img.fpuimg-new"), []byte("theirs"), 0o644))
		for _, name := range names {
			must(t, os.Chown(filepath.Join(dir, name), nobody, nobody))
		}
		before := all(t, dir)
		if completed, err := convert.Recover(dir); completed || !errors.Is(err, convert.ErrForeign) {
			t.Errorf("a %s of another user: %t, %v; want ErrForeign", what, completed, err)
		}
		if !maps.Equal(all(t, dir), before) {
			t.Errorf("a %s of another user: something changed", what)
		}
	}
	// A new file that belongs to the owner of the old one is what root's conversion
	// made.
	dir := copyImage(t, "h-sse")
	interrupt(t, dir, forced(xstate.FormatFXSave), 0)
	must(t, os.Chmod(dir, 0o777|os.ModeSticky))
	for _, name := range []string{".core-20600.img.fpuimg-new", "core-20600.img"} {
		must(t, os.Chown(filepath.Join(dir, name), nobody, nobody))
	}
	if completed, err := convert.Recover(dir); !completed || err != nil {
		t.Errorf("root's own record: %t, %v", completed, err)
	}
}
