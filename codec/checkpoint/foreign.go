package checkpoint

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/fpuimg/fpuimg/codec"
)

// ForeignError is a file of a kind that holds no checkpoint.
type ForeignError struct {
	Path string
	Name string // what it is: "a ZIP archive"
	// Advice says what to do about it, "" if nothing comes to mind. FILE stands for its
	// path and IMAGE for the name of the image that it would become.
	Advice string
}

func (e *ForeignError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Name) }

// Unwrap makes it a [*codec.FormatError] too: it has no magic of an image.
func (e *ForeignError) Unwrap() error {
	return &codec.FormatError{Path: e.Path, Field: "magic", Err: foreignName(e.Name)}
}

type foreignName string

func (n foreignName) Error() string        { return string(n) }
func (n foreignName) Is(target error) bool { return target == codec.ErrMagic }

const (
	adviceNone    = "it holds no checkpoint; name what criu dump, an engine or gcore wrote"
	adviceMachine = "it holds a whole machine; name a checkpoint that was taken of a process in it"
	adviceDisk    = "copy the checkpoint out of it, and name that"
	adviceProfile = "it describes a machine: --host=FILE"
)

// signature tells a kind of file by bytes at a place. In a text they are compared
// without white space, since the same JSON is written with and without it.
type signature struct {
	magic  string
	offset int // -1 for a text
	name   string
	advice string
}

// signatures are tried in their order: of two that fit, the closer one stands first.
var signatures = []signature{
	{"MDMP", 0, "a minidump, as Breakpad, Crashpad, Windows and lldb write it", "Breakpad's minidump-2-core makes an ELF core of it: minidump-2-core -o core FILE"},
	{"PAGEDU", 0, "a crash dump of Windows", adviceMachine},
	{"\xcf\xfa\xed\xfe", 0, "a Mach-O file, such as a core of macOS", adviceNone},
	{"\xce\xfa\xed\xfe", 0, "a Mach-O file, such as a core of macOS", adviceNone},
	{"\xfe\xed\xfa\xcf", 0, "a Mach-O file, such as a core of macOS", adviceNone},
	{"\xfe\xed\xfa\xce", 0, "a Mach-O file, such as a core of macOS", adviceNone},
	{"\xca\xfe\xba\xbe", 0, "a Mach-O file for several architectures, or a Java class", adviceNone},
	{"\xca\xfe\xba\xbf", 0, "a Mach-O file for several architectures", adviceNone},
	{"MZ", 0, "a program for Windows (PE)", adviceNone},

	{"PK\x03\x04", 0, "a ZIP archive", "unpack it, and name what is in it: unzip FILE"},
	{"PK\x05\x06", 0, "an empty ZIP archive", adviceNone},
	{"PK\x07\x08", 0, "a ZIP archive in several parts", "unpack it, and name what is in it: 7z x FILE"},
	{"7z\xbc\xaf\x27\x1c", 0, "a 7z archive", "unpack it, and name what is in it: 7z x FILE"},
	{"Rar!\x1a\x07", 0, "a RAR archive", "unpack it, and name what is in it: unrar x FILE"},
	{"!<arch>\ndebian", 0, "a Debian package", adviceNone},
	{"!<arch>\n", 0, "an ar archive", "unpack it, and name what is in it: ar x FILE"},
	{"\xed\xab\xee\xdb", 0, "an RPM package", adviceNone},
	{"070701", 0, "a cpio archive", "unpack it, and name what is in it: cpio -idm < FILE"},
	{"070702", 0, "a cpio archive", "unpack it, and name what is in it: cpio -idm < FILE"},
	{"070707", 0, "a cpio archive", "unpack it, and name what is in it: cpio -idm < FILE"},
	{"\xc7\x71", 0, "a cpio archive", "unpack it, and name what is in it: cpio -idm < FILE"},
	{"LZIP", 0, "compressed by lzip", "lzip -dc FILE | fpuimg show -"},
	{"\x89LZO\x00", 0, "compressed by lzop", "lzop -dc FILE | fpuimg show -"},
	{"\x5d\x00\x00", 0, "compressed by lzma", "xz --format=lzma -dc FILE | fpuimg show -"},
	{"\x1f\x9d", 0, "compressed by compress", "gzip -dc FILE | fpuimg show -"},
	{"\xff\x06\x00\x00sNaPpY", 0, "compressed by snappy", "decompress it, and pipe it into fpuimg show -"},
	{"-----BEGINPGPMESSAGE", -1, "encrypted by OpenPGP", "gpg -d FILE | fpuimg show -"},
	{"age-encryption.org/v1", 0, "encrypted by age", "age -d FILE | fpuimg show -"},
	{"Salted__", 0, "encrypted by openssl", "decrypt it, and pipe it into fpuimg show -"},
	{"LUKS\xba\xbe", 0, "a disk encrypted by LUKS", adviceDisk},

	{"LibvirtQemudSave", 0, "a machine that virsh save or managedsave saved", adviceMachine},
	{"LibvirtQemudPart", 0, "a machine that virsh save did not save to the end", adviceMachine},
	{"QEVM", 0, "a migration stream of QEMU", adviceMachine},
	{"\x7fVirtualBox SavedState", 0, "a machine that VirtualBox saved", adviceMachine},
	{"\xd0\xbe\xd2\xbe", 0, "a machine that VMware saved", adviceMachine},
	{"\xd1\xba\xd1\xba", 0, "a machine that VMware saved", adviceMachine},
	{"\xd2\xbe\xd2\xbe", 0, "a machine that VMware saved", adviceMachine},
	{"LinuxGuestRecord", 0, "a machine that Xen saved", adviceMachine},
	{"KDUMP   ", 0, "a dump of a kernel's memory, as makedumpfile compresses it (kdump)", adviceMachine},
	{"DISKDUMP", 0, "a dump of a kernel's memory by diskdump", adviceMachine},
	{"makedumpfile\x00", 0, "a dump of a kernel's memory in makedumpfile's flattened form", adviceMachine},
	{"EMiL", 0, "a dump of a machine's memory by LiME", adviceMachine},
	{"AVML", 0, "a dump of a machine's memory by AVML", adviceMachine},
	{"minidump FreeBSD/", 0, "a dump of a FreeBSD kernel", adviceMachine},
	{"QFI\xfb", 0, "a disk image of QEMU (qcow2)", adviceDisk},
	{"KDMV", 0, "a disk image of VMware (VMDK)", adviceDisk},
	{"vhdxfile", 0, "a disk image of Hyper-V (VHDX)", adviceDisk},
	{"conectix", 0, "a disk image of Hyper-V (VHD)", adviceDisk},
	{"<<< ", 0, "a disk image of VirtualBox (VDI)", adviceDisk},
	{"hsqs", 0, "a squashfs file system", "unpack it, and name what is in it: unsquashfs FILE"},
	{"\xe2\xe1\xf5\xe0", 0x400, "an EROFS file system", adviceDisk},
	{"\x53\xef", 0x438, "an ext file system", adviceDisk},

	{"gVisorSF", 0, "a checkpoint by gVisor (runsc), in a form of its own", "take one with CRIU: runc or crun checkpoint"},
	{"DMTCP_CHECKPOINT_IMAGE", 0, "a checkpoint by DMTCP, in a form of its own", "take one with CRIU: criu dump"},

	{"LPKSHHRH", 0, "a journal of systemd", "coredumpctl dump -o core PID takes a core out of the store"},
	{"PERFILE2", 0, "what perf recorded", adviceNone},
	{"JAVA PROFILE", 0, "a heap dump of Java", "it holds no registers; take a core with gcore"},
	{"ProblemType:", -1, "a crash report by apport", "apport-unpack FILE DIR takes it apart; name DIR/CoreDump"},
	{"SQLite format 3\x00", 0, "an SQLite database", adviceNone},
	{"\x89PNG", 0, "a PNG picture", adviceNone},
	{"\xff\xd8\xff", 0, "a JPEG picture", adviceNone},
	{"GIF8", 0, "a GIF picture", adviceNone},
	{"%PDF-", 0, "a PDF document", adviceNone},
	{"versionhttps://git-lfs.github.com", -1, "a pointer of Git LFS, not the file itself", "git lfs pull fetches the file"},

	{`{"magic":"`, -1, "JSON by crit, not the image", "make the image of it: crit encode -i FILE -o IMAGE"},
	{`{"schema":"fpuimg.profile/`, -1, "a profile of a machine by fpuimg", adviceProfile},
	{`{"schema":"fpuimg.`, -1, "JSON that fpuimg printed", "name the checkpoint that it is about"},
	{`{"schemaVersion":`, -1, "the manifest or index of a container image", "name the directory or archive that holds its layers too"},
	{`{"architecture":`, -1, "the configuration of a container image", "name the directory or archive that holds its layers too"},
	{`[{"Config":"`, -1, "the manifest of a container image", "name the directory or archive that holds its layers too"},
	{`{"ociVersion":`, -1, "the configuration of a container", adviceNone},
	{`[{"Id":`, -1, "what docker or podman inspect printed", adviceNone},
	{`{"`, -1, "JSON", adviceNone},
	{`[{`, -1, "JSON", adviceNone},
	{"<domain", -1, "XML by libvirt", adviceNone},
	{"<cpu", -1, "XML by libvirt", adviceNone},
	{"<capabilities", -1, "XML by libvirt", adviceNone},
	{"<!--WARNING:THISISANAUTO-GENERATEDFILE", -1, "XML by libvirt", adviceNone},
	{"<!DOCTYPEhtml", -1, "a web page", "download the file that it links to"},
	{"<html", -1, "a web page", "download the file that it links to"},
	{"<?xml", -1, "XML", adviceNone},
	{"processor:0", -1, "what /proc/cpuinfo says", adviceProfile},
	{"Architecture:", -1, "what lscpu prints", adviceProfile},
	{"CPU0:0x", -1, "a dump by cpuid -r", adviceProfile},
	{"CPU:0x", -1, "a dump by cpuid -r", adviceProfile},
	{"(00.", -1, "a log of CRIU", "name the directory of the images, which is not always that of the log"},
	{"Version:", -1, "a log of CRIU", "name the directory of the images, which is not always that of the log"},
	{"#!", 0, "a script", adviceNone},
}

// foreign returns a [*ForeignError] if a file that begins so is known to be of a kind
// that holds no checkpoint, else nil. A text that fits no signature is a text.
func foreign(path string, head []byte) error {
	if len(head) == 0 {
		return &ForeignError{path, "an empty file", "what wrote it was cut off, or had no space"}
	}
	if len(head) == headSize && bytes.Count(head, []byte{0}) == headSize {
		return &ForeignError{path, "zeros, as a crash or a full disk leaves them", "it holds no checkpoint; name another copy of it"}
	}
	text := squeeze(head)
	for _, s := range signatures {
		b := text
		if s.offset >= 0 {
			b = head[min(s.offset, len(head)):]
		}
		if bytes.HasPrefix(b, []byte(s.magic)) {
			return &ForeignError{path, s.name, s.advice}
		}
	}
	if match, _ := filepath.Match("pages-*.img", filepath.Base(path)); match {
		return &ForeignError{path, "memory of a CRIU checkpoint", "it holds no registers; name its directory"}
	}
	if text != nil {
		return &ForeignError{path, "a text", adviceNone}
	}
	return nil
}

// squeeze returns a text without white space, nil for what is no text.
func squeeze(head []byte) []byte {
	head = bytes.TrimPrefix(head, []byte("\ufeff"))
	out := make([]byte, 0, len(head))
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		switch {
		case strings.ContainsRune(" \t\r\n", r):
		case r == utf8.RuneError && n == 1 && utf8.FullRune(head), r < ' ' && r != 0x1b, r == 0x7f:
			return nil
		default:
			out = append(out, head[:n]...)
		}
		head = head[n:]
	}
	return out
}
