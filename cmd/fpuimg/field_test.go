package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	testelf "github.com/fpuimg/fpuimg/internal/test/elf"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// fieldCases are commands about files as users hold them, each with its exit status and
// expressions for what it prints; one that begins with ! must not be there.
var fieldCases = []struct {
	dir  string
	args string
	exit int
	want []string
}{
	{"core-compressed", "show core.web.gz core.web.zst core.web.lz4 core.web.xz", 0, []string{`(?s)(500-501 \(2\) .*){4}`, `\[opmask\]\[ZMM_Hi256\]`}},
	{"core-compressed", "show core.web.bz2", 0, []string{`500-501 \(2\) .*`, `\[opmask\]\[ZMM_Hi256\]`}},
	{"core-cut", "show --json cut.core", 3, []string{`"tid": 900,`, `"tid": 901,`, `!"tid": 902`, `error: cut.core: offset 0x[0-9a-f]+: notes: the file ends inside`}},
	{"core-without-fpu", "show qemu-user.core", 0, []string{`risky not-recorded: thread 15098`, `the core has no FPU registers of the thread`, `!CRIU`, `!fpuimg convert`, `!hint`}},
	{"core-without-fpu", "show --json --regs qemu-user.core", 0, []string{`"state": "unknown"`, `!"state": "init"`, `!"fcw"`}},
	{"core-without-fpu", "check --host=x86-64-v3 qemu-user.core", 1, []string{`x86-64-v3: unknown$`, `!compatible`, `!INIT  `, `!hint`, `!CRIU`}},
	{"core-without-fpu", "need qemu-user.core", 0, []string{`(?s)not known .*the core has no FPU registers`}},
	{"core-without-fpu", "show vmcore", 3, []string{`a core of a kernel \(kdump\)`, `!twice`}},
	{"cpuid-dump-formats", "profile aida64.txt", 0, []string{`"xfeatures_mask": "0xff"`, `"xsave_size": 2688`, `(?s)"opmask",\s+"offset": 1088`, `(?s)"ZMM_Hi256",\s+"offset": 1152`, `(?s)"Hi16_ZMM",\s+"offset": 1664`}},
	{"cpuid-dump-formats", "profile kcpuid.txt", 0, []string{`"xfeatures_mask": "0xff"`, `"avx512f"`}},
	{"cpuid-dump-formats", "profile cpuid-pretty.txt", 3, []string{`made without -r`}},
	{"cpuid-dump-formats", "profile warning-first.txt", 0, []string{`"xfeatures_mask": "0xff"`}},
	{"cpuid-without-subleaves", "check --host=spr.txt ckpt", 0, []string{`!xsavec`, `!xsaveopt`, `!xgetbv1`, `!xsaves`, `fpu, .*unknown`}},
	{"cpuid-without-subleaves", "show --xsave-area --host=spr.txt ../kvm-xsave-4096/avx.bin", 0, []string{`\[SSE\]\[AVX\]`, `!no AVX`}},
	{"cpuid-without-subleaves", "profile ivb-noavx.txt", 0, []string{`"xfeatures_mask": "0x3"`, `!"avx"`}},
	{"criu-coredump-avx512", "show --regs core.77", 3, []string{`\[x87\]\[SSE\]\[AVX\]-!opmask!!ZMM_Hi256!!Hi16_ZMM!`, `mxcsr +0x1fa0`, `st0 .* 3\.14159265`,
		`ymm0 +504f4e4d4c4b4a49 4847464544434241 100f0e0d0c0b0a09\n? *0807060504030201`, `!hint`}},
	{"criu-coredump-fxsave", "show --regs core.77", 0, []string{`fxsave`, `mxcsr +0x1fa0`, `st0 .* 3\.14159265`, `xmm0 +100f0e0d0c0b0a09 0807060504030201`, `!init`}},
	{"criu-coredump-fxsave", "show --regs --redact core.77", 0, []string{`^unknown +AVX `, `^SSE +in use: mxcsr`, `!1fa0`}},
	{"criu-coredump-fxsave", "diff core.77 ../delve-dump/core.dlv", 1, []string{`^AVX +- unknown\n +\+ in-use$`, `!BNDREGS`}},
	{"delve-dump", "show core.dlv", 0, []string{`77-78 \(2\)  srv   xsave   0x7 .*\[SSE\]\[AVX\]`}},
	{"delve-dump", "show --regs core.dlv", 0, []string{`mxcsr +0x1fa0`}},
	{"foreign-files", "show freebsd.core", 3, []string{`a core of FreeBSD`}},
	{"foreign-files", "show mini.dmp", 3, []string{`a minidump`}},
	{"foreign-files", "show core-20600.json", 3, []string{`JSON by crit`, `crit encode -i core-20600.json -o core-20600.img`}},
	{"foreign-files", "show cpuinfo.json", 3, []string{`crit encode -i cpuinfo.json -o cpuinfo.img`}},
	{"foreign-files", "profile cpuinfo.json", 0, []string{`"vendor": "intel"`}},
	{"foreign-files", "show ckpt.zip", 3, []string{`a ZIP archive`, `unzip`, `!0x[0-9a-f]{8}`}},
	{"host-without-mask", "check --host=cpuinfo.img ckpt", 1, []string{`downgrade-lossy$`, `fatal component-missing: thread 20000, opmask ZMM_Hi256 Hi16_ZMM`}},
	{"image-archives", "show podman-save.tar docker-save.tar oci-archive.tar", 0, []string{`(?s)(20000 .*\[opmask\].*){3}`}},
	{"image-streamer", "show img img.lz4", 0, []string{`(?s)(20000 .*\[opmask\].*){2}`}},
	{"isa-false-alarms", "check --host=gnr-32bit-tool.txt intel", 0, []string{`!syscall`}},
	{"isa-false-alarms", "check --host=spr.txt amd", 0, []string{`(?s)risky isa-missing.*clzero.*hint:`, `!(?s)risky isa-missing[^:]*:[^;]*mmxext`}},
	{"kvm-xsave-4096", "show --xsave-area avx.bin", 0, []string{`0x7 +x87 \[SSE\]\[AVX\]`}},
	{"note-padding", "show pad4.core", 0, []string{`900-901 \(2\)  srv   xsave   0x7 .*\[SSE\]\[AVX\]`}},
	{"pre-dump", "show final .", 0, []string{`(?s)20300.*20300`}},
	{"pre-dump", "show pre1", 3, []string{`only a pre-dump, which holds memory but no registers`, `hint: name the .*dump that came after it`}},
	{"proc-cpuinfo", "check --host=haswell.txt ckpt", 1, []string{`downgrade-lossy$`, `avx512f`, `unknown: the host's profile`}},
	{"proc-cpuinfo", "check --host=haswell.txt ckpt-avx", 0, []string{`compatible$`}},
	{"proc-cpuinfo", "check --host=skylake-sp.txt ckpt", 0, []string{`compatible$`}},
	{"proc-cpuinfo", "check --host=lscpu.txt ckpt", 1, []string{`downgrade-lossy$`}},
	{"profile-sources", "check --host=link.json ckpt", 0, []string{`compatible$`}},
	{"profile-sources", "show link.img", 0, []string{`20600`}},
	{"x87-zeroed", "show ckpt", 0, []string{`risky init-zeroed: thread 20600, x87`}},
	{"x87-zeroed", "check --host=x86-64-v4 ckpt", 0, []string{`risky init-zeroed: thread 20600, x87`}},
}

// TestField runs the cases on files that are made here, and where the files stand that
// they follow, on those.
func TestField(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	made := t.TempDir()
	layField(t, made)
	dirs := map[string]string{"made": made}
	if shared, err := filepath.Abs("../../../shared/field"); err == nil {
		if _, err := os.Stat(shared); err == nil {
			dirs["shared"] = shared
		}
	}
	seen := map[string]bool{}
	for _, tt := range fieldCases {
		seen[tt.dir] = true
		for name, dir := range dirs {
			args := strings.Fields(tt.args)
			if name == "shared" { // a copy without links and bzip2, which are made here
				_, err := os.Stat(filepath.Join(dir, tt.dir, args[len(args)-1]))
				if _, lerr := os.Readlink(filepath.Join(dir, tt.dir, "link.json")); err != nil || lerr != nil && strings.Contains(tt.args, "link.") {
					continue
				}
			}
			t.Run(name+"/"+tt.dir, func(t *testing.T) {
				t.Chdir(filepath.Join(dir, tt.dir))
				var out, errs bytes.Buffer
				code := run(args, nil, &out, &errs)
				all := out.String() + errs.String()
				if code != tt.exit {
					t.Errorf("%s: exit status %d, want %d\n%s", tt.args, code, tt.exit, all)
				}
				for _, want := range tt.want {
					expr, not := strings.CutPrefix(want, "!")
					if regexp.MustCompile("(?m)"+expr).MatchString(all) == not {
						t.Errorf("%s: %s\n%s", tt.args, want, all)
					}
				}
			})
		}
	}
	if len(seen) != 19 {
		t.Errorf("%d cases, want 19", len(seen))
	}
}

// layField makes the files of the cases.
func layField(t *testing.T, dir string) {
	put := func(name string, b []byte) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, b, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	image := func(name, entry string) {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(testimg.Path(t, entry))); err != nil {
			t.Fatal(err)
		}
	}
	form := func(name string) []byte { return read(filepath.Join("../../codec/cpuid/testdata", name)) }
	packed := func(b []byte, w io.WriteCloser, to *bytes.Buffer) []byte {
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return to.Bytes()
	}
	fx := testelf.UsedFX()
	plain := *fx // x87 in INIT
	clear(plain[4:24])
	clear(plain.STSpace())
	core := func(notes ...[]byte) []byte { return testelf.Core(64, 62, notes...) }
	info := func(pid int, name string) []byte { return testelf.Note("CORE", 3, testelf.PRPSInfo(pid, name)) }

	var web, srv [][]byte
	for tid := 500; tid < 502; tid++ {
		web = append(web, testelf.Status64(tid), info(500, "web"), testelf.Note("CORE", 2, plain[:]), testelf.Note("LINUX", 0x202, testelf.Area(&plain, 2688, 0xe7, 0xe7)))
	}
	for tid := 900; tid < 905; tid++ {
		srv = append(srv, testelf.Status64(tid), info(900, "srv"), testelf.Note("CORE", 2, plain[:]), testelf.Note("LINUX", 0x202, testelf.Area(&plain, 832, 7, 7)))
	}
	whole := core(web...)
	var gz, zs, lz bytes.Buffer
	zw, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	put("core-compressed/core.web.gz", packed(whole, gzip.NewWriter(&gz), &gz))
	put("core-compressed/core.web.zst", packed(whole, zw, &zs))
	put("core-compressed/core.web.lz4", packed(whole, lz4.NewWriter(&lz), &lz))
	put("core-compressed/core.web.xz", read("testdata/field/core.web.xz"))
	put("core-compressed/core.web.bz2", read("testdata/field/core.web.bz2"))
	put("core-cut/cut.core", core(srv...)[:120+2*1896+356+156+532+50])
	put("note-padding/pad4.core", append(core(append(srv[:8:8], make([]byte, 4))...), 1, 2, 3, 4))

	st := testelf.Status64(77)
	put("core-without-fpu/qemu-user.core", core(testelf.Status64(15098), info(15098, "q"), testelf.Note("CORE", 6, make([]byte, 288))))
	put("core-without-fpu/vmcore", core(testelf.Status64(0), testelf.Status64(0), testelf.Status64(3519), testelf.Note("VMCOREINFO", 0, []byte("OSRELEASE=6.1.0\n"))))
	put("criu-coredump-avx512/core.77", core(info(77, "srv"), st, testelf.Note("CORE", 2, fx[:]), testelf.Note("LINUX", 0x202, testelf.Area(fx, 832, 0, 0xe7))))
	put("criu-coredump-fxsave/core.77", core(info(77, "srv"), st, testelf.Note("CORE", 2, fx[:]), testelf.Note("LINUX", 0x202, testelf.Area(fx, 832, 0, 0))))
	put("delve-dump/core.dlv", core(testelf.Note("Delve Header", 0x444c5645, []byte("linux/amd64\n")), testelf.Note("", 3, testelf.PRPSInfo(77, "srv")),
		testelf.Note("", 1, testelf.PRStatus(336, 32, 77)), testelf.Note("", 0x202, testelf.Area(&plain, 832, 0, 7)),
		testelf.Note("", 1, testelf.PRStatus(336, 32, 78)), testelf.Note("", 0x202, testelf.Area(&plain, 832, 0, 7))))
	put("kvm-xsave-4096/avx.bin", testelf.Area(&plain, 4096, 7, 7))
	freebsd := core(testelf.Note("FreeBSD", 1, make([]byte, 240)))
	freebsd[7] = 9
	put("foreign-files/freebsd.core", freebsd)

	put("foreign-files/mini.dmp", []byte("MDMP\x93\xa7\x00\x00"))
	put("foreign-files/ckpt.zip", []byte("PK\x03\x04\x14\x00"))
	put("foreign-files/core-20600.json", []byte("{\n    \"magic\": \"CORE\",\n    \"entries\": []\n}\n"))
	put("foreign-files/cpuinfo.json", []byte(`{"magic": "CPUINFO", "entries": [{"x86_entry": [{"vendor_id": "INTEL", "cpu_family": 6, "model": 60, "stepping": 4,
		"capability_ver": 1, "capability": [126614525, 672139264, 0, 34668544, 4275581443, 0, 33, 0, 0, 937, 1, 0]}]}]}`))

	put("cpuid-dump-formats/aida64.txt", form("forms/skylakex.aida64"))
	put("cpuid-dump-formats/kcpuid.txt", form("forms/partial.kcpuid"))
	put("cpuid-dump-formats/warning-first.txt", form("forms/skylakex.capture"))
	put("cpuid-dump-formats/cpuid-pretty.txt", []byte("CPU 0:\n   vendor_id = \"GenuineIntel\"\n"))
	put("cpuid-without-subleaves/spr.txt", form("forms/spr-nosub.cpuid"))
	put("cpuid-without-subleaves/ivb-noavx.txt", form("forms/ivb-noavx.cpuid"))
	put("proc-cpuinfo/haswell.txt", form("forms/haswell.cpuinfo"))
	put("proc-cpuinfo/skylake-sp.txt", form("forms/skylake.cpuinfo"))
	put("proc-cpuinfo/lscpu.txt", form("forms/epyc7002.lscpu"))
	put("isa-false-alarms/spr.txt", form("spr.cpuid"))
	put("isa-false-alarms/gnr-32bit-tool.txt", bytes.Replace(form("spr.cpuid"), []byte("edx=0x2c100800"), []byte("edx=0x2c100000"), 1))
	for _, name := range []string{"cpuid-without-subleaves/ckpt", "host-without-mask/ckpt", "isa-false-alarms/intel", "proc-cpuinfo/ckpt"} {
		image(name, "h-avx512")
	}
	for _, name := range []string{"isa-false-alarms/amd", "proc-cpuinfo/ckpt-avx", "pre-dump/final"} {
		image(name, "h-avx")
	}
	image("x87-zeroed/ckpt", "old-x87zeroed")
	image("profile-sources/ckpt", "h-sse")
	if err := os.Remove(filepath.Join(dir, "host-without-mask/ckpt/cpuinfo.img")); err != nil {
		t.Fatal(err)
	}
	put("host-without-mask/cpuinfo.img", read("testdata/field/cpuinfo-v1.img"))
	profile := func(args ...string) []byte {
		var out, errs bytes.Buffer
		if code := run(append([]string{"profile"}, args...), nil, &out, &errs); code != 0 {
			t.Fatalf("%v: %s", args, errs.Bytes())
		}
		return out.Bytes()
	}
	put("isa-false-alarms/amd/cpuinfo.img", profile("--format=criu", "../../codec/cpuid/testdata/zen2.cpuid"))
	put("profile-sources/host.json", profile(testimg.Path(t, "h-sse")))
	for link, to := range map[string]string{"link.json": "host.json", "link.img": "ckpt/core-20600.img"} {
		if err := os.Symlink(to, filepath.Join(dir, "profile-sources", link)); err != nil {
			t.Fatal(err)
		}
	}
	put("pre-dump/pre1/inventory.img", testimg.Read(t, "h-avx", "inventory.img"))
	put("pre-dump/pre1/pagemap-20300.img", nil)

	stream := read("testdata/field/stream.lz4")
	put("image-streamer/img.lz4", stream)
	raw, err := io.ReadAll(lz4.NewReader(bytes.NewReader(stream)))
	if err != nil {
		t.Fatal(err)
	}
	put("image-streamer/img", raw)
	layer := tarOf(t, "checkpoint/core-20000.img", testimg.Read(t, "h-avx512", "core-20000.img"), "checkpoint/pstree.img", testimg.Read(t, "h-avx512", "pstree.img"),
		"checkpoint/inventory.img", testimg.Read(t, "h-avx512", "inventory.img"))
	id := strings.Repeat("ab", 32)
	put("image-archives/podman-save.tar", tarOf(t, id+".tar", layer, "manifest.json", []byte(`[{"Layers":["`+id+`.tar"]}]`)))
	put("image-archives/docker-save.tar", tarOf(t, id+"/layer.tar", layer, id+"/json", []byte("{}"), "manifest.json", []byte(`[{"Layers":["`+id+`/layer.tar"]}]`)))
	put("image-archives/oci-archive.tar", tarOf(t, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json", []byte("{}"), "blobs/sha256/"+digestOf(layer), layer))
}

// tarOf builds an archive of names and contents.
func tarOf(t *testing.T, members ...any) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(members); i += 2 {
		b := members[i+1].([]byte)
		if err := w.WriteHeader(&tar.Header{Name: members[i].(string), Mode: 0o600, Size: int64(len(b))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func digestOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
