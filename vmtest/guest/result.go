package guest

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/vmtest/guest/internal/agent"
)

// unpack copies the tar stream on the disk to dir, a directory per step, and
// fills in the steps' results. Of a stream that was cut off it takes the steps
// that are whole, and then returns false. The error is of the file system, or
// says what in the stream is not as the agent writes it.
func (r *Result) unpack(disk, dir string) (ended bool, err error) {
	f, err := os.Open(disk)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return false, err
	}
	// A root: what the guest writes cannot lead out of it.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	return r.unpackTar(f, root)
}

func (r *Result) unpackTar(disk io.Reader, root *os.Root) (ended bool, err error) {
	tr := tar.NewReader(disk)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
			return false, nil // cut off; a whole stream ends with EndName, below
		}
		if err != nil {
			return false, err
		}
		step, file, _ := strings.Cut(path.Clean(h.Name), "/")
		switch {
		case step == agent.EndName && file == "":
			return true, nil
		case file == agent.StatusName:
			var st agent.Status
			if err := json.NewDecoder(tr).Decode(&st); err != nil {
				return false, nil // cut off in here: zeros follow
			}
			res, err := newStepResult(root, st)
			if err != nil {
				return false, err
			}
			r.Steps = append(r.Steps, res)
		default:
			if err := extract(root, h, tr); err != nil {
				return false, err
			}
		}
	}
}

func newStepResult(root *os.Root, st agent.Status) (StepResult, error) {
	res := StepResult{
		Name: st.Name, Exit: st.Exit, TimedOut: st.TimedOut, Error: st.Error,
		Kernel: st.Kernel, Dir: filepath.Join(root.Name(), st.Name, agent.OutName), Elapsed: st.Elapsed,
	}
	for name, to := range map[string]*string{agent.StdoutName: &res.Stdout, agent.StderrName: &res.Stderr} {
		data, err := root.ReadFile(filepath.Join(st.Name, name))
		if err != nil && !(st.Error != "" && errors.Is(err, fs.ErrNotExist)) {
			return res, err
		}
		*to = string(data)
	}
	return res, nil
}

func extract(root *os.Root, h *tar.Header, r io.Reader) (err error) {
	to := filepath.FromSlash(path.Clean(h.Name))
	if err := root.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(to, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, to)
	case tar.TypeReg:
		f, err := root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, h.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // cut off here; the step's status will be missing
		}
		if err := closeFile(f, err); err != nil {
			return err
		}
		return root.Chtimes(to, h.ModTime, h.ModTime)
	}
	return fmt.Errorf("guest: result %q has the unknown type %q", h.Name, h.Typeflag)
}
