// Package guest boots small Linux guests of any CPU model under qemu and runs
// shell steps in them, CRIU included.
//
// It exists because what decides whether a checkpoint restores is the CPU, and
// a test machine has one. qemu's TCG emulates any model on any amd64 Linux
// host, without KVM and without root; AVX-512 it does not. [HostCPU] is for that.
//
// # The guest
//
// [Build] puts together the kernel of Debian's linux-image-cloud-amd64, the
// modules CRIU asks for, a static busybox, the host's criu with its libraries,
// further programs of the host for the tests that name some, and this package's
// own init. The result is cached, and made anew when any of these changes.
// [Check] names the Debian packages that are missing for that, and [Install]
// installs them.
//
// # A run
//
// [Image.Run] boots one guest for a [Job]. Its files travel in a cpio archive
// behind the initrd, and appear at the paths the job names. Its steps run in
// order, in one boot. A step is a script for /bin/sh, run as root:
//
//   - it starts in /job, and $OUT names its own empty result directory;
//   - whatever is in $OUT when it ends is copied back to the host, as are its
//     output, its exit status and the kernel's log of that time;
//   - other steps find it at /job/step/NAME/out;
//   - the processes it leaves in a session of their own (setsid) live on.
//
// A step that fails or exceeds its time limit does not keep the next from
// running, and what earlier steps left is there even if the guest never ends.
//
// # Tests
//
// Tests that need a guest begin with [Require]. They run only if the
// environment variable FPU_VM is 1, so that a plain "go test ./..." needs
// neither qemu nor root nor a network.
package guest
