package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Magic numbers of criu/include/magic.h.
const (
	magicCommon    = 0x54564319 // IMG_COMMON, before the type's magic since v1.6
	magicService   = 0x55105940 // IMG_SERVICE, in its place in files that are not images
	magicInventory = 0x58313116
	magicPstree    = 0x50273030
	magicCore      = 0x55053847
	magicCPUInfo   = 0x61404013
	magicMM        = 0x57492820
	magicPagemap   = 0x56084025
	magicFiles     = 0x56303138
	magicRegFiles  = 0x50363636 // the files of CRIU before 3.0
	magicMemfd     = 0x48453499
)

// magicNames are the kinds of images, as their files are named.
var magicNames = map[uint32]string{magicInventory: "inventory", magicPstree: "pstree", magicCore: "core", magicCPUInfo: "cpuinfo",
	0x56213732: "fdinfo", magicPagemap: "pagemap", 0x54432030: "ids", 0x54123737: "vmas", 0x56513555: "pipes", 0x56453709: "pipes-data",
	0x58364939: "fifo", 0x59333054: "fifo-data", 0x55344201: "sigacts", 0x54373943: "unixsk", 0x56443851: "inetsk", 0x60454618: "packetsk",
	0x57464056: "itimers", 0x52603957: "posix-timers", 0x56264026: "sk-queues", 0x54473203: "utsns", 0x54023547: "creds", 0x53115007: "ipcns-var",
	0x46283044: "ipcns-shm", 0x55453737: "ipcns-msg", 0x59573019: "ipcns-sem", magicRegFiles: "reg-files", 0x59255641: "ext-files", 0x51403912: "fs",
	magicMM: "mm", 0x59133954: "remap-fpath", 0x52583605: "ghost-file", 0x51465506: "tcp-stream", 0x44523722: "eventfd", 0x45023858: "eventpoll",
	0x44433746: "eventpoll-tfd", 0x57323820: "signalfd", 0x48424431: "inotify", 0x54562009: "inotify-wd", 0x55563928: "mountpoints",
	0x57373951: "netdev", 0x55933752: "netns", 0x59433025: "tty", 0x59453036: "tty-info", 0x59413026: "tty-data", 0x54323616: "filelocks",
	0x57113925: "rlimit", 0x55096122: "fanotify", 0x56506035: "fanotify-mark", 0x59255647: "signal", 0x58005614: "netlinksk", 0x61394011: "ns-files",
	0x57143751: "tunfile", 0x59383330: "cgroup", 0x50493712: "timerfd", 0x55474906: "userns", 0x64413049: "seccomp", 0x67343323: "binfmt-misc",
	0x49353943: "autofs", magicFiles: "files", magicMemfd: "memfd", 0x57093306: "stats", 0x57004059: "irmap-cache"}

// image is a framed image file: magic words, then entries.
type image struct {
	path string
	raw  []byte
	at   int   // end of what was consumed
	err  error // the first fault that a walk over an entry met
	// met is the required fields of each type of message, as bits, where a walk asks
	// for them only at its end, over all messages of the type together; else nil.
	met map[*messageType]uint64
	// known is a message of each type, by its number, that conformed; nil keeps none. Limits
	// on resources and the like are the same in most images.
	known [][]byte
	// sound: the entry was walked whole, and a walk need not look everywhere again.
	sound bool
}

// maxKnown bounds, in bytes, the messages that are kept.
const maxKnown = 4 << 10

// entry is one protobuf message in an image.
type entry struct {
	size    int // offset of the length word
	start   int // offset of the payload
	payload []byte
}

func (m *image) errorf(off int, field, format string, args ...any) *FormatError {
	return &FormatError{m.path, int64(off), field, fmt.Errorf(format, args...)}
}

// word reads the 32-bit word at m.at and moves past it.
func (m *image) word(field string) (uint32, error) {
	if n := len(m.raw) - m.at; n < 4 {
		return 0, m.errorf(m.at, field, "want 4 bytes, have %d", n)
	}
	v := binary.LittleEndian.Uint32(m.raw[m.at:])
	m.at += 4
	return v, nil
}

// newImage checks the magic words of b. The path serves the errors, which are of
// type [*FormatError].
func newImage(path string, b []byte, want uint32) (image, error) {
	m := image{path: path, raw: b}
	v, err := m.word("magic")
	service := v == magicService
	if err == nil && (v == magicCommon || service) {
		v, err = m.word("magic")
	}
	if err != nil {
		cut, _ := errors.AsType[*FormatError](err)
		cut.Err = cutMagic{cut.Err}
		return m, cut
	}
	if v != want || service {
		return m, &FormatError{path, int64(m.at - 4), "magic", &MagicError{v, want}}
	}
	return m, nil
}

// newEntry is [newImage] and the first entry, of an image that has one.
func newEntry(path string, b []byte, want uint32) (image, entry, error) {
	m, err := newImage(path, b, want)
	if err != nil {
		return m, entry{}, err
	}
	e, err := m.next()
	return m, e, err
}

// cutMagic is a file that ends before there is a magic number.
type cutMagic struct{ error }

func (cutMagic) Is(target error) bool { return target == ErrMagic }

// more reports whether bytes follow the last entry.
func (m *image) more() bool { return m.at < len(m.raw) }

// next consumes one entry.
func (m *image) next() (entry, error) {
	at := m.at
	n, err := m.word("size")
	if err != nil {
		return entry{}, err
	}
	if have := len(m.raw) - m.at; uint64(n) > uint64(have) {
		return entry{}, m.errorf(at, "size", "entry of %d bytes, but only %d follow", n, have)
	}
	e := entry{at, m.at, m.raw[m.at:][:n:n]}
	m.at += int(n)
	return e, nil
}

// Inventory is what inventory.img tells of the images.
type Inventory struct {
	Compressed bool // the pages (CRIU 4.3)
}

// Field numbers of images/inventory.proto.
const inventoryCompress = 15

// ParseInventory decodes inventory.img. The error is a [*FormatError].
func ParseInventory(path string, b []byte) (Inventory, error) {
	var inv Inventory
	img, e, err := newEntry(path, b, magicInventory)
	if err != nil {
		return inv, err
	}
	m := img.message(e, "inventory")
	for m.next() {
		if m.num == inventoryCompress {
			inv.Compressed = m.typ != protowire.VarintType || m.u != 0
		}
	}
	return inv, img.err
}

// splice returns the file with e's payload replaced and its length word set.
func (m *image) splice(e entry, payload []byte) []byte {
	out := make([]byte, 0, len(m.raw)-len(e.payload)+len(payload))
	out = append(out, m.raw[:e.size]...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(payload)))
	out = append(out, payload...)
	return append(out, m.raw[e.start+len(e.payload):]...)
}

// newFile returns an image file of one entry, in the envelope of today's CRIU.
func newFile(magic uint32, payload []byte) []byte {
	out := make([]byte, 0, 12+len(payload))
	out = binary.LittleEndian.AppendUint32(out, magicCommon)
	out = binary.LittleEndian.AppendUint32(out, magic)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(payload)))
	return slices.Concat(out, payload)
}
