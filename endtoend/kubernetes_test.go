package endtoend

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"sigs.k8s.io/yaml"
)

// The names that Node Feature Discovery has for flags of Linux, where they are not the
// same in capitals, of those that these machines have.
var discovered = map[string]string{"abm": "LZCNT", "aes": "AESNI", "fma": "FMA3", "pclmulqdq": "CLMUL", "pni": "SSE3", "sse4_1": "SSE4", "sse4_2": "SSE42", "sha_ni": "SHA"}

// node is a node as Node Feature Discovery labels it, with the local feature file that
// profile prints.
func node(t *testing.T, machine string) *corev1.Node {
	t.Helper()
	labels := map[string]string{}
	for line := range strings.Lines(string(fpuimg(t, "profile", "--format=nfd", machine))) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			t.Fatalf("%q is no line of a feature file", line)
		}
		labels["feature.node.kubernetes.io/"+name] = value
	}
	var profile struct{ Flags []string }
	if err := json.Unmarshal(fpuimg(t, "profile", machine), &profile); err != nil {
		t.Fatal(err)
	}
	for _, flag := range profile.Flags {
		name := discovered[flag]
		if name == "" {
			name = strings.ToUpper(strings.ReplaceAll(flag, "_", ""))
		}
		labels["feature.node.kubernetes.io/cpu-cpuid."+name] = "true"
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", Labels: labels}}
}

// The scheduler's matcher takes the affinity that need prints, and places a pod on the
// nodes of which check says that the image fits.
func TestAffinity(t *testing.T) {
	all := images(t)
	nodes := map[string]*corev1.Node{}
	for _, machine := range all {
		nodes[machine] = node(t, machine)
	}
	matched, other := 0, 0
	for _, image := range all {
		var affinity corev1.Affinity
		if err := yaml.UnmarshalStrict(fpuimg(t, "need", "--as=affinity", image), &affinity); err != nil {
			t.Fatalf("%s: %v", image, err)
		}
		pod := &corev1.Pod{Spec: corev1.PodSpec{Affinity: &affinity}}
		args := []string{"check", "--json"}
		for _, machine := range all {
			args = append(args, "--host="+machine)
		}
		var checked struct {
			Images []struct{ Results []struct{ Verdict string } }
		}
		if err := json.Unmarshal(fpuimg(t, append(args, image)...), &checked); err != nil {
			t.Fatal(err)
		}
		for i, r := range checked.Images[0].Results {
			fits := r.Verdict == "compatible" || r.Verdict == "downgrade-lossless"
			match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(nodes[all[i]])
			if err != nil {
				t.Fatalf("%s: %v", image, err)
			}
			if match != fits && r.Verdict != "damaged" {
				t.Errorf("%s on %s: the scheduler says %v, and check %s", image, all[i], match, r.Verdict)
			}
			if match {
				matched++
			} else {
				other++
			}
		}
	}
	t.Logf("%d pairs matched, %d did not", matched, other)
	if matched < 100 || other < 100 {
		t.Error("nothing was tried")
	}
}

// Labels and annotations are what the API takes.
func TestKubernetesText(t *testing.T) {
	for _, image := range images(t)[:5] {
		var rule struct {
			APIVersion string            `json:"apiVersion"`
			Kind       string            `json:"kind"`
			Metadata   metav1.ObjectMeta `json:"metadata"`
			Spec       struct {
				Rules []struct {
					Name          string            `json:"name"`
					Labels        map[string]string `json:"labels"`
					MatchFeatures []struct {
						Feature          string `json:"feature"`
						MatchExpressions map[string]struct {
							Op    string   `json:"op"`
							Value []string `json:"value"`
						} `json:"matchExpressions"`
					} `json:"matchFeatures"`
				} `json:"rules"`
			} `json:"spec"`
		}
		if err := yaml.UnmarshalStrict(fpuimg(t, "need", "--as=nfd-rule", image), &rule); err != nil || rule.Kind != "NodeFeatureRule" || len(rule.Spec.Rules) != 1 {
			t.Errorf("%s: %v %v", image, err, rule)
		}
		var annotations map[string]string
		if err := yaml.UnmarshalStrict(fpuimg(t, "need", "--as=annotations", image), &annotations); err != nil || annotations["io.github.fpuimg.need.checked"] != "false" {
			t.Errorf("%s: %v %v", image, err, annotations)
		}
	}
}
