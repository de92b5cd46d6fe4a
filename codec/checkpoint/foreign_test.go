package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestForeign names files of other kinds, from a file and from a stream.
func TestForeign(t *testing.T) {
	pad := strings.Repeat("\x00\x01", 2000)
	for _, tt := range []struct{ name, data, want string }{
		{"core.dmp", "MDMP\x93\xa7\x00\x00" + pad, "a minidump"},
		{"a.zip", "PK\x03\x04" + pad, "a ZIP archive"},
		{"a.7z", "7z\xbc\xaf\x27\x1c" + pad, "a 7z archive"},
		{"a.rar", "Rar!\x1a\x07\x01" + pad, "a RAR archive"},
		{"core.macos", "\xcf\xfa\xed\xfe\x07\x00\x00\x01" + pad, "a Mach-O file"},
		{"fat", "\xca\xfe\xba\xbe\x00\x00\x00\x02" + pad, "a Mach-O file for several"},
		{"a.exe", "MZ\x90\x00" + pad, "a program for Windows"},
		{"vm.save", "LibvirtQemudSave\x02" + pad, "virsh save"},
		{"vm.qcow2", "QFI\xfb\x00\x00\x00\x03" + pad, "qcow2"},
		{"vmcore", "KDUMP   \x06" + pad, "makedumpfile"},
		{"vmcore.flat", "makedumpfile\x00\x00" + pad, "flattened"},
		{"ram.lime", "EMiL\x01" + pad, "LiME"},
		{"ram.avml", "AVML\x02" + pad, "AVML"},
		{"ext.img", strings.Repeat("\x00\x01", 0x21c) + "\x53\xef" + pad, "an ext file system"},
		{"core.lz", "LZIP\x01" + pad, "lzip"},
		{"runsc.img", "gVisorSF" + pad, "gVisor"},
		{"crit.json", `{"magic": "CORE", "entries": []}`, "JSON by crit"},
		{"crit-show.json", "\ufeff\n{\n    \"magic\": \"CPUINFO\",\n", "JSON by crit"},
		{"manifest.json", `[{"Config":"x.json","RepoTags":null}]`, "the manifest of a container image"},
		{"oci.json", `{ "schemaVersion": 2 }`, "the manifest or index"},
		{"inspect.json", "[\n {\n  \"Id\": 1}]", "inspect"},
		{"any.json", `{"a": [1]}`, "JSON"},
		{"vm.xml", "<domain type='kvm'>\n", "XML by libvirt"},
		{"virsh.xml", "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES", "XML by libvirt"},
		{"page.img", "\n<!DOCTYPE html>\n", "a web page"},
		{"dump.log", "(00.000000) Version: 4.2 (gitid 0)\n", "a log of CRIU"},
		{"cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n", "/proc/cpuinfo"},
		{"lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"},
		{"notes", "some words \u00e9\n", "a text"},
		{"a.crash", "ProblemType: Crash\nArchitecture: amd64\nCoreDump: base64\n H4sIC\n", "apport"},
		{"empty", "", "an empty file"},
		{"pages-1.img", "\x00\x01\x02\x03" + pad, "memory of a CRIU checkpoint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.name, []byte(tt.data))
			path := filepath.Join(dir, tt.name)
			_, fileErr := checkpoint.OpenAll(path, checkpoint.Options{})
			_, streamErr := checkpoint.ReadAll(path, strings.NewReader(tt.data), checkpoint.Options{})
			for _, err := range []error{fileErr, streamErr} {
				foreign, ok := errors.AsType[*checkpoint.ForeignError](err)
				if !ok || foreign.Path != path || !strings.Contains(foreign.Name, tt.want) || foreign.Advice == "" {
					t.Errorf("error %#v, want that it is %s", err, tt.want)
				}
			}
		})
	}
}

// TestZeros names a file of zeros; where whole blocks are, they are an empty archive.
func TestZeros(t *testing.T) {
	dir := t.TempDir()
	for size, want := range map[int]string{5000: "zeros, as a crash", 10240: "no checkpoint in the archive"} {
		write(t, dir, "zeros", make([]byte, size))
		if _, err := checkpoint.OpenAll(filepath.Join(dir, "zeros"), checkpoint.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d zeros: error %v, want %q", size, err, want)
		}
	}
}

// TestForeignNot gives what may look foreign, and is not.
func TestForeignNot(t *testing.T) {
	for _, name := range []string{"b09-magic2.img", "b03-trunc4.img"} {
		_, err := checkpoint.ReadAll(name, bytes.NewReader(testimg.Read(t, "bad", name)), checkpoint.Options{})
		if foreign, ok := errors.AsType[*checkpoint.ForeignError](err); ok || err == nil {
			t.Errorf("%s: error %v", name, foreign)
		}
	}
}

// TestOtherImages names the kind of an image that holds no registers.
func TestOtherImages(t *testing.T) {
	for kind, magics := range map[string][]uint32{"mm": {0x54564319, 0x57492820}, "pagemap": {0x54564319, 0x56084025}, "pstree": {0x54564319, 0x50273030},
		"stats": {0x55105940, 0x57093306}, "irmap-cache": {0x55105940, 0x57004059}} {
		var b []byte
		for _, magic := range magics {
			b = binary.LittleEndian.AppendUint32(b, magic)
		}
		_, err := checkpoint.ReadAll("x", bytes.NewReader(append(b, 1, 0, 0, 0, 0)), checkpoint.Options{})
		magic, ok := errors.AsType[*codec.MagicError](err)
		if !ok || magic.Kind() != kind || !strings.Contains(err.Error(), "magic of a "+kind+" image") {
			t.Errorf("error %v, want that it is of kind %s", err, kind)
		}
	}
}

// TestForeignELF names ELF files that are no cores of Linux on x86.
func TestForeignELF(t *testing.T) {
	core := testimg.Read(t, "core-kernel", "core.27620")
	le := binary.LittleEndian
	owner := func(name string) func(b []byte) {
		return func(b []byte) {
			at := bytes.Index(b, []byte("\x05\x00\x00\x00\x50\x01\x00\x00\x01\x00\x00\x00CORE")) // NT_PRSTATUS
			if at < 0 {
				t.Fatal("no NT_PRSTATUS")
			}
			le.PutUint32(b[at:], uint32(len(name)))
			copy(b[at+12:], name)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(b []byte)
		want   string
	}{
		{"FreeBSD", func(b []byte) { b[7] = 9 }, "a core of FreeBSD"},
		{"owner FreeBSD", owner("FreeBSD\x00"), "a core of FreeBSD"},
		{"owner NetBSD", owner("NetBSD-CORE\x00"), "a core of NetBSD"},
		{"owner NetBSD, a thread", owner("NetBSD-CORE@1234\x00"), "a core of NetBSD"},
		{"owner OpenBSD", owner("OpenBSD\x00"), "a core of OpenBSD"},
		{"executable", func(b []byte) { le.PutUint16(b[16:], 2) }, "an executable, not a core"},
		{"shared object of ARM", func(b []byte) { le.PutUint16(b[16:], 3); le.PutUint16(b[18:], 183) }, "a shared object or executable, not a core"},
		{"object", func(b []byte) { le.PutUint16(b[16:], 1) }, "an object file, not a core"},
		{"core of ARM", func(b []byte) { le.PutUint16(b[18:], 183) }, "aarch64"},
		{"core of s390", func(b []byte) { b[5] = 2; copy(b[16:], "\x00\x04\x00\x16") }, "s390"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(core)
			tt.change(b)
			if _, err := checkpoint.ReadAll("core", bytes.NewReader(b), checkpoint.Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}
