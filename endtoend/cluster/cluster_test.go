package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// root is the project.
var root = filepath.Join("..", "..")

// TestMain is each of the programs too, by the first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch command, args := os.Args[1], os.Args[1:]; command {
		case "kube-apiserver":
			os.Args = args
			os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
		case "kube-scheduler":
			os.Args = args
			os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
		}
	}
	os.Exit(m.Run())
}

// start runs a program until the test ends. What it says is told if the test fails.
func start(t *testing.T, args ...string) {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			text := said.Bytes()
			t.Logf("%s said: %s", args[0], text[max(0, len(text)-5000):])
		}
	})
}

// freePort is a port of this machine that nothing listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// controlPlane starts etcd, kube-apiserver and kube-scheduler, and returns a client of them
// that may do anything.
func controlPlane(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	dir := t.TempDir()
	conf := embed.NewConfig()
	conf.Dir, conf.LogLevel = filepath.Join(dir, "etcd"), "error"
	local := func() []url.URL {
		return []url.URL{{Scheme: "http", Host: fmt.Sprint("127.0.0.1:", freePort(t))}}
	}
	conf.ListenPeerUrls, conf.ListenClientUrls = local(), local()
	conf.AdvertisePeerUrls, conf.AdvertiseClientUrls = conf.ListenPeerUrls, conf.ListenClientUrls
	conf.InitialCluster = conf.InitialClusterFromName(conf.Name)
	etcd, err := embed.StartEtcd(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	<-etcd.Server.ReadyNotify()

	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	token := rand.Text()
	port := freePort(t)
	start(t, "kube-apiserver", "--etcd-servers="+conf.ListenClientUrls[0].String(), "--bind-address=127.0.0.1", fmt.Sprint("--secure-port=", port),
		"--cert-dir="+dir, "--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC", "--token-auth-file="+write("tokens.csv", []byte(token+",admin,admin,system:masters\n")),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+keyFile, "--service-account-signing-key-file="+keyFile)
	server := fmt.Sprint("https://127.0.0.1:", port)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 1000, Burst: 1000})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the API server", func() bool {
		return client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error() == nil
	})
	kubeconfig := filepath.Join(dir, "kubeconfig")
	err = clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: server, InsecureSkipTLSVerify: true}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	start(t, "kube-scheduler", "--kubeconfig="+kubeconfig, "--leader-elect=false", "--secure-port=0")
	return client
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1200 { // two minutes: only ends what hangs
		if is() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s: not so after two minutes", what)
}

// fpuimg runs the program, built once, and returns its standard output.
func fpuimg(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(program, args...).Output()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() == 2) {
		t.Fatalf("%q: %v", args, err)
	}
	return out
}

// apply creates the objects of a directory of deploy, with no field that the API has not.
func apply(t *testing.T, client *kubernetes.Clientset, dir string) {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, "deploy", dir))
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{
		"Namespace": "/api/v1/namespaces", "DaemonSet": "/apis/apps/v1/namespaces/fpuimg/daemonsets", "Job": "/apis/batch/v1/namespaces/fpuimg/jobs",
	}
	for _, r := range resources.Resources() {
		b, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		place, ok := places[r.GetKind()]
		if !ok {
			t.Fatalf("a %s", r.GetKind())
		}
		if err := client.CoreV1().RESTClient().Post().AbsPath(place).Param("fieldValidation", "Strict").SetHeader("Content-Type", "application/yaml").Body(b).Do(t.Context()).Error(); err != nil {
			t.Fatalf("%s: %v", r.GetKind(), err)
		}
	}
}

// addNode adds a node as Node Feature Discovery labels it.
func addNode(t *testing.T, client *kubernetes.Clientset, program, machine string) {
	t.Helper()
	labels := map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": machine}
	for line := range strings.Lines(string(fpuimg(t, program, "profile", "--format=nfd", machine))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		labels["feature.node.kubernetes.io/"+name] = value
	}
	var profile struct{ Flags []string }
	if err := json.Unmarshal(fpuimg(t, program, "profile", machine), &profile); err != nil {
		t.Fatal(err)
	}
	for _, flag := range profile.Flags { // those that registers ask for have such names
		labels["feature.node.kubernetes.io/cpu-cpuid."+strings.ToUpper(strings.ReplaceAll(flag, "_", ""))] = "true"
	}
	node, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: machine, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// What kubelet and the controllers do when it is ready.
	node.Spec.Taints = nil
	if node, err = client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("100")}
	node.Status.Capacity, node.Status.Allocatable = room, room
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err := client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// addPod creates a pod, and returns the node that the scheduler gives it, "" if it says
// that there is none.
func addPod(t *testing.T, client *kubernetes.Clientset, pod *corev1.Pod) (node string) {
	t.Helper()
	pod, err := client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the pod is scheduled or not", func() bool {
		if pod, err = client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		return pod.Spec.NodeName != "" || slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable
		})
	})
	return pod.Spec.NodeName
}

func addNamespace(t *testing.T, client *kubernetes.Clientset, name string, labels map[string]string) {
	t.Helper()
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}); err != nil && !errors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	addAccount(t, client, name)
}

// addAccount adds what a controller adds to a namespace.
func addAccount(t *testing.T, client *kubernetes.Clientset, namespace string) {
	t.Helper()
	if _, err := client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil && !errors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// The API server takes the manifests, and the pods that controllers would make of them are
// scheduled; in a namespace that forbids what they need they are refused. Pods with the affinity of an image come to a node on which it fits, or to none.
func TestCluster(t *testing.T) {
	program := filepath.Join(t.TempDir(), "fpuimg")
	build := exec.Command("go", "build", "-o", program, "./cmd/fpuimg")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	begin := time.Now()
	client := controlPlane(t)
	t.Logf("ready after %v", time.Since(begin).Round(time.Millisecond))
	lesser, more := []string{"nehalem", "haswell"}, []string{"skylake-avx512", "znver4"}
	for _, machine := range lesser {
		addNode(t, client, program, machine)
	}

	apply(t, client, "")
	apply(t, client, "check")
	addAccount(t, client, "fpuimg")
	ds, err := client.AppsV1().DaemonSets("fpuimg").Get(t.Context(), "fpuimg-node", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	job, err := client.BatchV1().Jobs("fpuimg").Get(t.Context(), "fpuimg-check", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	addNamespace(t, client, "restricted", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	for name, template := range map[string]corev1.PodTemplateSpec{"node": ds.Spec.Template, "check": job.Spec.Template} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "fpuimg", Labels: template.Labels}, Spec: template.Spec}
		if node := addPod(t, client, pod); node == "" {
			t.Errorf("%s: no node", name)
		}
		pod.Namespace = "restricted"
		if _, err := client.CoreV1().Pods("restricted").Create(context.Background(), pod, metav1.CreateOptions{}); !errors.IsForbidden(err) || !strings.Contains(err.Error(), "hostPath") {
			t.Errorf("%s in a restricted namespace: %v", name, err)
		}
	}

	placed, unplaced := place(t, client, program, "lesser", lesser)
	for _, machine := range more {
		addNode(t, client, program, machine)
	}
	all, none := place(t, client, program, "all", slices.Concat(lesser, more))
	t.Logf("%d pods placed and %d not, then %d and %d, after %v", placed, unplaced, all, none, time.Since(begin).Round(time.Millisecond))
	if placed < 10 || unplaced < 5 || all <= placed {
		t.Error("nothing was tried")
	}
}

// place has a pod placed for each image, and returns how many come to a node and how many
// do not.
func place(t *testing.T, client *kubernetes.Clientset, program, namespace string, machines []string) (placed, unplaced int) {
	t.Helper()
	addNamespace(t, client, namespace, nil)
	images, err := filepath.Glob(filepath.Join(root, "testdata", "images", "[gh]-*", "cpuinfo.img"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"check", "--json"}
	for _, machine := range machines {
		args = append(args, "--host="+machine)
	}
	for i, image := range images {
		image = filepath.Dir(image)
		var checked struct {
			Images []struct{ Results []struct{ Verdict string } }
		}
		if err := json.Unmarshal(fpuimg(t, program, append(args, image)...), &checked); err != nil {
			t.Fatal(err)
		}
		if checked.Images[0].Results[0].Verdict == "damaged" {
			continue
		}
		var fits []string
		for i, r := range checked.Images[0].Results {
			if r.Verdict == "compatible" || r.Verdict == "downgrade-lossless" {
				fits = append(fits, machines[i])
			}
		}
		var affinity corev1.Affinity
		if err := yaml.UnmarshalStrict(fpuimg(t, program, "need", "--as=affinity", image), &affinity); err != nil {
			t.Fatalf("%s: %v", image, err)
		}
		node := addPod(t, client, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pod-", i), Namespace: namespace},
			Spec:       corev1.PodSpec{Affinity: &affinity, Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		})
		if node == "" {
			unplaced++
		} else {
			placed++
		}
		if node == "" && len(fits) > 0 || node != "" && !slices.Contains(fits, node) {
			t.Errorf("%s: the scheduler takes %q, and check says that it fits %q", image, node, fits)
		}
	}
	return placed, unplaced
}
