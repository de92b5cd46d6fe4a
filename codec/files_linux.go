package codec

import "golang.org/x/sys/unix"

// readNow reads from the start of a file what the kernel has in memory. It waits for
// nothing, but the kernel may begin to read the rest. FIFOs and terminals have no start, and
// of devices the kernel reads those alone whose drivers never wait: disks, zero and random.
func readNow(fd int, b []byte) (int, error) {
	return unix.Preadv2(fd, [][]byte{b}, 0, unix.RWF_NOWAIT)
}

// willNeed asks the kernel to read the first bytes of a file.
func willNeed(fd int, size int64) { unix.Fadvise(fd, 0, size, unix.FADV_WILLNEED) }
