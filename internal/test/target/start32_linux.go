package testtarget

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
)

// State32 is what the program target32 says of itself, a 32-bit process with one thread of
// known contents: at its start, and after each line that it is given.
type State32 struct {
	PID, TID    int
	Mask        uint64 // components that it loads and saves
	Given, Held []byte
}

// Process32 is one that runs, and what it said last.
type Process32 struct {
	State32

	cmd *exec.Cmd
	in  io.Writer
	out *json.Decoder
}

// Start32 runs the program.
func Start32(exe string) (*Process32, error) {
	p := &Process32{cmd: exec.Command(exe)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.in, p.out = in, json.NewDecoder(out)
	return p, p.read()
}

func (p *Process32) read() error {
	p.State32 = State32{}
	return p.out.Decode(&p.State32)
}

// Snap has the thread save what it holds.
func (p *Process32) Snap() error {
	if _, err := p.in.Write([]byte("\n")); err != nil {
		return err
	}
	return p.read()
}

// End ends it.
func (p *Process32) End() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
