package main

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/cpuid"
)

// linux is this machine.
var linux = machine{
	host:   cpuid.Host,
	tree:   ptrace.Tree,
	tasks:  ptrace.Tasks,
	status: ptrace.ReadStatus,
	open:   func(pids ...int) (tracer, error) { return ptrace.Open(pids...) },
	alone:  alone,
	catch:  catch,
}

func live(s *cli.IO, o *options) (cli.Exit, error) { return restoreOn(linux, s, o) }

// alone calls work on another OS thread than the main one, which does not end with a
// goroutine.
func alone(work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() == unix.Getpid() {
			alone(work)
		} else {
			work()
		}
	}()
	<-done
}
