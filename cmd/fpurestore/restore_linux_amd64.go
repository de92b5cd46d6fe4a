package main

import (
	"runtime"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/cpuid"
)

// The main goroutine keeps the main thread, so that the one that traces has another:
// the main thread does not end with a goroutine.
func init() { runtime.LockOSThread() }

// linux is this machine.
var linux = machine{
	host:   cpuid.Host,
	tree:   ptrace.Tree,
	tasks:  ptrace.Tasks,
	status: ptrace.ReadStatus,
	open:   func(pids ...int) (tracer, error) { return ptrace.Open(pids...) },
	catch:  catch,
}

func live(s *cli.IO, o *options) (cli.Exit, error) { return restoreOn(linux, s, o) }
