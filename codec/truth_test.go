package codec_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
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

// comparison collects what differs between an image and its program's word.
type comparison struct {
	compared map[string]int
	differs  map[string]string // register class -> first difference
}

func (c *comparison) check(class, register string, got, want any) {
	c.compared[class]++
	if g, w := fmt.Sprintf("%x", got), fmt.Sprintf("%x", want); g != w && c.differs[class] == "" {
		c.differs[class] = fmt.Sprintf("%s = %s, want %s", register, g, w)
	}
}

func (c *comparison) number(class string, got uint64, want *testimg.Uint) {
	if want != nil {
		c.check(class, class, got, uint64(*want))
	}
}

// registers compares a list of registers, each of which may be the wide form of
// the one that was recorded.
func (c *comparison) registers(class string, got func(i int) []byte, want []testimg.Bytes) {
	for i, w := range want {
		g := got(i)
		c.check(class, fmt.Sprintf("%s%d", class, i), g[:min(len(g), len(w))], []byte(w))
	}
}

// component returns the bytes from off on of component f, nil if it has no value.
func component(s *xstate.State, f xstate.Feature, off, size int) []byte {
	view := s.View(f)
	if view == nil {
		return nil
	}
	return view[off:][:size]
}

func (c *comparison) thread(s *xstate.State, want *testimg.Thread) {
	if s.Format == xstate.FormatNone {
		c.check("fpregs", "fpregs", "none", "a record")
		return
	}
	fx := &s.FX
	c.number("fcw", uint64(fx.FCW()), want.FCW)
	c.number("fsw", uint64(fx.FSW()), want.FSW)
	c.number("ftw", uint64(fx.FTW()), want.FTW)
	c.number("fop", uint64(fx.FOP()), want.FOP)
	c.number("fip", fx.FIP(), want.FIP)
	c.number("fdp", fx.FDP(), want.FDP)
	c.number("mxcsr", uint64(fx.MXCSR()), want.MXCSR)
	c.number("mxcsr_mask", uint64(fx.MXCSRMask()), want.MXCSRMask)
	if want.Top != nil {
		c.check("top", "top", fx.Top(), *want.Top)
	}
	c.registers("st", func(i int) []byte { v := fx.ST(i); return v[:] }, want.ST)
	vectors := s.Vectors()
	vector := func(i int) []byte {
		if i >= len(vectors) {
			return nil
		}
		return vectors[i].Bytes
	}
	c.registers("xmm", vector, want.XMM)
	c.registers("ymm", vector, want.YMM)
	c.registers("zmm", vector, want.ZMM)
	for i, k := range want.K {
		g := component(s, xstate.Opmask, 8*i, 8)
		c.check("k", fmt.Sprintf("k%d", i), hexLE(g), fmt.Sprintf("%016x", uint64(k)))
	}
	if want.PKRU != nil {
		g := component(s, xstate.PKRU, 0, 4)
		c.check("pkru", "pkru", hexLE(g), fmt.Sprintf("%08x", uint64(*want.PKRU)))
	}
	c.registers("bndcsr", func(i int) []byte { return component(s, xstate.BNDCSR, 8*i, 8) }, want.BNDCSR)
	c.registers("bnd", func(i int) []byte { return component(s, xstate.BNDREGS, 16*i, 16) }, want.BND)
	c.registers("tilecfg", func(i int) []byte { return component(s, xstate.TileCfg, 0, 64) }, want.TileCfg)
	c.registers("tmm", func(i int) []byte { return component(s, xstate.TileData, 1024*i, 1024) }, want.TMM)
}

// hexLE spells little-endian bytes as a number.
func hexLE(le []byte) string {
	b := slices.Clone(le)
	slices.Reverse(b)
	return fmt.Sprintf("%x", b)
}

// TestTruth compares every register of every real image with what the program
// that was dumped said it held.
func TestTruth(t *testing.T) {
	total := map[string]int{}
	for _, truth := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		t.Run(truth.Name, func(t *testing.T) {
			cores := image(t, truth.Dir)
			c := comparison{map[string]int{}, map[string]string{}}
			threads := 0
			for _, task := range truth.Tasks {
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
					c.thread(&core.State, th)
				}
			}
			if threads != len(cores) {
				t.Errorf("%d threads in the image, want %d", len(cores), threads)
			}
			// Of every thread: 8 control words, TOP, 8 ST, and 8 XMM at least.
			if got, want := sum(c.compared), 25*threads; got < want && byDesign[truth.Name]["fpregs"] == "" {
				t.Errorf("%d registers compared, want at least %d", got, want)
			}
			for class, diff := range c.differs {
				if byDesign[truth.Name][class] == "" {
					t.Error(diff)
				}
			}
			for class, reason := range byDesign[truth.Name] {
				if c.differs[class] == "" {
					t.Errorf("%s equals what the program held, want a difference: %s", class, reason)
				}
			}
			for class, n := range c.compared {
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
	t.Logf("%d registers compared: %v", sum(total), total)
}

func sum(m map[string]int) int {
	n := 0
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

// TestTruthArea decodes the XSAVE area that each program stored in its own memory
// and compares it with the state in the image: a second decoder and another
// container, the same state. It then builds an area from the image's state and
// reads it back.
func TestTruthArea(t *testing.T) {
	areas := 0
	for _, truth := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		if byDesign[truth.Name]["fpregs"] != "" {
			continue
		}
		t.Run(truth.Name, func(t *testing.T) {
			cores := image(t, truth.Dir)
			for _, task := range truth.Tasks {
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
					sameRegisters(t, th.Image, got, img, byDesign[truth.Name])
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
		for r := range f.Component().Registers() {
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
	for _, truth := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		if byDesign[truth.Name]["fpregs"] != "" {
			continue
		}
		for _, task := range truth.Tasks {
			for i := range task.Threads {
				th := &task.Threads[i]
				if th.FXSave == nil {
					continue
				}
				s, err := xstate.ParseFXArea(append(slices.Clone(th.FXSave), make([]byte, 512-len(th.FXSave))...))
				if err != nil {
					t.Fatalf("%s: %v", truth.Name, err)
				}
				b, err := os.ReadFile(filepath.Join(truth.Dir, th.Image))
				if err != nil {
					t.Fatal(err)
				}
				core, err := codec.ParseCore(th.Image, b)
				if err != nil {
					t.Fatal(err)
				}
				s.Compat = core.State.Compat
				for _, f := range []xstate.Feature{xstate.X87, xstate.SSE} {
					for r := range f.Component().Registers() {
						if s.Compat && r.Name == "xmm8" {
							break
						}
						if got, want := value(s.View(f), r), value(core.State.View(f), r); !bytes.Equal(got, want) {
							t.Errorf("%s: %s: %s by FXSAVE = %x, in the image %x", truth.Name, th.Image, r.Name, got, want)
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
	for _, truth := range testimg.All(t, testimg.Archive) {
		t.Run(truth.Name, func(t *testing.T) {
			path := testimg.Path(t, truth.Name, map[string]string{"p-gzip": "p-gzip.tar.gz", "p-zstd": "p-zstd.tar.zst", "p-none": "p-none.tar"}[truth.Name])
			ckpt, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			piped, err := found(checkpoint.ReadAll("-", &onlyReader{f}, checkpoint.Options{}))
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
				if got, want := *ckpt.Container, (checkpoint.Container{Name: truth.Name, Image: "localhost/fpat:1", Engine: "Podman", Runtime: "runc"}); got != want {
					t.Errorf("container %+v, want %+v", got, want)
				}
				cores := map[string]*codec.Core{}
				for th, err := range ckpt.Threads() {
					if err != nil {
						t.Fatal(err)
					}
					cores[filepath.Base(th.Image.Path)] = th.Image
				}
				c := comparison{map[string]int{}, map[string]string{}}
				n := 0
				for _, task := range truth.Tasks {
					for i := range task.Threads {
						th := &task.Threads[i]
						if cores[th.Image] == nil {
							t.Fatalf("no %s in the archive", th.Image)
						}
						c.thread(&cores[th.Image].State, th)
						n++
					}
				}
				if n != threads[truth.Name] || len(cores) != n {
					t.Errorf("%d threads in the truth, %d in the archive; want %d", n, len(cores), threads[truth.Name])
				}
				// TOP, 8 ST, 16 XMM, 32 ZMM, 8 k where the program saw them all.
				if got, want := sum(c.compared), 25*n; got < want {
					t.Errorf("%d registers compared, want at least %d", got, want)
				}
				for _, diff := range c.differs {
					t.Error(diff)
				}
				t.Logf("%d registers of %d threads compared", sum(c.compared), n)
			}
		})
	}
}
