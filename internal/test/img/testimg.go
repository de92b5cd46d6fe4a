// Package testimg gives tests the real checkpoints of testdata/images, and what
// the dumped programs said their registers held. Its README.md describes them.
package testimg

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// Kinds of entries, the value of [Truth.Kind].
const (
	CRIU    = "criu"    // a CRIU images directory as it was dumped
	Edited  = "edited"  // one that was changed afterwards
	Archive = "archive" // a podman archive
	ELFCore = "elfcore" // an ELF core
)

// root is testdata/images, found by walking up from the package under test.
var root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		images := filepath.Join(dir, "testdata", "images")
		if _, err := os.Stat(filepath.Join(images, "matrix.tsv")); err == nil {
			return images, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no testdata/images above the working directory")
		}
		dir = up
	}
})

// Path returns the path of something in testdata/images.
func Path(tb testing.TB, elem ...string) string {
	tb.Helper()
	dir, err := root()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

// Read returns the content of a file in testdata/images.
func Read(tb testing.TB, elem ...string) []byte {
	tb.Helper()
	b, err := os.ReadFile(Path(tb, elem...))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Glob returns the paths in testdata/images that match the pattern, sorted. A
// pattern that matches nothing fails the test.
func Glob(tb testing.TB, pattern string) []string {
	tb.Helper()
	paths, err := filepath.Glob(Path(tb, filepath.FromSlash(pattern)))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no test image matches %q: %v", pattern, err)
	}
	return paths
}

// Name returns the path of a file relative to testdata/images, with slashes: a
// name for subtests.
func Name(tb testing.TB, path string) string {
	tb.Helper()
	rel, err := filepath.Rel(Path(tb), path)
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.ToSlash(rel)
}

// Cores returns the core images of all CRIU directories, edited ones included.
func Cores(tb testing.TB) []string {
	tb.Helper()
	return Glob(tb, "*/core-*.img")
}

// All returns the entries that have a truth.json, sorted by name; with kinds, only
// those.
func All(tb testing.TB, kinds ...string) []Truth {
	tb.Helper()
	var out []Truth
	for _, path := range Glob(tb, "*/truth.json") {
		t := Load(tb, filepath.Base(filepath.Dir(path)))
		if len(kinds) == 0 || slices.Contains(kinds, t.Kind) {
			out = append(out, t)
		}
	}
	return out
}

// Load reads the truth.json of one entry.
func Load(tb testing.TB, name string) Truth {
	tb.Helper()
	var t Truth
	if err := json.Unmarshal(Read(tb, name, "truth.json"), &t); err != nil {
		tb.Fatalf("%s: truth.json: %v", name, err)
	}
	t.Dir = Path(tb, name)
	return t
}

// Truth is a truth.json: what a dumped program said of itself.
type Truth struct {
	Dir   string `json:"-"` // the entry's directory
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Tasks []Task `json:"tasks"`
}

// Task is one process.
type Task struct {
	Mode    string   `json:"mode"`
	Bits    int      `json:"bits"` // 32 or 64
	XCR0    Uint     `json:"xcr0"` // 0 where XSAVE is not usable
	Threads []Thread `json:"threads"`
}

// Thread is one thread. A field that was not recorded is nil.
type Thread struct {
	PID   int    `json:"pid"`
	TID   int    `json:"tid"`
	Image string `json:"image"` // the core image's name; "" in an ELF core

	FCW       *Uint `json:"fcw"`
	FSW       *Uint `json:"fsw"`
	FTW       *Uint `json:"ftw_abridged"`
	FOP       *Uint `json:"fop"`
	FIP       *Uint `json:"fip"`
	FDP       *Uint `json:"fdp"`
	MXCSR     *Uint `json:"mxcsr"`
	MXCSRMask *Uint `json:"mxcsr_mask"`
	Top       *int  `json:"top"`

	ST  []Bytes `json:"st"`
	XMM []Bytes `json:"xmm"`
	YMM []Bytes `json:"ymm"`
	ZMM []Bytes `json:"zmm"`
	K   []Uint  `json:"k"`

	PKRU    *Uint   `json:"pkru"`
	BND     []Bytes `json:"bnd_raw"`
	BNDCSR  []Bytes `json:"bndcsr_raw"` // BNDCFGU, BNDSTATUS
	TileCfg []Bytes `json:"tilecfg"`
	TMM     []Bytes `json:"tmm"`

	// XSaveBV is XSTATE_BV as XSAVE stored it in the program; XSaveArea what it
	// stored, without trailing zeros, of XSaveSize bytes.
	XSaveBV   *Uint `json:"xsave_xstate_bv"`
	XSaveArea Bytes `json:"xsave_area_hex"`
	XSaveSize int   `json:"xsave_area_size"`
	FXSave    Bytes `json:"fxsave_hex"`
}

// Area returns XSaveArea at its full size, nil if it was not recorded.
func (t *Thread) Area() []byte {
	if t.XSaveArea == nil {
		return nil
	}
	return append(t.XSaveArea[:len(t.XSaveArea):len(t.XSaveArea)],
		make([]byte, t.XSaveSize-len(t.XSaveArea))...)
}

// Uint is a number written as "0x37f".
type Uint uint64

func (u *Uint) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 0, 64)
	*u = Uint(v)
	return err
}

// Bytes is a byte string written in hex.
type Bytes []byte

func (p *Bytes) UnmarshalText(b []byte) error {
	v, err := hex.DecodeString(string(b))
	*p = v
	return err
}
