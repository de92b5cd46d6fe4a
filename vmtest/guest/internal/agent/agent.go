//go:build unix

package agent

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Agent runs jobs.
type Agent struct {
	Dir   string       // scratch directory; scripts start in it
	KMsg  *KMsg        // nil: the steps have no kernel log
	Log   io.Writer    // gets a line at the begin and the end of each step
	Flush func() error // called after each step, when its part of the stream is written
}

// Run runs the steps in order and writes their results to w, each as soon as
// it is complete. The error is about the stream or the scratch directory; what
// a step does is never an error.
func (a *Agent) Run(job Job, w io.Writer) error {
	tw := tar.NewWriter(w)
	flush := func() error {
		if err := tw.Flush(); err != nil || a.Flush == nil {
			return err
		}
		return a.Flush()
	}
	for i, s := range job.Steps {
		fmt.Fprintf(a.Log, "%s%d/%d %s\n", BeginMark, i+1, len(job.Steps), s.Name)
		st := a.step(s)
		fmt.Fprintf(a.Log, "step %d/%d done: exit %d after %s\n", i+1, len(job.Steps), st.Exit, st.Elapsed.Round(time.Millisecond))
		if err := a.collect(tw, st); err != nil {
			return fmt.Errorf("results of step %s: %w", s.Name, err)
		}
		if err := flush(); err != nil {
			return fmt.Errorf("results of step %s: %w", s.Name, err)
		}
	}
	if err := writeJSON(tw, EndName, nil); err != nil {
		return err
	}
	if err := tw.Close(); err != nil || a.Flush == nil {
		return err
	}
	return a.Flush()
}

func (a *Agent) stepDir(name string) string { return filepath.Join(a.Dir, "step", name) }

func (a *Agent) step(s Step) (st Status) {
	st = Status{Name: s.Name, Exit: -1}
	begin := time.Now()
	defer func() {
		st.Elapsed = time.Since(begin)
		if a.KMsg != nil {
			st.Kernel = a.KMsg.Read()
		}
	}()
	dir := a.stepDir(s.Name)
	out := filepath.Join(dir, OutName)
	if err := os.MkdirAll(out, 0o755); err != nil {
		st.Error = err.Error()
		return st
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(s.Script), 0o755); err != nil {
		st.Error = err.Error()
		return st
	}
	// Files and no pipes: a process that the step leaves running holds its
	// output open, and a pipe's reader would wait for it.
	stdout, err := os.Create(filepath.Join(dir, StdoutName))
	if err != nil {
		st.Error = err.Error()
		return st
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(dir, StderrName))
	if err != nil {
		st.Error = err.Error()
		return st
	}
	defer stderr.Close()

	cmd := exec.Command("/bin/sh", script)
	cmd.Dir = a.Dir
	cmd.Env = append(os.Environ(), "OUT="+out)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		st.Error = err.Error()
		return st
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	limit := time.NewTimer(s.Timeout)
	defer limit.Stop()
	select {
	case err = <-done:
	case <-limit.C:
		st.TimedOut = true
		// The group: the shell's children go with it. What the step put in a
		// session of its own was meant to outlive it.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		err = <-done
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		st.Error = err.Error()
		return st
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		st.Exit = 128 + int(ws.Signal())
	} else {
		st.Exit = ws.ExitStatus()
	}
	return st
}

func (a *Agent) collect(tw *tar.Writer, st Status) error {
	dir := a.stepDir(st.Name)
	for _, name := range []string{StdoutName, StderrName, OutName} {
		if err := addTree(tw, path.Join(st.Name, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	// Last, so that a step whose results were cut off does not count as run.
	return writeJSON(tw, path.Join(st.Name, StatusName), st)
}

func addTree(tw *tar.Writer, name, root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a live process may remove files of its own
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		return add(tw, path.Join(name, filepath.ToSlash(rel)), p)
	})
}

func add(tw *tar.Writer, name, p string) error {
	fi, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: int64(fi.Mode().Perm()), ModTime: fi.ModTime(), Format: tar.FormatPAX}
	var data []byte
	switch {
	case fi.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case fi.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(p); err != nil {
			return err
		}
	case fi.Mode().IsRegular():
		// Read whole before its length is written: a live process may still
		// append to it.
		if data, err = os.ReadFile(p); err != nil {
			return err
		}
		h.Typeflag, h.Size = tar.TypeReg, int64(len(data))
	default:
		return nil // sockets and pipes
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = tw.Write(data)
	return err
}

func writeJSON(tw *tar.Writer, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = tw.Write(data)
	return err
}

// KMsg reads the kernel's log.
type KMsg struct{ fd int }

// OpenKMsg opens the kernel's log behind its last line.
func OpenKMsg() (*KMsg, error) {
	fd, err := syscall.Open("/dev/kmsg", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/dev/kmsg", Err: err}
	}
	if _, err := syscall.Seek(fd, 0, io.SeekEnd); err != nil {
		syscall.Close(fd)
		return nil, &fs.PathError{Op: "seek", Path: "/dev/kmsg", Err: err}
	}
	return &KMsg{fd}, nil
}

// Read returns the lines logged since the last call.
func (k *KMsg) Read() string {
	var lines strings.Builder
	buf := make([]byte, 8192) // one read gives one record
	for {
		n, err := syscall.Read(k.fd, buf)
		if err == syscall.EINTR || err == syscall.EPIPE {
			continue // EPIPE: the ring buffer overran us; go on with what is left
		}
		if err != nil || n <= 0 {
			return lines.String()
		}
		// "level,sequence,time,flags;text\n", then continuation lines that
		// begin with a space: Documentation/ABI/testing/dev-kmsg.
		_, text, ok := bytes.Cut(buf[:n], []byte(";"))
		if !ok {
			continue
		}
		text, _, _ = bytes.Cut(text, []byte("\n"))
		lines.Write(text)
		lines.WriteByte('\n')
	}
}
