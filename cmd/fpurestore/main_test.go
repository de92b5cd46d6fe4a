package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// cleanup is what platform-specific tests leave to the end.
var cleanup []func()

// commands are what the test binary is if it is called so.
var commands = map[string]func(){"fpurestore": main}

func TestMain(m *testing.M) { testscript.Main(withCleanup{m}, commands) }

type withCleanup struct{ *testing.M }

func (m withCleanup) Run() int {
	defer func() {
		for _, f := range cleanup {
			f()
		}
	}()
	return m.M.Run()
}
