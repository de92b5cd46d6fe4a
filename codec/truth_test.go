package codec_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	"github.com/fpuimg/fpuimg/internal/test/truth"
)

// byDesign lists, for each image that does not hold what its program held, the
// registers that differ. A difference that is not here fails the test, and so does
// one of these that is not found.
var byDesign = map[string]map[string]string{
	"g-max-criu42-auto": {
		"bnd": "CRIU masks BNDREGS out by mistake",
	},
	"h-amx": {
		"tilecfg": "CRIU has no field for TILECFG",
		"tmm":     "CRIU has no field for TILEDATA",
	},
	"old-nofpregs": {
		"fpregs": "the FPU record was taken out",
	},
}

// image returns the checkpoint's threads by the name of their core images.
func image(t *testing.T, dir string) map[string]*codec.Core {
	t.Helper()
	c, err := checkpoint.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Problems {
		t.Error(p)
	}
	cores := map[string]*codec.Core{}
	for th, err := range c.Threads() {
		if err != nil {
			t.Fatal(err)
		}
		if got, want := filepath.Base(th.Image.Path), fmt.Sprintf("core-%d.img", th.TID); got != want {
			t.Errorf("thread %d has core image %s, want %s", th.TID, got, want)
		}
		cores[filepath.Base(th.Image.Path)] = th.Image
	}
	return cores
}

// TestTruth compares every register of every real image with what the program
// that was dumped said it held.
func TestTruth(t *testing.T) {
	total := map[string]int{}
	for _, entry := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		t.Run(entry.Name, func(t *testing.T) {
			cores := image(t, entry.Dir)
			c := truth.Compare()
			threads := 0
			for _, task := range entry.Tasks {
				for i := range task.Threads {
					th := &task.Threads[i]
					core := cores[th.Image]
					if core == nil {
						t.Fatalf("the checkpoint has no thread with core image %s", th.Image)
					}
					if got, want := core.State.Compat, task.Bits == 32; got != want {
						t.Errorf("%s: compat = %v, want %v", th.Image, got, want)
					}
					threads++
					c.Thread(&core.State, th)
				}
			}
			if threads != len(cores) {
				t.Errorf("%d threads in the image, want %d", len(cores), threads)
			}
			// Of every thread: 8 control words, TOP, 8 ST, and 8 XMM at least.
			if got, want := c.Sum(), 25*threads; got < want && byDesign[entry.Name]["fpregs"] == "" {
				t.Errorf("%d registers compared, want at least %d", got, want)
			}
			for class, diff := range c.Differs {
				if byDesign[entry.Name][class] == "" {
					t.Error(diff)
				}
			}
			for class, reason := range byDesign[entry.Name] {
				if c.Differs[class] == "" {
					t.Errorf("%s equals what the program held, want a difference: %s", class, reason)
				}
			}
			for class, n := range c.Compared {
				total[class] += n
			}
		})
	}
	// No class may drop out of the comparison unnoticed.
	for class, want := range map[string]int{"fcw": 240, "fsw": 240, "ftw": 240, "fop": 240, "fip": 240, "fdp": 240,
		"mxcsr": 240, "mxcsr_mask": 240, "top": 240, "st": 8 * 240, "xmm": 16 * 240, "ymm": 16 * 200, "zmm": 32 * 10,
		"k": 8 * 10, "pkru": 8, "bndcsr": 2, "bnd": 4, "tilecfg": 1, "tmm": 8} {
		if total[class] < want {
			t.Errorf("%s: %d registers compared in all, want at least %d", class, total[class], want)
		}
	}
	t.Logf("registers compared: %v", total)
}

// TestTruthArea decodes the XSAVE area that each program stored in its own memory
// and compares it with the state in the image: a second decoder and another
// container, the same state. It then builds an area from the image's state and
// reads it back.
func TestTruthArea(t *testing.T) {
	areas := 0
	for _, entry := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		if byDesign[entry.Name]["fpregs"] != "" {
			continue
		}
		t.Run(entry.Name, func(t *testing.T) {
			cores := image(t, entry.Dir)
			for _, task := range entry.Tasks {
				layout := xstate.GuessLayout(xstate.Features(task.XCR0), task.Threads[0].XSaveSize)
				for i := range task.Threads {
					th := &task.Threads[i]
					area := th.Area()
					if area == nil {
						continue
					}
					areas++
					if layout == nil {
						t.Fatalf("no layout for XCR0 %#x and %d bytes", task.XCR0, th.XSaveSize)
					}
					img := &cores[th.Image].State
					got, err := xstate.ParseArea(area, layout)
					if err != nil {
						t.Fatal(err)
					}
					if th.XSaveBV != nil && got.BV != xstate.Features(*th.XSaveBV) {
						t.Errorf("%s: area has XSTATE_BV %v, want %v", th.Image, got.BV, xstate.Features(*th.XSaveBV))
					}
					sameRegisters(t, th.Image, got, img, byDesign[entry.Name])
					roundTrip(t, th.Image, img, layout, th.XSaveSize)
				}
			}
		})
	}
	if areas < 40 {
		t.Errorf("%d areas compared, want at least 40", areas)
	}
}

// sameRegisters compares the registers of all components that the image holds, in
// two containers. A component in INIT may be recorded either way: its bit clear, or
// set with INIT in it.
func sameRegisters(t *testing.T, name string, area, img *xstate.State, except map[string]string) {
	t.Helper()
	for f := range (xstate.Legacy | area.BV | img.BV).All() {
		if img.Status(f) == xstate.Lost {
			if reg := map[xstate.Feature]string{xstate.BNDREGS: "bnd", xstate.TileCfg: "tilecfg", xstate.TileData: "tmm"}[f]; except[reg] == "" {
				t.Errorf("%s: %v is lost", name, f)
			}
			continue
		}
		if img.Format == xstate.FormatFXSave && !xstate.Legacy.Has(f) {
			continue // stripped
		}
		a, b := area.View(f), img.View(f)
		for _, r := range f.Component().Registers() {
			if img.Compat && r.Name == "xmm8" {
				break // the program could not see the others
			}
			got, want := value(a, r), value(b, r)
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %s in the area = %x, in the image %x", name, r.Name, got, want)
			}
		}
	}
}

// value returns a register's bytes, zeros if the component has no value.
func value(view []byte, r xstate.Register) []byte {
	if view == nil {
		return make([]byte, r.Size)
	}
	return view[r.Off:][:r.Size]
}

// roundTrip builds an XSAVE area from a state and reads it back.
func roundTrip(t *testing.T, name string, s *xstate.State, l xstate.Layout, size int) {
	t.Helper()
	s = s.Clone()
	s.BV &^= s.With(xstate.Lost)
	area, err := s.MarshalArea(l, size)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	back, err := xstate.ParseArea(area, l)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if back.FX != s.FX {
		t.Errorf("%s: the legacy area does not survive", name)
	}
	if got, want := back.BV, s.BV|xstate.Legacy; got != want {
		t.Errorf("%s: XSTATE_BV %v after the round trip, want %v", name, got, want)
	}
	for f := range s.BV.All() {
		if got, want := back.Status(f), s.Status(f); got != want || !bytes.Equal(back.View(f), s.View(f)) {
			t.Errorf("%s: %v %v after the round trip, want %v and the same bytes", name, f, got, want)
		}
	}
}

// TestTruthFXSave reads what FXSAVE stored in each program.
func TestTruthFXSave(t *testing.T) {
	for _, entry := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		if byDesign[entry.Name]["fpregs"] != "" {
			continue
		}
		for _, task := range entry.Tasks {
			for i := range task.Threads {
				th := &task.Threads[i]
				if th.FXSave == nil {
					continue
				}
				s, err := xstate.ParseFXArea(append(slices.Clone(th.FXSave), make([]byte, 512-len(th.FXSave))...))
				if err != nil {
					t.Fatalf("%s: %v", entry.Name, err)
				}
				b, err := os.ReadFile(filepath.Join(entry.Dir, th.Image))
				if err != nil {
					t.Fatal(err)
				}
				core, err := codec.ParseCore(th.Image, b)
				if err != nil {
					t.Fatal(err)
				}
				s.Compat = core.State.Compat
				for _, f := range []xstate.Feature{xstate.X87, xstate.SSE} {
					for _, r := range f.Component().Registers() {
						if s.Compat && r.Name == "xmm8" {
							break
						}
						if got, want := value(s.View(f), r), value(core.State.View(f), r); !bytes.Equal(got, want) {
							t.Errorf("%s: %s: %s by FXSAVE = %x, in the image %x", entry.Name, th.Image, r.Name, got, want)
						}
					}
				}
			}
		}
	}
}

// TestTruthArchive compares every register in the archives that Podman wrote with
// what the containers' programs said they held; from a file and from a pipe.
func TestTruthArchive(t *testing.T) {
	threads := map[string]int{"p-gzip": 1, "p-zstd": 4, "p-none": 3}
	for _, entry := range testimg.All(t, testimg.Archive) {
		t.Run(entry.Name, func(t *testing.T) {
			path := testimg.Path(t, entry.Name, map[string]string{"p-gzip": "p-gzip.tar.gz", "p-zstd": "p-zstd.tar.zst", "p-none": "p-none.tar"}[entry.Name])
			ckpt, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			piped, err := found(checkpoint.ReadAll("-", struct{ io.Reader }{f}, checkpoint.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			for _, ckpt := range []*checkpoint.Checkpoint{ckpt, piped[0]} {
				for _, p := range ckpt.Problems {
					t.Error(p)
				}
				if ckpt.Kind != checkpoint.KindArchive {
					t.Errorf("kind %q, want archive", ckpt.Kind)
				}
				if got, want := *ckpt.Container, (checkpoint.Container{Name: entry.Name, Image: "localhost/fpat:1", Engine: "Podman", Runtime: "runc"}); got != want {
					t.Errorf("container %+v, want %+v", got, want)
				}
				cores := map[string]*codec.Core{}
				for th, err := range ckpt.Threads() {
					if err != nil {
						t.Fatal(err)
					}
					cores[filepath.Base(th.Image.Path)] = th.Image
				}
				c := truth.Compare()
				n := 0
				for _, task := range entry.Tasks {
					for i := range task.Threads {
						th := &task.Threads[i]
						if cores[th.Image] == nil {
							t.Fatalf("no %s in the archive", th.Image)
						}
						c.Thread(&cores[th.Image].State, th)
						n++
					}
				}
				if n != threads[entry.Name] || len(cores) != n {
					t.Errorf("%d threads in the truth, %d in the archive; want %d", n, len(cores), threads[entry.Name])
				}
				// TOP, 8 ST, 16 XMM, 32 ZMM, 8 k where the program saw them all.
				if got, want := c.Sum(), 25*n; got < want {
					t.Errorf("%d registers compared, want at least %d", got, want)
				}
				for _, diff := range c.Differs {
					t.Error(diff)
				}
				t.Logf("%d registers of %d threads compared", c.Sum(), n)
			}
		})
	}
}
