//go:build unix

package testprog

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the command in a process group of its own, which killGroup
// ends: fpuhold has children that outlive it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
