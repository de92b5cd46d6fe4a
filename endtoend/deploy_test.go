package endtoend

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// deploy is the directory of the manifests.
var deploy = filepath.Join("..", "deploy")

// built are the objects of a directory, as kustomize builds them.
func built(t *testing.T, dir string) (objects [][]byte) {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resources.Resources() {
		b, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, b)
	}
	return objects
}

// object decodes one of the API's objects, which has no field that the API has not.
func object[T any](t *testing.T, b []byte) (o T) {
	t.Helper()
	if err := yaml.UnmarshalStrict(b, &o); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return o
}

func daemonSet(t *testing.T, dir string) appsv1.DaemonSet {
	t.Helper()
	all := built(t, dir)
	if len(all) != 2 {
		t.Fatalf("%d objects, want the namespace and the DaemonSet", len(all))
	}
	ns := object[corev1.Namespace](t, all[0])
	ds := object[appsv1.DaemonSet](t, all[1])
	if ds.Namespace != ns.Name || ns.Kind != "Namespace" || ds.Kind != "DaemonSet" {
		t.Errorf("%s %s and %s in %s", ns.Kind, ns.Name, ds.Kind, ds.Namespace)
	}
	return ds
}

func job(t *testing.T, dir string) batchv1.Job {
	t.Helper()
	all := built(t, dir)
	if len(all) != 1 {
		t.Fatalf("%d objects, want the Job", len(all))
	}
	return object[batchv1.Job](t, all[0])
}

// The overlays that README.md shows build, and say what it says they do.
func TestDeployOverlays(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(deploy, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "fpuimg", "deploy"), os.DirFS(deploy)); err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(readme), "```yaml\n# kustomization.yaml\n")[1:]
	if len(blocks) != 2 {
		t.Fatalf("%d overlays", len(blocks))
	}
	var overlays []string
	for _, block := range blocks {
		overlay, err := os.MkdirTemp(dir, "overlay")
		if err == nil {
			text, _, _ := strings.Cut(block, "```\n")
			err = os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		overlays = append(overlays, overlay)
	}
	if image := daemonSet(t, overlays[0]).Spec.Template.Spec.Containers[0].Image; image != "registry.example/fpuimg:0.1.0" {
		t.Errorf("image %s", image)
	}
	j := job(t, overlays[1])
	if want := map[string]string{"kubernetes.io/hostname": "worker-3", "kubernetes.io/os": "linux"}; j.Name != "fpuimg-check-worker-3" || !maps.Equal(j.Spec.Template.Spec.NodeSelector, want) {
		t.Errorf("%s on %v", j.Name, j.Spec.Template.Spec.NodeSelector)
	}
}

// The pods have no right but to be the owner of what lies in the directories of the node:
// of the restricted Pod Security Standard they break nothing else. What they do not write
// is read-only.
func TestDeployRights(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, pod := range map[string]corev1.PodTemplateSpec{"fpuimg-node": daemonSet(t, deploy).Spec.Template, "fpuimg-check": job(t, filepath.Join(deploy, "check")).Spec.Template} {
		var broken []string
		for _, r := range evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
			if !r.Allowed {
				broken = append(broken, r.ForbiddenReason)
			}
		}
		slices.Sort(broken)
		if want := []string{"restricted volume types", "runAsNonRoot != true", "runAsUser=0"}; !slices.Equal(slices.Compact(broken), want) {
			t.Errorf("%s breaks %q, want %q", name, broken, want)
		}
		s := pod.Spec
		if s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken || s.ServiceAccountName != "" {
			t.Errorf("%s has a token", name)
		}
		for _, c := range s.Containers {
			if ro := c.SecurityContext.ReadOnlyRootFilesystem; ro == nil || !*ro {
				t.Errorf("%s may write to its root", name)
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
				t.Errorf("%s: resources %v", name, c.Resources)
			}
			for _, m := range c.VolumeMounts {
				if m.ReadOnly == (name == "fpuimg-node" && m.Name == "features") {
					t.Errorf("%s: %s is read-only: %v", name, m.Name, m.ReadOnly)
				}
			}
		}
	}
}

// command is what a pod runs, with directories in the place of its mounts.
func command(t *testing.T, pod corev1.PodSpec, mounts map[string]string) *exec.Cmd {
	t.Helper()
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 || pod.Containers[0].Command != nil {
		t.Fatalf("%d containers", len(pod.Containers)) // the image's entry point is the program
	}
	var dirs []string
	for _, m := range pod.Containers[0].VolumeMounts {
		if mounts[m.Name] == "" {
			t.Fatalf("%s is mounted", m.Name)
		}
		dirs = append(dirs, m.MountPath, mounts[m.Name])
	}
	args := slices.Clone(pod.Containers[0].Args)
	for i := range args {
		args[i] = strings.NewReplacer(dirs...).Replace(args[i])
	}
	return exec.Command(program, args...)
}

// features are what Node Feature Discovery takes of a feature file at some time: a name
// and a value on a line, from the directive on until the time that it names.
func features(t *testing.T, b []byte, now time.Time) map[string]string {
	t.Helper()
	found, expired := map[string]string{}, false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		directive, is := strings.CutPrefix(line, "# +")
		until, isExpiry := strings.CutPrefix(directive, "expiry-time=")
		switch {
		case is && isExpiry:
			end, err := time.Parse(time.RFC3339, until)
			if err != nil {
				t.Fatal(err)
			}
			expired = end.Before(now)
		case is:
			t.Errorf("%q is no directive", line)
		case line == "", strings.HasPrefix(line, "#"), expired:
		default:
			name, value, ok := strings.Cut(line, "=")
			if !ok {
				value = "true"
			}
			label := "feature.node.kubernetes.io/" + name
			if errs := append(validation.IsQualifiedName(label), validation.IsValidLabelValue(value)...); len(errs) > 0 {
				t.Errorf("%q: %q", line, errs)
			}
			found[label] = value
		}
	}
	return found
}

// What the DaemonSet runs keeps a feature file in place, and ends when it is told to. The
// labels last until some time after.
func TestDeployNode(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "fpuimg"), []byte("fpuimg-level=1\n"), 0o600); err != nil { // of an older run
		t.Fatal(err)
	}
	cmd := command(t, daemonSet(t, deploy).Spec.Template.Spec, map[string]string{"features": dir})
	talk, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 512)
	n, err := talk.Read(line)
	if err != nil || !bytes.Contains(line[:n], []byte("written")) {
		t.Errorf("it says %q, %v", line[:n], err)
	}
	err = cmd.Process.Signal(syscall.SIGTERM)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Errorf("it ends with %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "fpuimg" {
		t.Fatalf("%v, %v", entries, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "fpuimg"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	got := features(t, b, now.Add(20*time.Minute))
	if plain := features(t, fpuimg(t, "profile", "--format=nfd"), now); !maps.Equal(got, plain) || len(got) < 3 {
		t.Errorf("%v, and profile without --every %v", got, plain)
	}
	if left := features(t, b, now.Add(31*time.Minute)); len(left) > 0 {
		t.Errorf("after half an hour there is still %v", left)
	}
}

// What the Job runs prints the matrix of the node's archives, with the machines by the
// names that the ConfigMap's keys have.
func TestDeployCheck(t *testing.T) {
	profiles, archives := t.TempDir(), t.TempDir()
	// A mounted ConfigMap is links to what lies in a hidden directory (kubelet, atomic_writer.go).
	data := filepath.Join(profiles, "..2026_11_29")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..2026_11_29", filepath.Join(profiles, "..data")); err != nil {
		t.Fatal(err)
	}
	for node, machine := range map[string]string{"worker-1": "haswell", "worker-2": "znver4"} {
		err := os.WriteFile(filepath.Join(data, node+".json"), fpuimg(t, "profile", machine), 0o644)
		if err == nil {
			err = os.Symlink(filepath.Join("..data", node+".json"), filepath.Join(profiles, node+".json"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// As kubelet names them, and as CRI-O writes them: for root alone.
	archive, err := os.ReadFile(filepath.Join("..", "testdata", "images", "p-none", "p-none.tar"))
	if err == nil {
		err = os.WriteFile(filepath.Join(archives, "checkpoint-web_default-nginx-2026-11-29T10:00:00Z.tar"), archive, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, job(t, filepath.Join(deploy, "check")).Spec.Template.Spec, map[string]string{"profiles": profiles, "checkpoints": archives})
	cmd.Env = append(cmd.Environ(), "COLUMNS=200")
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	if got := strings.Fields(lines[0]); !slices.Equal(got, []string{"IMAGE", "worker-1", "worker-2"}) {
		t.Errorf("heads %q", got)
	}
	if got := strings.Fields(lines[1]); !strings.HasSuffix(got[0], "nginx-2026-11-29T10:00:00Z.tar") || !slices.Equal(got[1:], []string{"LOSS", "AVX512", "ok"}) {
		t.Errorf("row %q", got)
	}
}
