package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestXSaveArea reads the XSAVE area that a program stored, by its size and by the
// layout of a named machine.
func TestXSaveArea(t *testing.T) {
	th := testimg.Load(t, "h-avx512").Tasks[0].Threads[0]
	path := filepath.Join(t.TempDir(), "area.bin")
	if err := os.WriteFile(path, th.Area(), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "0x" + reversed(th.ZMM[31])
	for _, args := range [][]string{{}, {"--host=" + testimg.Path(t, "h-avx512")}} {
		args = append([]string{"show", "--json", "--regs", "--xsave-area"}, append(args, path)...)
		stdout, stderr, code := capture(t, args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		var doc showDoc
		if err := json.Unmarshal(stdout, &doc); err != nil {
			t.Fatal(err)
		}
		img := doc.Images[0]
		if img.Kind != "xsave-area" || len(img.Threads) != 1 {
			t.Fatalf("kind %s, %d threads", img.Kind, len(img.Threads))
		}
		v := img.Threads[0].Registers.Vector
		if len(v) != 32 || v[31].Hex != want {
			t.Errorf("%v: %d vector registers, zmm31 is not %s", args, len(v), want)
		}
	}
	stdout, _, code := capture(t, "check", "--xsave-area", "--host=x86-64-v3", path)
	if code != 1 || !strings.Contains(string(stdout), "zmm0-zmm31") && !strings.Contains(string(stdout), "Hi16_ZMM") {
		t.Errorf("check: exit code %d: %s", code, stdout)
	}
}

// TestXSaveAreaDiff compares the area that a program stored with the checkpoint of it:
// the registers are the same, but for what the program did in between.
func TestXSaveAreaDiff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "area.bin")
	if err := os.WriteFile(path, testimg.Load(t, "h-avx512").Tasks[0].Threads[0].Area(), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := capture(t, "diff", "--xsave-area", path, "h-avx512"); code > 1 || bytes.Contains(stdout, []byte("mm")) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	stdout, stderr, code := capture(t, "diff", "--xsave-area", "h-sse", path)
	if code != 1 || !bytes.Contains(stdout, []byte("zmm31")) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// TestXSaveAreaHost reads the area of a machine by its own cpuinfo.img, which has no
// layout: AMD's name, Intel's packing. Other machines have no PKRU, or not there.
func TestXSaveAreaHost(t *testing.T) {
	for _, name := range []string{"g-epycmilan-criu42-auto", "g-max-criu42-pkru4"} {
		th := testimg.Load(t, name).Tasks[0].Threads[0]
		path := filepath.Join(t.TempDir(), "area.bin")
		if err := os.WriteFile(path, th.Area(), 0o600); err != nil {
			t.Fatal(err)
		}
		show := func(host string) (string, string, int) {
			stdout, stderr, code := capture(t, "show", "--regs", "--component=PKRU", "--xsave-area", "--host="+host, path)
			return string(stdout), string(stderr), code
		}
		if stdout, stderr, code := show(testimg.Path(t, name)); code != 0 || !strings.Contains(stdout, fmt.Sprintf("%#x", uint64(*th.PKRU))) {
			t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
		}
		stdout, stderr, code := show("x86-64-v4")
		if code != 3 || stdout != "" || !strings.Contains(stderr, "x86-64-v4 does not say where the components of an area of 2696 bytes lie: it has no ") ||
			!strings.Contains(stderr, ", which is in use there\nfpuimg: hint: PROFILE is what fpuimg profile wrote on the machine that stored it; without --host the size tells") {
			t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
		}
	}
}

// reversed spells little-endian bytes as a number.
func reversed(b []byte) string {
	var s strings.Builder
	for i := range b {
		fmt.Fprintf(&s, "%02x", b[len(b)-1-i])
	}
	return s.String()
}

// TestGDB exports CRIU images as ELF cores and reads every vector register, mask
// register and x87 register of every thread with gdb: it must print what the
// program said.
func TestGDB(t *testing.T) {
	gdb := testcmd.Tool(t, "gdb")
	for name, threads := range map[string]int{"h-avx512": 1, "h-threads8": 8} {
		t.Run(name, func(t *testing.T) {
			core := filepath.Join(t.TempDir(), "core")
			if _, stderr, code := capture(t, "show", "--elf-core="+core, name); code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			truth := testimg.Load(t, name).Tasks[0]
			if len(truth.Threads) != threads {
				t.Fatalf("%d threads in the truth, want %d", len(truth.Threads), threads)
			}
			args := []string{"-nx", "-batch", "-ex", "core-file " + core}
			want := map[string]string{}
			ask := func(key, expr, value string) {
				args = append(args, "-ex", fmt.Sprintf("printf \"=%s \"", key), "-ex", "output/x "+expr, "-ex", `printf "\n"`)
				want[key] = value
			}
			for i := range truth.Threads {
				th := &truth.Threads[i]
				args = append(args, "-ex", fmt.Sprintf("thread find LWP %d$", th.TID), "-ex", "thread "+fmt.Sprint(i+1))
				ask(fmt.Sprintf("tid.%d", i), "$_thread", fmt.Sprintf("0x%x", i+1))
				for r, v := range th.ZMM {
					for q := range 8 {
						ask(fmt.Sprintf("%d.zmm%d.%d", i, r, q), fmt.Sprintf("$zmm%d.v8_int64[%d]", r, q), trimHex(reversed(v[8*q:8*q+8])))
					}
					if r < 16 {
						for q := range 4 {
							ask(fmt.Sprintf("%d.ymm%d.%d", i, r, q), fmt.Sprintf("$ymm%d.v4_int64[%d]", r, q), trimHex(reversed(v[8*q:8*q+8])))
						}
						ask(fmt.Sprintf("%d.xmm%d", i, r), fmt.Sprintf("$xmm%d.v2_int64[1]", r), trimHex(reversed(v[8:16])))
					}
				}
				for r, v := range th.K {
					ask(fmt.Sprintf("%d.k%d", i, r), fmt.Sprintf("$k%d", r), fmt.Sprintf("0x%x", uint64(v)))
				}
			}
			out, err := exec.Command(gdb, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("gdb: %v: %s", err, out)
			}
			got := map[string]string{}
			for _, m := range regexp.MustCompile(`(?m)^=(\S+) (\S+)$`).FindAllStringSubmatch(string(out), -1) {
				got[m[1]] = m[2]
			}
			bad := 0
			for key, v := range want {
				if got[key] != v {
					if bad++; bad < 10 {
						t.Errorf("%s: gdb prints %q, the program held %s", key, got[key], v)
					}
				}
			}
			if perThread := 32*8 + 16*4 + 16 + 8 + 1; len(want) != threads*perThread {
				t.Errorf("%d values asked for, want %d", len(want), threads*perThread)
			}
			t.Logf("%d values of %d threads equal in gdb", len(want)-bad, threads)
			for i := range truth.Threads {
				if tid := truth.Threads[i].TID; !regexp.MustCompile(fmt.Sprintf(`Thread %d has target id 'LWP %d'`, i+1, tid)).Match(out) {
					t.Errorf("thread %d is not LWP %d", i+1, tid)
				}
			}
		})
	}
}

// trimHex spells a number as gdb does.
func trimHex(digits string) string {
	s := strings.TrimLeft(digits, "0")
	if s == "" {
		s = "0"
	}
	return "0x" + s
}
