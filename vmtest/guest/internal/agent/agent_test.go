//go:build linux

package agent

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// long is for what ends much sooner, unless something is broken.
const long = 5 * time.Minute

// runJob runs a job in a fresh directory and returns the stream's files by
// name, and the statuses in order.
func runJob(t *testing.T, job Job) (map[string]string, []Status) {
	t.Helper()
	var out, log bytes.Buffer
	flushes := 0
	a := &Agent{Dir: t.TempDir(), Log: &log, Flush: func() error { flushes++; return nil }}
	if err := a.Run(job, &out); err != nil {
		t.Fatal(err)
	}
	if want := len(job.Steps) + 1; flushes != want {
		t.Errorf("flushed %d times, want %d", flushes, want)
	}
	if got := strings.Count(log.String(), BeginMark); got != len(job.Steps) {
		t.Errorf("log marks %d steps, want %d: %s", got, len(job.Steps), log.String())
	}
	files := map[string]string{}
	var statuses []Status
	last := ""
	for tr := tar.NewReader(&out); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		last = h.Name
		files[h.Name] = string(data)
		if h.Typeflag == tar.TypeSymlink {
			files[h.Name] = "-> " + h.Linkname
		}
		if path.Base(h.Name) == StatusName {
			var st Status
			if err := json.Unmarshal(data, &st); err != nil {
				t.Fatal(err)
			}
			statuses = append(statuses, st)
		}
	}
	if last != EndName {
		t.Errorf("the stream ends with %q, want %q", last, EndName)
	}
	if len(statuses) != len(job.Steps) {
		t.Fatalf("%d statuses, want %d", len(statuses), len(job.Steps))
	}
	return files, statuses
}

func TestRun(t *testing.T) {
	files, sts := runJob(t, Job{Steps: []Step{
		{"plain", "echo out; echo err >&2; mkdir $OUT/d; echo data >$OUT/d/f; ln -s f $OUT/d/l; mkfifo $OUT/pipe", long},
		{"fails", "exit 7", long},
		{"signal", "kill -9 $$", long},
		{"syntax", "if", long},
		{"sees", "cat step/plain/out/d/f", long},
		{"empty", "", long},
	}})
	for i, want := range []int{0, 7, 128 + 9, 2, 0, 0} {
		if got := sts[i]; got.Exit != want || got.TimedOut || got.Error != "" {
			t.Errorf("%s: got %+v, want exit %d", got.Name, got, want)
		}
	}
	for name, want := range map[string]string{
		"plain/stdout":  "out\n",
		"plain/stderr":  "err\n",
		"plain/out/d/f": "data\n",
		"plain/out/d/l": "-> f",
		"sees/stdout":   "data\n",
		"empty/stdout":  "",
	} {
		if got, ok := files[name]; !ok || got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if _, ok := files["plain/out/pipe"]; ok {
		t.Error("a pipe is in the stream")
	}
	if files["syntax/stderr"] == "" {
		t.Error("the shell's complaint is not in the stream")
	}
}

// A step that hangs is ended with its children, and the next one runs.
func TestTimeout(t *testing.T) {
	files, sts := runJob(t, Job{Steps: []Step{
		{"hangs", "echo before; sleep 1000 & echo $!; wait", 500 * time.Millisecond},
		{"next", "echo here", long},
	}})
	if got := sts[0]; !got.TimedOut || got.Exit != 128+int(syscall.SIGKILL) {
		t.Errorf("got %+v, want one ended at its time limit", got)
	}
	first, pid, _ := strings.Cut(strings.TrimSpace(files["hangs/stdout"]), "\n")
	if first != "before" {
		t.Errorf("output from before the time limit is lost: %q", files["hangs/stdout"])
	}
	if n, err := strconv.Atoi(pid); err != nil {
		t.Errorf("the child's pid: %v", err)
	} else if alive(n) {
		t.Errorf("child %d of the step outlives it", n)
	}
	if sts[1].Exit != 0 || files["next/stdout"] != "here\n" {
		t.Errorf("the next step: %+v", sts[1])
	}
}

// alive reports whether the process still runs, after giving it time to go.
func alive(pid int) bool {
	for range 1000 {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(data), ") Z ") {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

// A step ends when its shell does, even if something it left behind holds its
// output open.
func TestLeftBehind(t *testing.T) {
	files, sts := runJob(t, Job{Steps: []Step{
		{"leaves", "setsid sleep 1000 & echo $!", long},
		{"next", "kill $(cat step/leaves/stdout)", long},
	}})
	if sts[0].Exit != 0 || sts[0].TimedOut {
		t.Errorf("got %+v", sts[0])
	}
	if sts[1].Exit != 0 {
		t.Errorf("what the step left behind was gone: %s", files["next/stderr"])
	}
}

// Results of a step are in the stream before the next step begins.
func TestStreamsAsItGoes(t *testing.T) {
	var out bytes.Buffer
	flushed := []string{}
	a := &Agent{Dir: t.TempDir(), Log: io.Discard, Flush: func() error {
		flushed = append(flushed, out.String())
		return nil
	}}
	if err := a.Run(Job{Steps: []Step{{"one", "echo first-output", long}, {"two", "true", long}}}, &out); err != nil {
		t.Fatal(err)
	}
	if len(flushed) != 3 || !strings.Contains(flushed[0], "first-output") || !strings.Contains(flushed[0], "one/"+StatusName) {
		t.Error("the first step's results were not flushed with it")
	}
}

func TestWriteError(t *testing.T) {
	a := &Agent{Dir: t.TempDir(), Log: io.Discard}
	want := errors.New("disk full")
	if err := a.Run(Job{Steps: []Step{{"one", "true", long}}}, failing{want}); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
