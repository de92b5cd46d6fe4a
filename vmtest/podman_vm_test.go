package vmtest

import (
	_ "embed" // for podman.sh
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// podmanPrograms is podman, what it starts, and the tar with which CRIU saves a
// container's tmpfs: busybox's lacks options for that.
var podmanPrograms = []string{"podman", "runc", "conmon", "tar"}

// podmanLib is the shell functions setup, await and restore.
//
//go:embed podman.sh
var podmanLib string

// podmanTimeout is for steps in which podman does much: each of its commands takes
// seconds on an emulated CPU.
const podmanTimeout = 5 * time.Minute

// containers are the programs that podman checkpoints, in archives of unlike
// compression. One has the libc of the image, and was itself copied into the container:
// its memory is to be levelled.
var containers = []struct {
	on, kind, command string
	threads, ticks    int
	memory            bool
	compress, ext     string
}{
	{"max", "sse", "/fpuhold sse /status", 1, 3, false, "zstd", ".tar.zst"},
	{"max", "auto", "/fpuhold auto /status 4", 4, 3, false, "gzip", ".tar.gz"},
	{"max", "lazy", "/lazycall /status /go", 1, 16, true, "gzip", ".tar.gz"},
	{"nehalem", "auto", "/fpuhold auto /status 2", 2, 3, false, "none", ".tar"},
}

// TestPodmanVM is the matrix of the containers of podman: it checkpoints them on one
// machine and restores them on another, as they are, converted and levelled. What fpuimg
// is told of the other machine is its level.
func TestPodmanVM(t *testing.T) {
	im := guest.Require(t, podmanPrograms...)
	nehalem := &machine{name: "nehalem", cpu: "Nehalem", profile: "x86-64-v2"}
	haswell := &machine{name: "haswell", cpu: "Haswell", profile: "x86-64-v3"}
	m := newMatrix(t, im, []*machine{nehalem, haswell})
	m.roots = []string{guest.RequireSuite(t, "bookworm", "libc6"), m.dir}
	begin := time.Now()
	m.checkpointContainers([]*machine{{name: "max", cpu: "max"}, nehalem})
	sse, auto, legacy, lazy := m.image("max/sse"), m.image("max/auto"), m.image("nehalem/auto"), m.image("max/lazy")
	for on, images := range map[string][]*image{
		"nehalem": {sse, m.convert(sse, "fxsave", "--to=fxsave", "--force"), auto, m.convert(auto, "fxsave", "--to=fxsave", "--force"),
			lazy, m.convert(lazy, "fxsave", "--to=fxsave", "--force"), m.image("max/lazy.level")},
		"haswell": {auto, m.convert(auto, "haswell", "--host="+haswell.profile, "--force"), legacy, m.convert(legacy, "xsave", "--to=xsave")},
	} {
		for _, img := range images {
			m.add(img, on, "default")
		}
	}
	m.checkAll()
	m.restoreContainers()
	t.Logf("%d restores in %d boots after %s; CRIU %s; %s", len(m.cells), m.boots, time.Since(begin).Round(time.Second),
		im.CRIU, m.first["max"].Step("setup").Stdout)
	m.compare()

	// That predictions and events agree would also be so if nothing worked at all.
	m.want(t, "max/sse", "nehalem", "default", outcome{refused: "xsave-record"})
	m.want(t, "max/sse.fxsave", "nehalem", "default", outcome{})
	m.want(t, "max/auto", "nehalem", "default", outcome{refused: "xsave-record"})
	m.want(t, "max/auto.fxsave", "nehalem", "default", outcome{lost: []string{"AVX", "PKRU"}})
	m.want(t, "max/auto", "haswell", "default", outcome{lost: []string{"PKRU"}})
	m.want(t, "max/auto.haswell", "haswell", "default", outcome{lost: []string{"PKRU"}})
	m.want(t, "nehalem/auto", "haswell", "default", outcome{})
	m.want(t, "nehalem/auto.xsave", "haswell", "default", outcome{})
	m.want(t, "max/lazy", "nehalem", "default", outcome{refused: "xsave-record"})
	m.want(t, "max/lazy.fxsave", "nehalem", "default", outcome{dies: []string{"SIGILL"}})
	m.want(t, "max/lazy.level", "nehalem", "default", outcome{})
	t.Run("image", m.containerImage)
}

// podmanJob is a job that begins with setup. The test program's image is built from
// the same bytes in every guest.
func (m *matrix) podmanJob() guest.Job {
	m.t.Helper()
	dir := filepath.Join(m.dir, "fpuhold.image")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte("FROM scratch\nCOPY root /\n"), 0o644); err != nil {
		m.t.Fatal(err)
	}
	files := map[string]string{"/job/fpuhold": dir, "/job/fpuimg": string(m.fpuimg)}
	for name, host := range map[string]string{"fpuhold/root": m.roots[0], "fpuhold/root/fpuhold": m.bin.FPUHold, "lazycall": m.bin.LazyCall} {
		files[path.Join("/job", name)] = host
	}
	return guest.Job{
		Timeout: 20 * time.Minute,
		Files:   files,
		Steps:   []guest.Step{{Name: "setup", Script: podmanLib + "set -e\nsetup\npodman --version\nrunc --version | head -n 1\n", Timeout: podmanTimeout}},
	}
}

// checkpointContainers has podman run and checkpoint the containers of each source,
// and fpuimg in a container of its own look at an archive of that.
func (m *matrix) checkpointContainers(sources []*machine) {
	m.t.Helper()
	job := func(on *machine) guest.Job {
		j := m.podmanJob()
		for _, c := range containers {
			if c.on != on.name {
				continue
			}
			add := ""
			if c.memory {
				add = fmt.Sprintf("podman cp lazycall %s:/lazycall\n", c.kind)
			}
			// With a network of its own CRIU would need iptables.
			j.Steps = append(j.Steps,
				guest.Step{Name: "run-" + c.kind, Timeout: podmanTimeout, Script: podmanLib + fmt.Sprintf(
					"set -e\npodman create --name %s --network host fpuhold %s\n%spodman start %[1]s\nawait %[1]s\n", c.kind, c.command, add)},
				guest.Step{Name: "dump-" + c.kind, Timeout: podmanTimeout, Script: fmt.Sprintf(
					"podman container checkpoint --compress %s --export $OUT/%s%s %[2]s\n", c.compress, c.kind, c.ext)})
		}
		if on.name == "max" {
			j.Steps = append(j.Steps, guest.Step{Name: "level", Timeout: podmanTimeout, Script: "set -e\narchive=/job/step/dump-lazy/out/lazy.tar.gz\n" +
				"tar -xzf $archive rootfs-diff.tar\nmkdir diff\ntar -xf rootfs-diff.tar -C diff\n" +
				"./fpuimg level --host=x86-64-v2 --root=diff --root=$(podman image mount fpuhold) -o $OUT/lazy.tar.gz $archive\n"})
			j.Files["/job/image"] = m.imageContext()
			j.Steps = append(j.Steps, guest.Step{Name: "show", Timeout: podmanTimeout, Script: "podman build -q --layers=false -t fpuimg /job/image >/dev/null &&\n" +
				"podman run --rm --network none -v /job/step/dump-auto/out:/data:ro fpuimg show --json /data/auto.tar.gz\n"})
		}
		return j
	}
	m.boot("checkpoint", sources, job, func(on *machine, r *guest.Result) {
		m.first[on.name] = r
		for _, s := range r.Steps {
			if !s.OK() {
				m.t.Errorf("%s: step %s failed: %s", on.name, s.Name, explain(&s))
			}
		}
		for _, c := range containers {
			if c.on != on.name || m.t.Failed() {
				continue
			}
			img := &image{
				name: on.name + "/" + c.kind, ext: c.ext, dir: filepath.Join(r.Step("dump-"+c.kind).Dir, c.kind+c.ext),
				program: &program{Program: testprog.Program{Name: c.kind, Command: c.command}, kind: c.kind, on: on, processes: 1, threads: c.threads, ticks: c.ticks, memory: c.memory, buffer: c.memory},
			}
			img.dump = img
			m.images[img.name] = img
			if c.memory {
				to := *img
				to.name, to.dir = img.name+".level", filepath.Join(r.Step("level").Dir, c.kind+c.ext)
				m.images[to.name] = &to
			}
		}
	})
}

// imageContext is the directory that make image has podman build.
func (m *matrix) imageContext() string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), "make", "-C", "..", "image", "OUT="+m.dir, "PODMAN=:")
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return filepath.Join(m.dir, "image")
}

// restoreContainers has podman restore every cell. The programs live on until the
// guest ends: each has processes and a file system of its own.
func (m *matrix) restoreContainers() {
	m.t.Helper()
	cells := func(on *machine) (out []*cell) {
		for _, c := range m.cells {
			if c.on == on {
				out = append(out, c)
			}
		}
		return out
	}
	job := func(on *machine) guest.Job {
		j := m.podmanJob()
		var restore strings.Builder
		for i, c := range cells(on) {
			archive := fmt.Sprintf("/job/archives/%d%s", i, c.ext)
			j.Files[archive] = c.dir
			fmt.Fprintf(&restore, "restore %d %s %d\n", i, archive, c.ticks)
		}
		j.Steps = append(j.Steps, guest.Step{Name: "restore", Script: podmanLib + restore.String(), Timeout: podmanTimeout})
		return j
	}
	m.boot("restore", m.machines, job, func(on *machine, r *guest.Result) {
		m.second[on.name] = r
		for _, s := range r.Steps {
			if !s.OK() {
				m.t.Errorf("%s: step %s failed: %s", on.name, s.Name, explain(&s))
				return
			}
		}
		s := r.Step("restore")
		for i, c := range cells(on) {
			if err := c.read(s, filepath.Join(s.Dir, strconv.Itoa(i))); err != nil {
				m.t.Errorf("%s on %s: %v", c.name, on.name, err)
			}
		}
	})
}

// containerImage: fpuimg prints the same in its container as on the host.
func (m *matrix) containerImage(t *testing.T) {
	img := m.image("max/auto")
	out, _ := m.fpuimg.run(t, []int{exitOK}, "show", "--json", img.dir)
	want := strings.ReplaceAll(out, img.dir, "/data/auto.tar.gz")
	if got := m.first["max"].Step("show").Stdout; got != want {
		t.Errorf("in a container:\n%s\nwant\n%s", got, want)
	}
}
