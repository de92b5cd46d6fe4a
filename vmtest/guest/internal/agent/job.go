// Package agent runs the steps of a job inside the guest and writes what
// they leave behind as a tar stream.
//
// It is the part of the guest's init that needs neither a guest nor root, so
// that its promises can be tested as an ordinary process: a step that fails,
// hangs or leaves processes behind does not keep the next one from running.
package agent

import "time"

// Job is what the guest finds in its job file.
type Job struct {
	Steps []Step
}

// Step is one shell script.
type Step struct {
	Name    string // also the name of its result directory
	Script  string
	Timeout time.Duration
}

// Status is what the agent says of a step that it ran.
type Status struct {
	Name     string
	Exit     int    // exit status; 128 + the signal if one ended the step
	TimedOut bool   // ended by the agent at its time limit
	Error    string // why the step could not be run, if it could not
	Elapsed  time.Duration
	Kernel   string // what the kernel logged meanwhile
}

// Names inside the tar stream. A step has its own directory, named after it.
// EndName is the agent's last word: a stream without it was cut off.
const (
	EndName    = "end"
	StatusName = "status.json"
	StdoutName = "stdout"
	StderrName = "stderr"
	OutName    = "out"
)

// BeginMark starts the line that the agent logs at the begin of a step.
const BeginMark = "begin step "
