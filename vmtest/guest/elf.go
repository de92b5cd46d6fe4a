package guest

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// libraryDirs is where Debian's dynamic linker looks without being told, on
// amd64; the guest has no ld.so.cache that could name others.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// libraries returns the paths of the shared libraries that programs need, their
// dynamic linker included, nothing for static ones; all of them below the directory
// root. It reads the ELF headers and runs nothing.
func libraries(root string, programs ...string) ([]string, error) {
	var libs []string
	seen := map[string]bool{}
	todo := slices.Clone(programs)
	for len(todo) > 0 {
		p := todo[0]
		todo = todo[1:]
		more, err := needed(root, p)
		if err != nil {
			return nil, err
		}
		for _, l := range more {
			if !seen[l] {
				seen[l] = true
				libs = append(libs, l)
				todo = append(todo, l)
			}
		}
	}
	return libs, nil
}

// needed returns the paths of what one ELF file asks for directly.
func needed(root, p string) ([]string, error) {
	f, err := elf.Open(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	defer f.Close()
	var paths []string
	interp, err := interpreter(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	if interp != "" {
		paths = append(paths, filepath.Join(root, interp))
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	dirs, err := f.DynString(elf.DT_RUNPATH)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	var search []string
	for _, d := range dirs {
		for _, d := range filepath.SplitList(d) {
			search = append(search, strings.ReplaceAll(d, "$ORIGIN", filepath.Dir(p)))
		}
	}
	for _, d := range libraryDirs {
		search = append(search, filepath.Join(root, d))
	}
next:
	for _, name := range names {
		for _, d := range search {
			l := filepath.Join(d, name)
			if fi, err := os.Stat(l); err == nil && fi.Mode().IsRegular() {
				paths = append(paths, l)
				continue next
			}
		}
		return nil, fmt.Errorf("%s: needs %s, which is in none of %s", p, name, strings.Join(search, ", "))
	}
	return paths, nil
}

// interpreter returns the dynamic linker a program names, "" for a static one.
func interpreter(f *elf.File) (string, error) {
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			buf := make([]byte, s.Filesz)
			if _, err := s.ReadAt(buf, 0); err != nil {
				return "", err
			}
			return strings.TrimRight(string(buf), "\x00"), nil
		}
	}
	return "", nil
}

// isStatic reports whether p is a program that needs no dynamic linker.
func isStatic(p string) bool {
	f, err := elf.Open(p)
	if err != nil {
		return false
	}
	defer f.Close()
	interp, err := interpreter(f)
	return err == nil && interp == ""
}
