package main

import (
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// commands are what the test binary is if it is called so.
var commands = map[string]func(){"fpurestore": main}

func TestMain(m *testing.M) { testcmd.Main(m, commands) }
