package program

import (
	"debug/elf"
	"os"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// TestVersions compares the versions of symbols with those that debug/elf reads, in the
// libc and the loader of this machine, and in a program that asks for them.
func TestVersions(t *testing.T) {
	n, hidden := 0, 0
	for _, path := range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/lib64/libc.so.6", "/bin/sh"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		o, err := readObject(f, info.Size())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		e, err := elf.NewFile(f)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := e.DynamicSymbols()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for i, s := range symbols { // without the first, of no name
			v := o.version(uint32(i + 1))
			if v.name != s.Version || v.hidden != s.VersionIndex.IsHidden() {
				t.Errorf("%s: %s has the version %+v, debug/elf says %q, %#x", path, s.Name, v, s.Version, uint16(s.VersionIndex))
			}
			if n++; v.hidden {
				hidden++
			}
		}
	}
	if n == 0 {
		testcmd.Lack(t, "no glibc of this machine")
	}
	t.Logf("%d symbols, %d hidden", n, hidden)
}

// TestVersionFits: a reference without a version gets the default one or the first, one
// with a version that alone.
func TestVersionFits(t *testing.T) {
	v := func(name string) version { return version{name: name} }
	for _, tt := range []struct {
		has, want version
		fits      bool
	}{
		{v("A"), v("A"), true}, {v("A"), v("B"), false}, {version{name: "A", hidden: true}, v("A"), true},
		{v(""), v("B"), true}, {version{hidden: true}, v("B"), false},
		{v("A"), v(""), true}, {version{name: "A", hidden: true}, v(""), false}, {version{name: "A", hidden: true, old: true}, v(""), true},
	} {
		if got := tt.has.fits(tt.want); got != tt.fits {
			t.Errorf("%+v for %+v: %v", tt.has, tt.want, got)
		}
	}
}
