package testprog

import (
	_ "embed"
	"fmt"
	"path"
	"strings"
)

// Lib is the shell functions start, pids, alive, await, dump, opened, restore and
// stop, to be put before a step's own lines.
//
//go:embed lib.sh
var Lib string

// Program is a test program in a guest. Its methods give the scripts of the
// steps in its life, in one guest or several: a step succeeds if what it is
// named after did. The file it keeps its status in is the same everywhere, as
// the checkpoint has its path.
type Program struct {
	// Name is that of its status file in /tmp.
	Name string

	// PID is the process it is to be, some 100 apart from the next program's,
	// and above 100000.
	PID int

	// Root is the directory that is the program's root, "" for that of the guest:
	// Command goes there by itself ("chroot $ROOT /program $STATUS").
	Root string

	// Command is the shell words to start it, in which $STATUS stands for the
	// status file: "/job/fpuhold auto $STATUS 8".
	Command string

	// Probe is the shell command that succeeds if the program answers as it should,
	// for one that writes no status file itself: that is then done when it answers.
	Probe string
}

// Status is the path of the program's status file in the guest.
func (p Program) Status() string { return path.Join("/", p.Root, p.status()) }

func (p Program) status() string { return path.Join("/tmp", p.Name) }

// Start is the script that starts the program. It prints the program's last
// lines when it has ticked twice.
func (p Program) Start() string {
	return p.script("start %d $FILE %s\nawait 2 $FILE %[1]d\n", p.PID, p.Command)
}

// Dump is the script that has CRIU checkpoint the program into $OUT, with
// further options for CRIU.
func (p Program) Dump(options string) string {
	return p.script("dump %d $OUT %s\n", p.PID, options)
}

// Restore is the script that has CRIU restore the checkpoint in the guest's
// directory images, with further options for CRIU. CRIU's log goes to
// $OUT/restore.log. The step exits with CRIU's status if that is not 0, else
// prints the program's last lines when it has ticked three times, and fails if
// it does not live so long.
func (p Program) Restore(images, options string) string {
	return p.script("restore %s $OUT/restore.log %s\nawait 3 $FILE %d\n", images, options, p.PID)
}

// Await is the script that prints the program's last lines when it has ticked
// n times more, and fails if it does not live so long.
func (p Program) Await(n int) string {
	return p.script("await %d $FILE %d\n", n, p.PID)
}

// Stop is the script that ends the program, if it lives.
func (p Program) Stop() string {
	return p.script("stop %d\n", p.PID)
}

func (p Program) script(format string, args ...any) string {
	return Lib + "set -e\n" + p.Variables() + fmt.Sprintf(format, args...)
}

// Variables sets $FILE to the status file, and what the functions of Lib and the
// commands of the program use. It is one line, for a script of several programs.
func (p Program) Variables() string {
	return fmt.Sprintf("FILE=%s ROOT=%s STATUS=%s PROBE='%s'\n", p.Status(), p.Root, p.status(), strings.ReplaceAll(p.Probe, "'", `'\''`))
}
