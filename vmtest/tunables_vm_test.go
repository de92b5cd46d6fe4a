package vmtest

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// TestTunablesVM is described in the package's comment.
func TestTunablesVM(t *testing.T) {
	im := guest.Require(t)
	const source, target = "haswell", "sandybridge" // they differ by AVX2 alone
	all := slices.DeleteFunc(machines(), func(on *machine) bool { return on.name != source && on.name != target })
	m := newMatrix(t, im, all)
	m.machines = []*machine{m.machine(target)}
	m.dumpAll()

	m.files["/job/target.json"] = m.machine(target).profile
	m.machines = slices.DeleteFunc(slices.Clone(all), func(on *machine) bool { return on.name != source })
	suites := glibcSuites[1:] // older ones have other names for it
	const tuned = "env $(/job/fpuimg profile --format=tunables --common --host /job/target.json) "
	for _, suite := range suites {
		root := m.addSuite(suite, "libc6")
		m.addLazyCall(suite, filepath.Join(root, "lazy"), "-Wl,-z,lazy")
		for kind, before := range map[string]string{"plain": "", "tuned": tuned} {
			m.addProgram(source, &program{
				Program: testprog.Program{Root: root, Command: before + "chroot $ROOT /lazy $STATUS /tmp/go"},
				kind:    suite + "-" + kind, processes: 1, threads: 1, ticks: 16, buffer: true,
			})
		}
	}
	m.dumpAll()

	m.machines = all
	for _, img := range m.images {
		m.add(img, target, "default")
	}
	m.checkAll()
	m.machines = []*machine{m.machine(target)}
	m.restoreAll()
	m.report("-tunables")
	for _, suite := range suites {
		m.want(t, source+"/"+suite+"-plain", target, "default", outcome{dies: []string{"SIGILL"}})
		m.want(t, source+"/"+suite+"-tuned", target, "default", outcome{})
	}
}
