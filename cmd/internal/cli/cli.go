// Package cli is what the two programs share on the command line: exit codes, how
// they talk on standard error, colour, and manuals that are --help and man page at
// once.
package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/fatih/color"
	"github.com/mattn/go-isatty"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// Exit is an exit code of either program.
type Exit int

const (
	OK        Exit = 0 // compatible, or done
	Refused   Exit = 1 // refused by policy, incompatible, or different
	Usage     Exit = 2 // the command line makes no sense
	Damaged   Exit = 3 // damaged or unreadable input, or an I/O error
	Unchanged Exit = 4 // the live process stopped the restore, and is as it was
	Broken    Exit = 5 // a restore failed and some thread could not be put back
)

// Worst returns the worse of two exit codes: 0 < 1 < 3 < 4 < 5, and 2 above all,
// since it ends a run before it starts.
func Worst(a, b Exit) Exit {
	rank := [...]int{OK: 0, Refused: 1, Damaged: 2, Unchanged: 3, Broken: 4, Usage: 5}
	if rank[a] >= rank[b] {
		return a
	}
	return b
}

// UsageError is a command line that makes no sense; it ends the program with
// [Usage].
type UsageError struct {
	Err  error
	Hint string // what to type instead, "" if nothing comes to mind
}

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// HintError is any other error that there is something to do about.
type HintError struct {
	Err  error
	Hint string
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// Hinted adds a hint to an error; nil stays nil.
func Hinted(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return &HintError{err, hint}
}

// IO is a program's streams. Standard output is data and standard error is talk.
type IO struct {
	Program string
	In      io.Reader
	Out     *bufio.Writer
	Err     io.Writer

	outTTY, errTTY bool
	color          string
}

// NewIO wraps the streams of the program called name.
func NewIO(name string, in io.Reader, out, err io.Writer) *IO {
	return &IO{Program: name, In: in, Out: bufio.NewWriterSize(out, 64<<10), Err: err,
		outTTY: isTerminal(out), errTTY: isTerminal(err), color: "auto"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && (isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()))
}

// OutIsTerminal reports whether standard output is a terminal.
func (s *IO) OutIsTerminal() bool { return s.outTTY }

// Colors are the values of --color.
var Colors = []string{"auto", "always", "never"}

// style returns a colour that is on or off for a stream, by --color, NO_COLOR
// (no-color.org) and whether the stream is a terminal.
func (s *IO) style(tty bool, attrs ...color.Attribute) *color.Color {
	c := color.New(attrs...)
	on := s.color == "always"
	if s.color == "auto" {
		on = tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	if on {
		c.EnableColor()
	} else {
		c.DisableColor()
	}
	return c
}

// OutStyle returns a colour for standard output.
func (s *IO) OutStyle(attrs ...color.Attribute) *color.Color { return s.style(s.outTTY, attrs...) }

const minWidth = 20

// Width returns the columns that standard output has: of the terminal, else 80.
// COLUMNS overrides both. It is never less than what some text needs.
func (s *IO) Width() int {
	if n := 0; os.Getenv("COLUMNS") != "" {
		if _, err := fmt.Sscan(os.Getenv("COLUMNS"), &n); err == nil && n > 0 {
			return max(n, minWidth)
		}
	}
	if s.outTTY {
		if ws, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
			return max(int(ws.Col), minWidth)
		}
	}
	return 80
}

// Errorf, Warnf and Hint talk to the user: "fpuimg: error: ...".
func (s *IO) Errorf(format string, args ...any) {
	s.talk("error", color.FgRed, fmt.Sprintf(format, args...))
}

// Error reports an error: each of those that [errors.Join] has made one of has a line.
func (s *IO) Error(err error) {
	for _, err := range parts(err) {
		s.Errorf("%v", err)
	}
}

// parts returns the errors that [errors.Join] has made one of, joined ones among them
// taken apart too.
func parts(err error) []error {
	if hinted, ok := err.(*HintError); ok {
		err = hinted.Err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var out []error
	for _, err := range joined.Unwrap() {
		out = append(out, parts(err)...)
	}
	return out
}

// Warnf says what may break.
func (s *IO) Warnf(format string, args ...any) {
	s.talk("warning", color.FgYellow, fmt.Sprintf(format, args...))
}

// Hint says what to do next, unless that is "".
func (s *IO) Hint(text string) {
	if text != "" {
		s.talk("hint", color.FgCyan, text)
	}
}

// Sayf reports on standard error what was done.
func (s *IO) Sayf(format string, args ...any) {
	s.Out.Flush()
	fmt.Fprintf(s.Err, "%s: %s\n", s.Program, Printable(fmt.Sprintf(format, args...)))
}

// Progress returns a function that shows how many bytes are done, on a terminal;
// elsewhere it returns nil.
func (s *IO) Progress(what string) func(done int64) {
	if !s.errTTY {
		return nil
	}
	var last time.Time
	return func(done int64) {
		if now := time.Now(); now.Sub(last) > 200*time.Millisecond {
			last = now
			fmt.Fprintf(s.Err, "\r%s: %s %d MiB\x1b[K\r", s.Program, Printable(what), done>>20)
		}
	}
}

func (s *IO) talk(kind string, c color.Attribute, text string) {
	s.Out.Flush() // what was said first stands first
	fmt.Fprintf(s.Err, "%s: %s %s\n", s.Program, s.style(s.errTTY, c, color.Bold).Sprint(kind+":"), Printable(text))
}

// Printable replaces what would disturb a terminal or look like a line of its own:
// file and task names come from other machines.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !printable(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// printable reports whether a character is seen, and does nothing else: neither a
// control of the terminal or of the direction of text, nor without a shape.
func printable(r rune) bool {
	if r < 0x7f { // as nearly all are
		return r >= ' '
	}
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Finish reports err, if any, flushes standard output and returns the exit code:
// that of err, or code if err is nil.
func (s *IO) Finish(code Exit, err error) Exit {
	var usage *UsageError
	switch {
	case err == nil:
	case errors.As(err, &usage):
		s.Error(err)
		s.Hint(usage.Hint)
		code = Usage
	case errors.Is(err, syscall.EPIPE):
	default:
		s.Error(err)
		if hinted, ok := errors.AsType[*HintError](err); ok {
			s.Hint(hinted.Hint)
		}
		code = Worst(code, Damaged)
	}
	// Who closed the pipe has seen enough; that is no error of ours.
	if failed := s.Out.Flush(); failed != nil && !errors.Is(failed, syscall.EPIPE) && !errors.Is(err, failed) {
		s.Errorf("standard output: %v", failed)
		code = Worst(code, Damaged)
	}
	return code
}

// colorFlag is the --color option.
type colorFlag struct{ io *IO }

// ColorFlag returns the value behind --color, which takes effect at once.
func ColorFlag(s *IO) pflag.Value { return colorFlag{s} }

func (f colorFlag) String() string {
	if f.io == nil {
		return "auto"
	}
	return f.io.color
}

func (f colorFlag) Set(mode string) error {
	if !slices.Contains(Colors, mode) {
		return Unknown(fmt.Errorf("--color=%s: unknown value", mode), "--color=", mode, "the values", Colors)
	}
	f.io.color = mode
	return nil
}

func (f colorFlag) Type() string { return "when" }

// Unknown returns a [*UsageError] for a word that is none of those that may stand in
// its place. The hint names the nearest of them, with what stands before it on the
// command line ("--to="), and all: "the formats are ...".
func Unknown(err error, before, word, plural string, words []string) *UsageError {
	hint := plural + " are " + strings.Join(words, ", ")
	if near := Nearest(word, words); near != "" {
		hint = "did you mean " + before + near + "? " + hint
	}
	return &UsageError{Err: err, Hint: hint}
}

// Nearest returns the candidate that is one or two typing errors away from word, or
// else one that begins so, "" if there is none. Of equally near ones it is the last.
func Nearest(word string, candidates []string) string {
	best, least := "", min(2, len(word)/2)
	word = strings.ToLower(word)
	for _, c := range candidates {
		if d := distance(word, strings.ToLower(c)); d <= least {
			best, least = c, d
		}
	}
	for _, c := range candidates {
		if best == "" && word != "" && strings.HasPrefix(strings.ToLower(c), word) {
			best = c
		}
	}
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
