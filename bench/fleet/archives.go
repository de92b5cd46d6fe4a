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
)

// archives is fpuimg check on a large archive as Podman makes it, plain, where it need
// not read the memory pages, and compressed, against the tools that only unpack it.
func (b *bench) archives() error {
	plain := filepath.Join(b.tmp, "ckpt.tar")
	if err := makeArchive(plain, b.program("fpuimg"), int64(b.archive)<<20); err != nil {
		return err
	}
	what := fmt.Sprintf("check a tar of %d MiB", b.archive)
	if err := b.alone(what, "10 MiB read", b.cmd("fpuimg", "check", host, plain)); err != nil {
		return err
	}
	for _, tool := range []string{"gzip", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "fleet: no %s: not compared with it\n", tool)
			continue
		}
		packed := plain + "." + tool
		if err := shell(fmt.Sprintf("%s -1 -c %q >%q", tool, plain, packed)).Run(); err != nil {
			return fmt.Errorf("%s: %w", tool, err)
		}
		unpack := command{args: shell(fmt.Sprintf("%s -dc %q | cat", tool, packed)).Args}
		if err := b.compare(what+", "+tool+" / unpack it", "1.2, 64 MiB", min(b.rounds, 3), b.cmd("fpuimg", "check", host, packed), unpack); err != nil {
			return err
		}
		if err := os.Remove(packed); err != nil {
			return err
		}
	}
	return os.Remove(plain)
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
