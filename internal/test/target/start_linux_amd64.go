package testtarget

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Process is a running target: the process of the first block, and what it started.
type Process struct {
	Head   *Head
	Blocks []Block
	PID    int

	cmd *exec.Cmd
	in  io.Closer
}

// Start runs the program with n blocks, which lay fills. The threads read from the files,
// from descriptor 3 on; args are those of the program after the file of the blocks.
func Start(exe string, n int, lay func(*Head, []Block), files []*os.File, args ...string) (*Process, error) {
	file, err := os.CreateTemp("", "fpurestore-target-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := file.Truncate(int64((1 + n) * BlockSize)); err != nil {
		return nil, err
	}
	p := &Process{}
	if p.Head, p.Blocks, err = Map(file, n); err != nil {
		return nil, err
	}
	lay(p.Head, p.Blocks)
	if err := p.run(exec.Command(exe, append([]string{file.Name()}, args...)...), files); err != nil {
		p.End()
		return nil, err
	}
	return p, nil
}

func (p *Process) run(cmd *exec.Cmd, files []*os.File) error {
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, files
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.in = cmd, in
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		p.PID, err = strconv.Atoi(strings.TrimSpace(line))
	}
	return err
}

// End ends the target: its processes die with the program that started them.
func (p *Process) End() {
	if p.cmd != nil && p.cmd.ProcessState == nil {
		p.in.Close()
		p.cmd.Wait()
	}
}

// Close is End, and gives the blocks back.
func (p *Process) Close() error {
	p.End()
	return Unmap(p.Head, p.Blocks)
}

// Link has the thread of one block start that of another.
func Link(blocks []Block, parent, child int) {
	link := &blocks[parent].First
	for *link != 0 {
		link = &blocks[*link-1].Sibling
	}
	*link = uint64(1 + child)
}
