// Fpurestore puts the FPU state of a checkpoint into a live process. `fpurestore
// --help` is its manual.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

func main() {
	// The garbage of a run is small, and the target would wait for the collector.
	debug.SetMemoryLimit(1 << 30)
	debug.SetGCPercent(-1)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are the command line.
type options struct {
	pid           int
	tree          bool
	dir           string
	files         []string
	force         bool
	dryRun        bool
	save          string
	mapping       map[int]int // image thread -> live thread
	ignoreMissing bool
	timeout       time.Duration
	json          bool

	restore bool // false: only --save
}

// run is the program, for main and for tests.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := cli.NewIO("fpurestore", stdin, stdout, stderr)
	code, err := dispatch(s, args, live)
	return int(s.Finish(code, err))
}

// dispatch reads the command line and has work do it.
func dispatch(s *cli.IO, args []string, work func(*cli.IO, *options) (cli.Exit, error)) (cli.Exit, error) {
	var o options
	var maps []string
	var version, roff bool
	var shell string
	fs := pflag.NewFlagSet("fpurestore", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	fs.IntVarP(&o.pid, "target", "t", 0, "the `process` to restore into")
	fs.BoolVar(&o.tree, "tree", false, "its descendants that the checkpoint holds, too")
	fs.StringVarP(&o.dir, "dir", "D", "", "the images `directory`; the current one if no FILE is named")
	fs.BoolVar(&o.force, "force", false, "go ahead where registers are lost")
	fs.BoolVar(&o.dryRun, "dry-run", false, "stop nothing; print the thread map and the plan")
	fs.StringVar(&o.save, "save", "", "write the live state to this new `directory`, before a restore or alone")
	fs.StringSliceVar(&maps, "map", nil, "put the image of one thread into another, `IMGTID=TID`")
	fs.BoolVar(&o.ignoreMissing, "ignore-missing", false, "leave out threads that only one side has")
	fs.DurationVar(&o.timeout, "timeout", 5*time.Second, "how long to wait for the threads to stop")
	fs.BoolVar(&o.json, "json", false, "print one JSON document")
	fs.Var(cli.ColorFlag(s), "color", "colour: `when` is auto, always or never")
	fs.StringVar(&shell, "completion", "", "print the script that completes fpurestore in `SHELL`: bash, zsh or fish")
	fs.BoolVar(&version, "version", false, "print the version and exit")
	fs.BoolVar(&roff, "roff", false, "print the manual as a man page")
	fs.Lookup("roff").Hidden = true
	manual.Flags = fs
	if err := cli.ParseFlags(fs, args, "fpurestore --help"); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			_, err := s.Out.WriteString(manual.Text())
			return cli.OK, err
		}
		return 0, err
	}
	switch {
	case roff:
		_, err := s.Out.WriteString(manual.Roff())
		return cli.OK, err
	case fs.Changed("completion"):
		return cli.OK, completionScript(s, fs, shell)
	case version:
		_, err := fmt.Fprintln(s.Out, cli.Version("fpurestore"))
		return cli.OK, err
	}
	o.files = fs.Args()
	if err := o.complete(maps); err != nil {
		return 0, err
	}
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return 0, &cli.UsageError{Err: errors.New("refusing to run set-uid or set-gid: whoever starts it could write into any process"),
			Hint: "take the bit off the binary and use sudo"}
	}
	return work(s, &o)
}

const mapHint = "--map=IMGTID=TID pairs one thread of the image with one of the process"

func (o *options) complete(maps []string) error {
	switch {
	case o.pid <= 0:
		return &cli.UsageError{Err: errors.New("restore into which process?"), Hint: "fpurestore -t PID"}
	case o.dir != "" && len(o.files) > 0:
		return &cli.UsageError{Err: errors.New("-D and FILE exclude each other"), Hint: "-D DIR takes all images of a checkpoint, FILE... those that are named"}
	case o.timeout <= 0:
		return &cli.UsageError{Err: fmt.Errorf("--timeout=%v: want more than nothing", o.timeout), Hint: "--timeout=5s, unless it is given"}
	}
	if o.save != "" {
		o.save = filepath.Clean(o.save)
	}
	o.restore = o.save == "" || o.dir != "" || len(o.files) > 0
	o.dir = cmp.Or(o.dir, ".")
	o.mapping = map[int]int{}
	used := map[int]bool{}
	for _, m := range maps {
		from, to, ok := strings.Cut(m, "=")
		img, err := strconv.Atoi(from)
		tid, err2 := strconv.Atoi(to)
		switch {
		case !ok || err != nil || err2 != nil || img <= 0 || tid <= 0:
			return &cli.UsageError{Err: fmt.Errorf("--map=%s: want two thread ids", m), Hint: mapHint}
		case o.mapping[img] != 0 || used[tid]:
			return &cli.UsageError{Err: fmt.Errorf("--map=%s: a thread is named twice", m), Hint: mapHint}
		}
		o.mapping[img], used[tid] = tid, true
	}
	return nil
}

var manual = cli.Manual{
	Name:     "fpurestore",
	Short:    "put the FPU state of a checkpoint into a live process",
	Synopsis: "-t PID [OPTION]... [-D DIR | FILE...]",
	Body: `
Stops every thread of the process, puts the FPU state of the images into all of
them, reads it back and lets them run on: all threads or none. On any failure
every thread gets its old state back. What is refused is refused before anything
is stopped. It takes the right to trace the process, which root has.

A thread of the image goes into the live thread of the same number, or, if that
leaves fewer threads over, of the number in the pid namespace of the process;
--map says otherwise. A single thread goes into a single thread. Threads that only
one side has are a refusal that lists them, unless --ignore-missing is given.
Without --tree the other tasks of a checkpoint do not count; with --tree all of
them have to be among the descendants of the process, and are restored in the
same transaction.

What this machine lacks is refused as by fpuimg convert, and --force strips it and
names each loss. Components that the image does not have become INIT, except PKRU,
which keeps its live value: INIT would open every key. AMX tiles go only into a
thread that has used tiles before: the kernel takes them for no other.

--save writes the state that the process has now as a small images directory,
which crit decodes and a later run restores. What a core image has no field for,
AMX tiles and APX registers, is kept beside it as the raw register set
xstate-TID.bin, and read from there. Together with a restore, it is the state from
before, so that the restore can be undone; it is written when the process runs
again. Should that fail, the exit status is 3, and the restore is done.

A stop interrupts what the process is doing as SIGSTOP and SIGCONT would: nearly
every system call is restarted, but epoll_wait and the others that signal(7)
lists return EINTR. A stopped process stays stopped. A thread that is in a signal
handler has its registers from before on its stack, and gets those back when the
handler returns, whatever was restored meanwhile. While a thread is stopped
nothing is printed and no file is written, so that nobody else can hold the
process up. Ctrl-C takes effect before the first thread is written, or not at all;
Ctrl-Z, when the process runs again. If fpurestore is killed, the kernel lets the
process run on, and each thread has either its old or its new state.

    fpurestore -t 4711 -D ckpt
    fpurestore -t 4711 --save before -D ckpt.fxsave
    fpurestore -t 4711 --dry-run core-7.img --map=7=4711
    fpurestore -t 4711 --save now
    fpurestore -t 4711 --tree -D before
    . <(fpurestore --completion=bash)
`,
	Exits: `
  0  done, even if the report could not be printed
  1  refused: registers would be lost, or threads do not match
  2  the command line makes no sense
  3  damaged or unreadable images, or an I/O error
  4  the process could not be stopped or written, and is as it was
  5  a restore failed and some thread could not be put back; it is named
`,
	See: []string{"fpuimg", "fpuimg-convert", "criu(8)", "ptrace(2)", "signal(7)"},
}
