package vmtest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// criuSuites are suites of Debian that have a CRIU; the last ones only where they answer.
var criuSuites = []string{"bookworm", "trixie", "sid", "experimental"}

const criuFloor = 2 // of criuSuites, that must answer

// releaseMachines are those that programs are dumped on, and all of the cross-section: all
// components that guests can have, AVX alone, and no XSAVE.
var releaseMachines = []string{"max", "haswell", "qemu64"}

// releaseKinds are the programs that each CRIU dumps; the last ones not in the
// cross-section.
var releaseKinds = []string{"auto", "sse", "pkru", "mpx", "threads", "tree"}

const crossKinds = 4 // of releaseKinds

// TestReleasesVM is described in the package's comment.
func TestReleasesVM(t *testing.T) {
	im := guest.Require(t)
	all := os.Getenv("FPU_VM_ALL") == "1"
	on, kinds := machines(), releaseKinds
	for _, on := range on {
		on.target = !slices.Contains(releaseMachines, on.name)
	}
	if !all {
		kinds = kinds[:crossKinds]
		on = slices.DeleteFunc(on, func(on *machine) bool { return on.target })
	}
	m := newMatrix(t, im, on)
	m.options = "--cpu-cap=all"
	for i, suite := range criuSuites {
		if i < criuFloor {
			m.addCRIU(guest.RequireCRIU(t, suite), kinds)
		} else if all {
			criu, err := guest.SuiteCRIU(t.Context(), suite, t.Output())
			if err != nil {
				t.Logf("%s does not answer: %v", suite, err)
				continue
			}
			m.addCRIU(criu, kinds)
		}
	}
	for _, program := range filepath.SplitList(os.Getenv("FPU_VM_CRIU")) {
		criu, err := guest.BuiltCRIU(t.Context(), "/", program)
		if err != nil {
			t.Fatal(err)
		}
		m.addCRIU(criu, kinds)
	}

	begin := time.Now()
	m.dumpAll()
	t.Logf("all dumped after %s", time.Since(begin).Round(time.Second))
	m.planReleases(all)
	m.checkAll()
	m.restoreAll()
	t.Logf("%d restores in %d boots after %s; Linux %s, %s", len(m.cells), m.boots, time.Since(begin).Round(time.Second), im.Linux, im.QEMU)
	m.report("-criu")
	m.wantReleases(t)
}

// addCRIU puts a CRIU into the guests, and programs that it dumps.
func (m *matrix) addCRIU(criu *guest.CRIU, kinds []string) {
	m.criux = append(m.criux, criu)
	for path, host := range criu.Files() {
		m.files[path] = host
	}
	for _, p := range programs(m.machines) {
		if !slices.Contains(kinds, p.kind) {
			continue
		}
		p.criu, p.kind = criu, dumpedBy(criu, p.kind)
		p.Program = testprog.Program{Name: p.on.name + "-" + p.kind, PID: 100000 + 100*len(m.programs), Command: p.Command}
		m.programs = append(m.programs, p)
	}
}

// dumpedBy is the kind of a program that a CRIU dumps.
func dumpedBy(criu *guest.CRIU, kind string) string { return criu.Version + "-" + kind }

// planReleases restores what each CRIU dumped on every machine, by itself and by the
// others; with every --cpu-cap what has most to compare. So is what was converted, and what
// is as CRIU 4.2 writes it.
func (m *matrix) planReleases(all bool) {
	m.t.Helper()
	for _, p := range m.programs {
		img := m.image(p.on.name + "/" + p.kind)
		for _, m.criu = range m.criux {
			own := m.criu == p.criu
			for _, on := range m.machines {
				switch {
				case own && (all || p.on.name == "max") && p.kind == dumpedBy(p.criu, "auto"):
					m.add(img, on.name, caps...)
				case own || p.kind != dumpedBy(p.criu, "sse"):
					m.add(img, on.name, "default")
				}
			}
		}
	}
	for _, by := range m.criux {
		m.criu = by
		m.add(m.image("haswell/"+dumpedBy(by, "auto")), fxsaveHost, "none")
	}
	for _, by := range m.criux {
		down := m.convert(m.image("max/"+dumpedBy(by, "auto")), "fxsave", "--to=fxsave", "--force")
		up := m.convert(m.image(fxsaveHost+"/"+dumpedBy(by, "auto")), "xsave", "--to=xsave")
		wide := m.widePages(m.image("haswell/" + dumpedBy(by, "auto")))
		for _, m.criu = range m.criux {
			m.add(down, fxsaveHost, "default")
			m.add(down, "max", "default")
			m.add(up, "max", "default")
			m.add(wide, "haswell", "default")
		}
	}
	m.criu = nil
}

// widePages copies a checkpoint and has its pagemap count pages as CRIU does from 4.2 on:
// in field 5, with 0 in field 2.
func (m *matrix) widePages(from *image) *image {
	m.t.Helper()
	to := &image{name: from.name + ".wide", dir: filepath.Join(m.dir, "converted", fmt.Sprintf("wide-%d", from.PID)), program: from.program, dump: from.dump}
	if err := os.CopyFS(to.dir, os.DirFS(from.dir)); err != nil {
		m.t.Fatal(err)
	}
	path := filepath.Join(to.dir, fmt.Sprintf("pagemap-%d.img", from.PID))
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	const magic, word = 8, 4 // bytes
	out := slices.Clone(b[:magic])
	for b = b[magic:]; len(b) > 0; {
		n := word + int(binary.LittleEndian.Uint32(b))
		entry := b[word:n]
		if len(out) > magic { // not the head
			entry = widePages(m.t, entry)
		}
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(entry))), entry...)
		b = b[n:]
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.images[to.name] = to
	return to
}

// widePages is of one pagemap entry.
func widePages(t *testing.T, entry []byte) []byte {
	t.Helper()
	var out []byte
	var count uint64
	for len(entry) > 0 {
		num, typ, n := protowire.ConsumeTag(entry)
		if n < 0 || typ != protowire.VarintType {
			t.Fatalf("a pagemap entry % x", entry)
		}
		v, size := protowire.ConsumeVarint(entry[n:])
		if size < 0 {
			t.Fatalf("a pagemap entry % x", entry)
		}
		entry = entry[n+size:]
		switch num {
		case 2, 5: // compat_nr_pages, nr_pages
			count = max(count, v)
		default:
			out = protowire.AppendVarint(protowire.AppendTag(out, num, typ), v)
		}
	}
	out = protowire.AppendVarint(protowire.AppendTag(out, 2, protowire.VarintType), 0)
	return protowire.AppendVarint(protowire.AppendTag(out, 5, protowire.VarintType), count)
}

// wantReleases: that predictions and events agree would also be so if nothing worked.
func (m *matrix) wantReleases(t *testing.T) {
	older := []string{"3.17.1", "4.1.1"}
	for _, by := range m.criux {
		for _, m.criu = range m.criux {
			if slices.Contains(older, m.criu.Version) {
				m.want(t, "haswell/"+dumpedBy(by, "auto.wide"), "haswell", "default", outcome{refused: "unparseable"})
			}
			m.want(t, fxsaveHost+"/"+dumpedBy(by, "auto.xsave"), "max", "default", outcome{})
		}
		m.criu = by
		m.want(t, "max/"+dumpedBy(by, "auto"), "max", "cpu", outcome{})
		m.want(t, "max/"+dumpedBy(by, "pkru"), "haswell", "default", outcome{lost: []string{"PKRU"}})
		m.want(t, "max/"+dumpedBy(by, "mpx"), "max", "default", outcome{lost: []string{"BNDREGS"}})
		m.want(t, "haswell/"+dumpedBy(by, "auto"), fxsaveHost, "none", outcome{lost: []string{"AVX"}})
	}
	m.criu = nil
}
