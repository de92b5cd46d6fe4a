// Machines writes codec/cpuid/machines.txt and its counterpart of the tests anew from
// published dumps of CPUID:
//
//	go run ./internal/test/machines DIR
//
// DIR holds clones of the repositories that the files name: InstLatx64 of
// github.com/InstLatx64/InstLatx64, and libvirt of gitlab.com/libvirt/libvirt. A
// paragraph begins with a name and the dump that it is from, below DIR; to add a
// machine, add such a line. What is from elsewhere stays as it is.
//
// Of a dump only the registers are kept that tell of FPU state and features, and what
// the operating system decides in them is decided as Linux does.
package main

import (
	"cmp"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run ./internal/test/machines DIR")
	}
	for _, file := range []string{"codec/cpuid/machines.txt", "codec/cpuid/testdata/machines.txt"} {
		if err := rewrite(file, os.Args[1]); err != nil {
			log.Fatal(err)
		}
	}
}

func rewrite(file, dumps string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	paragraphs := strings.Split(strings.TrimSpace(string(old)), "\n\n")
	for i, p := range paragraphs {
		head, _, _ := strings.Cut(p, "\n")
		_, source, _ := strings.Cut(head, " ")
		b, err := os.ReadFile(filepath.Join(dumps, source))
		if strings.HasPrefix(head, "#") || os.IsNotExist(err) && strings.ContainsAny(source, " ,") {
			continue
		}
		if err != nil {
			return err
		}
		all, err := cpuid.ParseDump(b)
		if err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
		paragraphs[i] = head + "\n" + reduce(all)
	}
	return os.WriteFile(file, []byte(strings.Join(paragraphs, "\n\n")+"\n"), 0o644)
}

// reduce returns the leaves of the CPUs that differ, in the form of AIDA64.
func reduce(all []cpuid.Recorded) string {
	var lines []string
	var seen []*xstate.CPU
	for _, r := range all {
		for leaf := uint32(0x80000002); leaf <= 0x80000004; leaf++ { // the brand
			delete(r, cpuid.Leaf{EAX: leaf})
		}
		switchOn(r)
		want := cpuid.CPU(r)
		if slices.ContainsFunc(seen, func(c *xstate.CPU) bool { return reflect.DeepEqual(c, want) }) {
			continue
		}
		seen = append(seen, want)
		drop(r, want)
		for _, l := range sorted(r) {
			v := r[l]
			lines = append(lines, fmt.Sprintf("CPUID %08X: %08X-%08X-%08X-%08X [SL %02X]", l.EAX, v.EAX, v.EBX, v.ECX, v.EDX, l.ECX))
		}
	}
	return strings.Join(lines, "\n")
}

// switchOn sets what Linux makes CPUID say: OSXSAVE, OSPKE, and the size of the area for
// the components that it enables, all of which the CPU has and Linux knows.
func switchOn(r cpuid.Recorded) {
	set := func(l cpuid.Leaf, register func(*cpuid.Regs) *uint32, if_, then uint32) {
		if v, ok := r[l]; ok && *register(&v)&if_ != 0 {
			*register(&v) |= then
			r[l] = v
		}
	}
	ecx := func(v *cpuid.Regs) *uint32 { return &v.ECX }
	set(cpuid.Leaf{EAX: 1}, ecx, 1<<26, 1<<27)
	set(cpuid.Leaf{EAX: 7}, ecx, 1<<3, 1<<4)
	area, ok := r[cpuid.Leaf{EAX: 0xd}]
	if !ok {
		return
	}
	area.EBX = area.ECX
	r[cpuid.Leaf{EAX: 0xd}] = area
	c := cpuid.CPU(r)
	layouts := c.Layouts()
	if len(layouts) == 0 {
		return
	}
	area.EBX = uint32(layouts[0].End(*c.XFeatures))
	r[cpuid.Leaf{EAX: 0xd}] = area
}

// drop takes away what makes no difference to the CPU.
func drop(r cpuid.Recorded, want *xstate.CPU) {
	same := func() bool { return reflect.DeepEqual(cpuid.CPU(r), want) }
	for _, l := range sorted(r) {
		v := r[l]
		if delete(r, l); !same() {
			r[l] = v
		}
	}
	for _, l := range sorted(r) {
		for _, register := range []func(*cpuid.Regs) *uint32{
			func(v *cpuid.Regs) *uint32 { return &v.EAX }, func(v *cpuid.Regs) *uint32 { return &v.EBX },
			func(v *cpuid.Regs) *uint32 { return &v.ECX }, func(v *cpuid.Regs) *uint32 { return &v.EDX },
		} {
			old := r[l]
			v := old
			*register(&v) = 0
			if r[l] = v; !same() {
				r[l] = old
			}
		}
	}
}

func sorted(r cpuid.Recorded) []cpuid.Leaf {
	return slices.SortedFunc(maps.Keys(r), func(a, b cpuid.Leaf) int {
		return cmp.Or(cmp.Compare(a.EAX, b.EAX), cmp.Compare(a.ECX, b.ECX))
	})
}
