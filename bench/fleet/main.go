// Fleet compares fpuimg with programs that do the least that could be done, and with
// what a user could take instead, and prints the ratios. See docs/PERFORMANCE.md.
//
//	cd bench && go run ./fleet
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	n := flag.Int("n", 10000, "core `images`")
	rounds := flag.Int("rounds", 5, "`times` that each row is measured")
	archive := flag.Int("archive", 2048, "`MiB` of memory in the archives")
	only := flag.String("only", "", "one `part`: start, check, show, hosts, code, level, convert, restore, memory or archives")
	record := flag.Bool("record", false, "write the CPU ratios to "+ratiosFile+", which later runs are held against")
	flag.Parse()
	if err := run(&bench{n: *n, rounds: *rounds, archive: *archive}, *only, *record); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(b *bench, only string, record bool) (err error) {
	if b.recorded, err = readRatios(); err != nil {
		return err
	}
	if b.tmp, err = os.MkdirTemp("", "fleet"); err != nil {
		return err
	}
	defer os.RemoveAll(b.tmp)
	if err := b.build(); err != nil {
		return err
	}
	if b.one, err = makeFleet(filepath.Join(b.tmp, "one"), 1, b.n, 0); err != nil {
		return err
	}
	if b.many, err = makeFleet(filepath.Join(b.tmp, "many"), b.n/10, b.n, 0); err != nil {
		return err
	}
	if err := syncAll(b.tmp); err != nil {
		return err
	}
	fmt.Printf("%d core images, median of %d runs in turns, %s, %d CPUs\n\n", b.n, b.rounds, cpuModel(), runtime.NumCPU())
	b.head()
	for _, part := range []struct {
		name    string
		measure func() error
	}{
		{"start", b.start}, {"check", b.check}, {"show", b.show}, {"hosts", b.hosts},
		{"code", b.code}, {"level", b.level}, {"convert", b.convert}, {"restore", b.restore}, {"memory", b.memory}, {"archives", b.archives},
	} {
		if only != "" && only != part.name {
			continue
		}
		if err := part.measure(); err != nil {
			return err
		}
	}
	if record {
		return writeRatios(b.recorded)
	}
	fmt.Print(strings.Join(append([]string{""}, b.slower...), "\n"))
	return nil
}

// bench is one run of all comparisons.
type bench struct {
	tmp       string
	n, rounds int
	archive   int      // MiB of memory in the archives
	one, many []string // the checkpoints: all images in one, ten images in each

	recorded ratios
	slower   []string // a line for each row that takes more CPU time than was recorded
}

// build builds fpuimg as the Makefile does, and what it is compared with. It copies them,
// as make install does: what a linker has mapped and written lies in the page cache by
// single pages, and starts a tenth slower until it is read from the disk.
func (b *bench) build() error {
	for _, args := range [][]string{
		{"make", "-C", "..", "build", "BIN=" + b.tmp},
		{"go", "build", "-o", b.tmp + "/", "./copyall", "./gocrit", "./nothing"},
		{"sh", "-c", `for c in yardsticks/*.c; do gcc -O2 -Wall -o "$0/$(basename "$c" .c)" "$c" || exit 1; done`, b.tmp},
		{"sh", "-c", `cd "$0" && for f in *; do cp "$f" .copy && mv .copy "$f" || exit 1; done`, b.tmp},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%v: %w", args, err)
		}
	}
	return nil
}

// cpuModel names the CPU of this machine.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
