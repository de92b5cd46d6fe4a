package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// archives is fpuimg check on a large archive as Podman makes it, plain, where it need
// not read the memory pages, and compressed, against the tools that only unpack it.
func (b *bench) archives() error {
	plain := filepath.Join(b.tmp, "ckpt.tar")
	if err := makeArchive(plain, filepath.Join(b.tmp, "fpuimg"), int64(b.archive)<<20); err != nil {
		return err
	}
	r := row{name: "archive, tar", limit: "10 MiB read", ours: b.cmd("fpuimg", "check", host, plain)}
	if err := b.compare(r, 1); err != nil {
		return err
	}
	packed := plain + ".packed"
	for _, in := range []struct {
		how, limit, pack, unpack string
	}{
		{"gzip -1", "1.2, 64 MiB", "gzip -1 -c %q >%q", "gzip -dc %q | cat"},
		{"zstd -1", "2.1, 64 MiB", "zstd -q -1 -c %q >%q", "exec zstd -dc %q"},
		{"zstd -3", "2.1, 64 MiB", "zstd -q -3 -c %q >%q", "exec zstd -dc %q"},
		{"zstd by Podman", "2.1, 64 MiB", "", "exec zstd -dc %q"},
	} {
		tool := in.how[:4]
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "fleet: no %s: not compared with it\n", tool)
			continue
		}
		if in.pack == "" {
			if err := packLikePodman(packed, plain); err != nil {
				return err
			}
		} else if err := shell(fmt.Sprintf(in.pack, plain, packed)).Run(); err != nil {
			return fmt.Errorf("%s: %w", in.how, err)
		}
		r := row{name: "archive, " + in.how, limit: in.limit, ours: b.cmd("fpuimg", "check", host, packed)}
		r.floor = command{args: shell(fmt.Sprintf(in.unpack, packed)).Args}
		if err := b.compare(r, min(b.rounds, 5)); err != nil {
			return err
		}
	}
	return os.Remove(plain)
}

// packLikePodman compresses a file with the library that Podman has for zstd, at the
// level that it takes by default.
func packLikePodman(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	enc, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	_, err = io.Copy(enc, in)
	return errors.Join(err, enc.Close(), out.Close())
}

func shell(script string) *exec.Cmd { return exec.Command("sh", "-c", script) }

// makeArchive writes a real checkpoint of Podman with one pages image grown to size.
// Its memory is half untouched, a quarter the text of a program, and a quarter random.
func makeArchive(path, program string, size int64) error {
	from, err := os.Open(filepath.Join(images, "p-none", "p-none.tar"))
	if err != nil {
		return err
	}
	defer from.Close()
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	in, out := tar.NewReader(from), tar.NewWriter(to)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(out.Close(), to.Close())
		}
		if err != nil {
			return err
		}
		content := io.Reader(in)
		if strings.HasSuffix(h.Name, "/pages-1.img") {
			h.Size, content = size, &memory{text: text}
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyN(out, content, h.Size); err != nil {
			return err
		}
	}
}

// memory is what a process may have in its memory, without an end.
type memory struct {
	text []byte
	at   int // in the text
	rng  rand.ChaCha8
}

func (m *memory) Read(p []byte) (int, error) {
	switch m.rng.Uint64() % 4 {
	case 0:
		return m.rng.Read(p)
	case 1:
		n := copy(p, m.text[m.at:])
		m.at = (m.at + n) % len(m.text)
		return n, nil
	}
	clear(p)
	return len(p), nil
}
