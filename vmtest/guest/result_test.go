//go:build unix

package guest

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/vmtest/guest/internal/agent"
)

// stream is what an agent writes for three steps, one of which fails.
func stream(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	a := &agent.Agent{Dir: t.TempDir(), Log: &bytes.Buffer{}}
	job := agent.Job{Steps: []agent.Step{
		{Name: "one", Script: "echo 1; mkdir $OUT/d; echo x >$OUT/d/f; ln -s d/f $OUT/l", Timeout: defaultStepTimeout},
		{Name: "two", Script: "echo 2 >&2; exit 3", Timeout: defaultStepTimeout},
		{Name: "end", Script: "echo 3", Timeout: defaultStepTimeout},
	}}
	if err := a.Run(job, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpackBytes(t *testing.T, data []byte) (*Result, bool, error) {
	t.Helper()
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	// The rest of the disk is zeros.
	if err := os.WriteFile(disk, append(slices.Clone(data), make([]byte, 4096)...), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &Result{}
	ended, err := r.unpack(disk, filepath.Join(dir, "step"))
	return r, ended, err
}

func TestUnpack(t *testing.T) {
	r, ended, err := unpackBytes(t, stream(t))
	if err != nil || !ended {
		t.Fatalf("ended %v, error %v", ended, err)
	}
	one, two := r.Step("one"), r.Step("two")
	if !one.OK() || one.Stdout != "1\n" || one.Stderr != "" {
		t.Errorf("got %+v", one)
	}
	if two.OK() || two.Exit != 3 || two.Stderr != "2\n" {
		t.Errorf("got %+v", two)
	}
	if r.Step("three") != nil || r.Step("three").OK() {
		t.Error("a step that is not there has run")
	}
	if got, err := os.ReadFile(filepath.Join(one.Dir, "l")); err != nil || string(got) != "x\n" {
		t.Errorf("through the link: %q, %v", got, err)
	}
	if names, err := os.ReadDir(two.Dir); err != nil || len(names) != 0 {
		t.Errorf("the result directory of a step without results: %v, %v", names, err)
	}
}

// A guest may stop at any byte. What was complete by then counts, the rest
// does not, and the end is never taken for reached.
func TestUnpackCutOff(t *testing.T) {
	data := stream(t)
	end := bytes.LastIndex(data, []byte(agent.EndName+"\x00"))
	for cut := 0; cut <= end; cut += 256 {
		r, ended, err := unpackBytes(t, data[:cut])
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, len(data), err)
		}
		if ended {
			t.Fatalf("cut at %d of %d: taken for whole", cut, len(data))
		}
		for i, s := range r.Steps {
			if want := []string{"one", "two", "end"}[i]; s.Name != want {
				t.Errorf("cut at %d: step %d is %q, want %q", cut, i, s.Name, want)
			}
		}
		if one := r.Step("one"); one != nil && one.Stdout != "1\n" {
			t.Errorf("cut at %d: got %+v", cut, one)
		}
	}
}

// Nothing a guest writes leads out of the result directory.
func TestUnpackStaysInside(t *testing.T) {
	outside := t.TempDir()
	for name, headers := range map[string][]tar.Header{
		"parent":   {{Typeflag: tar.TypeReg, Name: "../evil"}},
		"absolute": {{Typeflag: tar.TypeReg, Name: filepath.Join(outside, "evil")}},
		"link": {
			{Typeflag: tar.TypeSymlink, Name: "a/out", Linkname: outside},
			{Typeflag: tar.TypeReg, Name: "a/out/evil"},
		},
		"device": {{Typeflag: tar.TypeChar, Name: "a/out/null"}},
	} {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for _, h := range headers {
			if err := tw.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := unpackBytes(t, buf.Bytes()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("left outside: %v, %v", left, err)
	}
}
