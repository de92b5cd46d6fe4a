package main

import (
	"runtime"
	"runtime/debug"

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

func live(s *cli.IO, o *options) (cli.Exit, error) {
	// The garbage of a run is small, and the target would wait for the collector.
	debug.SetMemoryLimit(1 << 30)
	debug.SetGCPercent(-1)
	return restoreOn(linux, s, o)
}
