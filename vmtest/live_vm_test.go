package vmtest

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// liveMachines are those on which fpurestore runs: with XSAVE, with and without
// protection keys, and where it has but NT_PRFPREG.
var liveMachines = []string{"haswell", "max", fxsaveHost}

// saveStep has fpurestore save the state of a program that is about to be dumped.
func saveStep(p *program) guest.Step {
	return guest.Step{Name: "save-" + p.kind, Script: fmt.Sprintf("./fpurestore -t %d --save $OUT/saved", p.PID)}
}

// addSaved makes an image of what saveStep left.
func (m *matrix) addSaved(on *machine, p *program, r *guest.Result) {
	img := &image{name: on.name + "/" + p.kind + ".saved", dir: filepath.Join(r.Step("save-"+p.kind).Dir, "saved"), program: p}
	img.dump = img
	m.images[img.name] = img
}

// liveSources are the images that are put into the live program: what CRIU dumped
// and what fpurestore saved, on each of the machines.
func (m *matrix) liveSources() []*image {
	var out []*image
	for _, name := range liveMachines {
		out = append(out, m.image(name+"/live"), m.image(name+"/live.saved"))
	}
	return out
}

// inits is an image with two threads in their INIT state.
func (m *matrix) inits() *image { return m.image(fxsaveHost + "/erased.none.fxsave") }

// put is the script that has fpurestore put an image into the live program. The
// threads of both have the same order, and not the same numbers. It exits with
// fpurestore's status, which is to be the wanted one, and prints the program's
// lines.
func put(p *program, dir, options string, want int) string {
	return testprog.Lib + fmt.Sprintf(`
ls /proc/%[1]d/task | sort -n >/tmp/live
ls %[2]s | sed -n 's/^core-\([0-9]*\).img$/\1/p' | sort -n >/tmp/saved
[ $(wc -l </tmp/live) = 2 ] && [ $(wc -l </tmp/saved) = 2 ] || exit 100
map=$(paste -d= /tmp/saved /tmp/live | sed 's/^/--map=/')
/job/fpurestore --json -t %[1]d -D %[2]s $map %[3]s >$OUT/json
rc=$?
[ $rc = %[4]d ] || { cat $OUT/json; echo "fpurestore: exit status $rc, want %[4]d" >&2; exit 101; }
await 2 /tmp/%[5]s %[1]d
`, p.PID, dir, options, want, p.Name)
}

// live adds the steps of fpurestore to a machine's second boot.
func (m *matrix) live(on *machine, j *guest.Job) {
	if m.fpurestore == "" || !slices.Contains(liveMachines, on.name) {
		return
	}
	p := m.image(on.name + "/live").program
	j.Files["/job/fpurestore"] = string(m.fpurestore)
	inits := "/job/live/" + m.inits().name
	j.Files[inits] = m.inits().dir
	step := func(name, script string) {
		j.Steps = append(j.Steps, guest.Step{Name: "live-" + name, Script: script})
	}
	step("start", p.Start())
	step("init", put(p, inits, "--save $OUT/before", exitOK))
	step("before", put(p, "/job/step/live-init/out/before", "", exitOK))
	for i, img := range m.liveSources() {
		dir := "/job/live/" + img.name
		j.Files[dir] = img.dir
		step(fmt.Sprintf("init-%d", i), put(p, inits, "", exitOK))
		if img.checks[on.name].Verdict == "compatible" {
			step(fmt.Sprintf("put-%d", i), put(p, dir, "", exitOK))
			continue
		}
		step(fmt.Sprintf("refuse-%d", i), put(p, dir, "", exitRefused))
		step(fmt.Sprintf("put-%d", i), put(p, dir, "--force", exitOK))
	}
	step("stop", p.Stop())
}

// fpurestore takes the registers of a live program, and gives them back: from
// before, from CRIU's checkpoint and from what it saved itself, of this machine
// and of others.
func (m *matrix) liveRestore(t *testing.T) {
	for _, name := range liveMachines {
		t.Run(name, func(t *testing.T) {
			r := m.second[name]
			all := append([]string{"x87", "SSE"}, extended(name)...)
			// Restoring an image that has no PKRU leaves PKRU alone.
			taken := slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == "PKRU" })
			check := func(step string, lost []string) {
				t.Helper()
				s := r.Step("live-" + step)
				if !s.OK() {
					t.Errorf("step %s failed: %s", step, explain(s))
					return
				}
				ticks, err := testprog.ParseStatus(s.Stdout)
				if err != nil || len(ticks) != 1 || ticks[0].Total != 2 {
					t.Errorf("step %s: got %v, %v, want one process of two threads", step, ticks, err)
					return
				}
				if got, err := lostComponents(ticks); err != nil || !slices.Equal(got, lost) {
					t.Errorf("step %s: lost %q, %v, want %q", step, got, err, lost)
				}
			}
			if s := r.Step("live-stop"); !s.OK() {
				t.Errorf("the program was not ended: %s", explain(s))
			}
			check("start", nil)
			check("init", taken)
			check("before", nil)
			for i, img := range m.liveSources() {
				compatible := img.checks[name].Verdict == "compatible"
				has := append([]string{"x87", "SSE"}, extended(img.on.name)...)
				// What the image has is back, the rest stays in INIT.
				lost := slices.DeleteFunc(slices.Clone(taken), func(c string) bool { return slices.Contains(has, c) })
				if fits := !slices.ContainsFunc(has, func(c string) bool { return !slices.Contains(all, c) }) &&
					(name != fxsaveHost || img.on.name == fxsaveHost); fits != compatible {
					t.Errorf("%s: the verdict is %s", img.name, img.checks[name].Verdict)
				}
				check(fmt.Sprintf("init-%d", i), taken)
				if !compatible {
					check(fmt.Sprintf("refuse-%d", i), taken)
				}
				check(fmt.Sprintf("put-%d", i), slices.Clip(lost))
			}
		})
	}
}
