package main

import "github.com/fpuimg/fpuimg/cmd/internal/cli"

const exits = `
  0  compatible, or done
  1  refused by policy (what --force lifts), incompatible, or different
  2  the command line makes no sense
  3  damaged or unreadable input, or an I/O error

The worst over all inputs counts, in the order 0, 1, 3.
`

var rootManual = cli.Manual{
	Name:     "fpuimg",
	Short:    "the x86 floating-point state in CRIU checkpoints",
	Synopsis: "COMMAND [OPTION]... [PATH]...",
	Body: `
CRIU freezes a process tree into image files and thaws it elsewhere. Each
thread's FPU state stands in core-TID.img: no record at all, an FXSAVE record
(x87 and XMM) or an XSAVE record (YMM, AVX-512, PKRU and more). fpuimg shows it,
says whether it fits another machine, and changes its format.

Every PATH is one of these, told apart by content; "-" is standard input, and
without a PATH the current directory is read.

  directory  of CRIU images, or one or two levels above it: a runtime's, a
             container's; an OCI image layout, skopeo's dir:, or one of ELF cores
  image      one core-*.img, plain or compressed
  archive    a tar archive as Podman, CRI-O and containerd write it, a container
             image that podman save, docker save or skopeo wrote, or an archive in
             an archive, each plain or compressed by gzip, zstd, xz, bzip2 or lz4.
             ARCHIVE:DIR names one of several checkpoints in it. Nothing is unpacked
  capture    what criu-image-streamer captured, plain or compressed
  ELF core   written by the kernel, gcore or show --elf-core, plain or compressed

convert takes a directory, an image and an archive of images only. A file of another
kind is refused by its name.

The commands:

  show     every thread's state components and registers
  check    whether it fits a machine, why not, and what CRIU would do
  convert  change the format of the FPU records
  level    make its processes run on a lesser machine
  need     what a machine must have for a checkpoint to run there
  profile  describe a machine for --host
  diff     what differs between two checkpoints
  help     the manual of a command: fpuimg help show
  version  the version
  completion  completes commands in a shell: fpuimg help completion

Standard output is data, standard error is talk. NO_COLOR is honoured, and
nothing is told by colour alone.
`,
	Exits: exits,
	See:   []string{"fpuimg-show", "fpuimg-check", "fpuimg-convert", "fpuimg-level", "fpuimg-need", "fpuimg-profile", "fpuimg-diff", "fpuimg-completion", "criu(8)"},
}

var showManual = cli.Manual{
	Name:     "fpuimg show",
	Short:    "show the FPU state of every thread of a checkpoint",
	Synopsis: "[OPTION]... [PATH]...",
	Body: `
Prints a table of the threads: their format, XSTATE_BV as it is recorded, and a
map of their XSAVE area: one cell per component, in the order in which they lie
there. Threads in the same state share a row. The head of the map says, where there
is room, what its marks mean:

  [AVX]  in use: the bit is set in XSTATE_BV, and some register differs from INIT
  (AVX)  zero: the bit is set, but every register holds its INIT value
   AVX   init: the bit is clear
  !AVX!  lost: the bit is set, but the image holds no data
  -----  absent: the record has nothing there; a single dash stands for components
         that no thread has

For x87 and SSE the content decides, because CRIU restores both whatever
XSTATE_BV says. Findings about damage follow the table; a fatal one makes the
exit status 3.

With --regs every register is printed: ST(0) to ST(7) in stack order with their
tags, and vector registers as wide as the record goes, most significant digit
first. --as prints vector registers as lanes instead, lane 0 first.

An ELF core from before Linux 6.12 does not say where its components lie; XCR0 and
the size of the note tell, or --host does. gcore sets every bit of XSTATE_BV. What a
core does not record is unknown: the map does not have it, and a finding says so.
--xsave-area reads a bare area, as a signal frame, ptrace or the XSAVE instruction
leaves it; one of compacted format needs nothing else, one of standard format is
told by its size or by --host. That is the machine that stored it: where its profile
has no offsets, as a cpuinfo.img, its XSAVE size tells them. An area in which that
machine has no place for what is in use, or ends no component, is refused, unless only
zeros follow, as in the buffer that KVM_GET_XSAVE fills.

Of a checkpoint in an OCI image, those annotations follow that tell of it, as
checkpointctl, Podman and CRI-O write them: org.criu.checkpoint.container.name and the
like, and those of fpuimg need. At most 64 of up to 1 KiB are read.

--elf-core writes a core that has the registers of all threads of one checkpoint and
no memory, for gdb: gdb -c FILE. With --elf-core=- it goes to standard output, and
nothing else does.

    fpuimg show ckpt
    fpuimg show --regs --component=AVX,PKRU --tid=4711 ckpt
    fpuimg show --regs --as=f64 core-4711.img
    ssh host cat core-7.img | fpuimg show -
    fpuimg show checkpoint-web.tar
    fpuimg show --elf-core=web.core checkpoint-web.tar
    fpuimg show --xsave-area --host=zen4.json --regs area.bin
`,
	Exits: exits,
	See:   []string{"fpuimg"},
}

var convertManual = cli.Manual{
	Name:     "fpuimg convert",
	Short:    "change the format of the FPU records of a checkpoint",
	Synopsis: "--to=FORMAT | --host[=PROFILE] [OPTION]... [PATH]...",
	Body: `
Going up is safe: a thread without a record gets the INIT state, and an FXSAVE
record becomes an XSAVE record whose extended components are in INIT. Going down
is not: nobody knows what the program does with registers that are gone. So a
conversion that takes something away is refused, and says what would be lost,
unless --force is given; then every loss is named. Of damage, --force gets over
one kind: components whose values CRIU lost at the dump. Their bits are cleared.

With --to=xsave alone the AVX component is added, which every CRIU reads;
--features names others, and takes away what it does not name. --host takes away
what that machine cannot hold, and gives a thread without a record a legacy one.
The machine is this one, or PROFILE: a file that describes it, as fpuimg help
profile lists them, - for standard input, or a name such as x86-64-v3 or znver3.

What a thread in a system call overwrites before it reads it is no loss; --root proves
it, as fpuimg help check says. Code is not judged: check does that.

Only FPU records and the length words around them change; all other bytes of
every image stay. A new directory ckpt.fxsave, or core-7.fxsave.img for a single
image, appears beside the input, by one rename; with --host alone it has the
machine's name, and -o names another place. What is there already is never
replaced. --in-place changes the checkpoint itself and keeps the originals as
NAME.orig. A conversion in place that was cut off is reported by every command and
completed by the next convert.

Of an archive a new one is made, x.fxsave.tar.zst of x.tar.zst, compressed as it was
or by --compress, since bzip2 is only read; -o - writes it to standard output. Every
member that is not a converted image keeps its header and data byte for byte, in its
place; a converted one has another size and checksum, and cannot be one that is
stored as a sparse file. All checkpoints in it are converted, or none. An OCI image
layout is only read.

A cpuinfo.img is adapted too, unless --keep-cpuinfo is given: by --to=fxsave or
none it loses XSAVE and what depends on it, by --host=PROFILE --force it becomes what
that machine satisfies, so that criu restore --cpu-cap=fpu accepts it there. That
erases what it said of the source, and the report says so.

    fpuimg convert --to=xsave old-ckpt
    fpuimg convert --to=fxsave --force ckpt
    fpuimg convert --host=x86-64-v3 --force --in-place ckpt
    fpuimg convert --to=fxsave --force - < core-7.img > out/core-7.img
    fpuimg convert --host=haswell.json --force checkpoint-web.tar
`,
	Exits: exits,
	See:   []string{"fpuimg", "criu(8)"},
}

var levelManual = cli.Manual{
	Name:     "fpuimg level",
	Short:    "make a checkpoint run on a lesser machine",
	Synopsis: "--host[=PROFILE] --root=DIR... [OPTION]... [PATH]...",
	Body: `
A program of glibc chooses its functions when it starts, by the CPU that it finds:
memset with AVX-512, strlen with AVX2. Restored on a CPU without those it dies of
SIGILL at the next call, whatever its registers hold. level rewrites the dumped memory
so that the process runs as if it had been started on that machine:

  irelative, got, data  words that the dynamic loader filled in with such functions
  copy          what is left of them elsewhere: on the heap, on stacks, mangled, in
                general registers
  cpu-features  glibc's record of the CPU, by which it chooses what it binds later
  trampoline    what lazy binding saves registers with: XSAVEC, XSAVE or FXSAVE
  save-size     how large its buffer is
  openssl       the record of the CPU that libcrypto keeps
  frame         signal frames that handlers will return to

and the registers as fpuimg convert --host does, without --force: a format that the
machine lacks is changed where no register is in use that the process would look at.
The machine is this one or PROFILE, as fpuimg help profile lists them. Nothing is ever
added: a feature that the source lacked stays missing.

The program's files are needed, below --root=DIR: / where it ran on this machine, or its
container's root file system (podman image mount NAME). What a container has besides its
image is in the archive's rootfs-diff.tar: unpack that, and name the directory, too. A
file serves only if its build-id is the dumped one.

Every word that the loader filled in is first compared with what its resolver chooses,
by running that in an emulator; every function that takes a place is decoded, and must
need nothing that the machine lacks. The result is read anew and looked through the same
way before it appears. A second run says that there is nothing to do.

What is not understood is refused, by name, and nothing is written:

  object-missing, object-differs  no root has the file, or another one
  pages-elsewhere, pages-compressed  memory that is not in this checkpoint
  task-32bit, glibc-unknown, features-ambiguous  a libc that is not known
  resolver-unknown, resolver-mismatch, target-unfit, word-ambiguous
                  functions that were not chosen as glibc chooses them
  copies-elsewhere  what would have to change is in no image
  thread-in-code, thread-in-loader  dumped at a bad moment: take it again
  state-live, frame-live, in-use  registers that the machine lacks, and somebody needs,
                  or locks that are transactions
  hwcaps-path     libraries built for more than the machine (glibc-hwcaps)
  own-dispatch    an object that chose its code by itself
  compiled-isa    an object that is compiled for more than the machine
  cached-cpuid    an object that keeps what CPUID said
  jit-code        code that the program made at run time
  shared-memory   shared memory that was not looked through: it is a file's, mapped to be
                  written, or no process maps it

The last five are a judgement: --accept=NAME, or --accept=NAME:OBJECT, goes ahead in
spite of them. --dry-run says whether a checkpoint will go, and what would change.

What it cannot see: a pointer that a program keeps in a form of its own, packed or
combined with other bits; and a flag by which an object chooses scalar code, as libzstd
keeps one for BMI2 in each of its contexts. A program with such a context dies on a
machine without that feature, which every CPU since Haswell and Zen has. Results may
differ in the last bit: libm with FMA rounds otherwise than without.

What it does not do: level 32-bit code, glibc before 2.29 or runtimes that
make their code (Java, node) or choose it themselves (Go, numpy); write pages that CRIU
compressed; take objects without a build-id; have the process use what a larger machine
has; or tune to the machine from which size on glibc's memcpy copies otherwise. It was
tried with the glibc of Debian, 2.31, 2.36 and 2.41, on CPUs that QEMU emulates.

A new directory ckpt.level-haswell appears beside the input, or for an archive a new
archive; -o names another place, and --in-place changes the checkpoint itself, as
fpuimg help convert tells. A cpuinfo.img becomes what the machine satisfies, unless
--keep-cpuinfo is given.

    fpuimg level --host=haswell.json --root=/ ckpt
    fpuimg level --host=x86-64-v2 --root=/ --dry-run ckpt
    fpuimg level --host=haswell.json --root=$(podman image mount web) web.tar.zst
`,
	Exits: exits,
	See:   []string{"fpuimg", "fpuimg-check", "fpuimg-convert", "fpuimg-profile", "criu(8)"},
}

var checkManual = cli.Manual{
	Name:     "fpuimg check",
	Short:    "say whether a checkpoint fits a machine, and why not",
	Synopsis: "[--host[=PROFILE]]... [--hosts=DIR] [OPTION]... [PATH]...",
	Body: `
Holds every thread's FPU state against a machine, this one or PROFILE: a file that
describes it, as fpuimg help profile lists them, - for standard input, or a name
such as x86-64-v3 or znver3. With several machines it prints a matrix, images down
and machines across, whose cells name the chief reason only. --hosts=DIR takes each
file of a directory for a machine; a directory that holds archives and no images, such
as kubelet's of checkpoints, is as many inputs.

  compatible           it fits
  downgrade-lossless   the machine lacks what the record has; no value would go
  unknown              an ELF core does not record what the machine may lack
  downgrade-lossy      register values would be lost; they are named
  code-unfit           its processes die there of SIGILL, whatever their registers are
  damaged              the record itself is not whole

Findings say why. Fatal ones decide the verdict; if a conversion lifts them, the
hint ends in its command. Risky ones never do: the process may break, and no image
can tell.

A program chooses code when it starts, by the CPU that it finds, and dies where that
code cannot run. With --root check reads in the dumped memory what was chosen, and in
the ELF files below DIR what it needs: / where the programs ran on this machine, or
the root file system of their container (podman image mount NAME). A file serves only
if its build-id is the dumped one; what could not be looked at is named. --root may be
given several times. Without it only the images are read: the CPU as glibc recorded
it, signal frames, generated code; nothing of that is fatal. --no-memory looks at
registers alone. The memory in a compressed archive is read only with --root: it is
kept meanwhile in a file without a name in $TMPDIR or /tmp, at most --spool of it
(16G; 0 keeps none).

Last comes what CRIU 4.3, or the release that --criu=3.17.1 names, will do for each
value of its --cpu-cap option.

  restores         exit status 0, and nothing of the FPU state is lost
  restores-losing  exit status 0, but components are dropped without a word
  refuses          with the class of its complaint, and the reason
  unknown          the profile lacks what CRIU compares, as a level does

With --html the same is written to a file as a page for a browser, too: images down,
machines across, to filter and sort, with all findings of a cell. It holds everything
and asks no network.

The exit status follows the verdict, not the prediction. Of an ELF core or a bare
XSAVE area (--xsave-area) only the registers are judged. One that does not say where
its components lie needs the machine that stored it, which --host does not name here:
fpuimg show --host=PROFILE --elf-core=FILE makes a core of it that says so.

    fpuimg check ckpt
    fpuimg check --host=haswell.json ckpt
    fpuimg check --host=haswell.json --root=/ ckpt
    ssh node cat /proc/cpuinfo | fpuimg check --host=- ckpt
    fpuimg check --host=haswell.json --criu=3.17.1 ckpt
    fpuimg check --host=x86-64-v3 --host=znver3 --host=haswell,-rtm --host=zen4.json a b c
    fpuimg check --html=fleet.html --root=/ --hosts=nodes /var/lib/kubelet/checkpoints
`,
	Exits: exits,
	See:   []string{"fpuimg", "fpuimg-profile", "fpuimg-convert", "criu(8)"},
}

var needManual = cli.Manual{
	Name:     "fpuimg need",
	Short:    "say what a machine must have for a checkpoint to run there",
	Synopsis: "[--as=FORM] [--root DIR]... [OPTION]... [PATH]...",
	Body: `
Says what a checkpoint needs, not what the machine had that it was taken on: what
check finds missing on a machine that has nothing but x86-64.

  level       the lowest level of the x86-64 psABI that guarantees all of it
  components  whose registers are in use, and will be read
  CPU flags   of these, and of the functions that glibc has chosen
  MXCSR       bits that not every CPU has
  XSAVE area  where glibc's lazy binding saves registers by XSAVE, into a buffer that
              was sized when the program started: what fits there
  machines    those of fpuimg profile --list that have all that is known to be needed
  perhaps     flags of code that may run: a library's own, behind its own tests
  not known   what was not found out

What the code needs is known with --root only, as fpuimg help check tells. Without
it the registers alone speak, and a program that runs code of AVX-512 may be said to
need nothing: "not known" names that.

With --as the same is printed for a scheduler. NFD is Node Feature Discovery, which
labels the nodes of a Kubernetes cluster; what its labels do not say is named in
comments.

  json         the schema fpuimg.need/1
  affinity     a nodeAffinity for the pod that restores it. Labels fpuimg-* are those
               of fpuimg profile --format=nfd
  nfd-rule     a NodeFeatureRule, which labels the nodes where it runs. It sees more
               than labels: BMI2, say
  annotations  io.github.fpuimg.need.* for the OCI image that holds the checkpoint, beside
               the org.criu.checkpoint.* of checkpointctl; fpuimg show prints both

    fpuimg need ckpt
    fpuimg need --root=/ --as=affinity ckpt
    fpuimg need --root=/ --as=json a.tar b.tar
    buildah config $(fpuimg need --as=annotations ckpt.tar |
        sed -n 's/^\([^#].*\): "\(.*\)"$/--annotation=\1=\2/p') CONTAINER
`,
	Exits: exits,
	See:   []string{"fpuimg", "fpuimg-check", "fpuimg-profile"},
}

var profileManual = cli.Manual{
	Name:     "fpuimg profile",
	Short:    "describe a machine for --host",
	Synopsis: "[-o FILE] [--format=FORMAT] [--host[=PROFILE] | PROFILE | --common PROFILE... | --list | --every=INTERVAL]",
	Body: `
Describes this machine, or the one of PROFILE, as JSON or, with --format, as
something else. With --common the result is what all the named machines share: what
convert --host makes of an image for it fits each of them. An existing file is not
overwritten.

A PROFILE is a name, - for standard input, or a file, told apart by content. Links
are followed, and pipes read to their end.

  name       that --list prints: a level of the x86-64 psABI, x86-64-v3, or a CPU
             as compilers call it, znver3, from a published dump

  profile    JSON by fpuimg profile
  cpuinfo.img  of criu dump --cpu-cap=cpu, or a directory or archive that has one;
             ARCHIVE:DIR names one of several checkpoints in it; or what crit
             show prints of it
  cpuinfo    /proc/cpuinfo, or lscpu, plain or -J: the flags, and the components
             that follow from them, but no sizes
  dump       of the CPUID instruction by cpuid -r, kcpuid -r, AIDA64 (InstLatx64,
             libcpuid), x86info -r, xen-cpuid -p or cpucontrol, or libvirt's cpudata
  ld.so      --list-diagnostics of glibc 2.33 or later; all leaves from 2.39 on
  log        dump.log or restore.log of criu -v4, or dmesg: the components

After it may stand flags that a virtual machine lacks, or has besides, as QEMU has
them: haswell,-rtm,+pku or node.json,rtm=off,pku=on. What needs a flag goes with it,
and what it needs comes with it; components and sizes follow. A named CPU has all
that its dump shows, enabled as Linux does. Updates of microcode and Linux's default
tsx=off take rtm away: -rtm says so, and is safe for fpuimg level.

FORMAT is one of these.

  json      what --host reads; the default
  criu      the cpuinfo.img that CRIU would write there
  nfd       lines for Node Feature Discovery's features.d: the level, the size of the
            XSAVE area and each component in XCR0, as labels fpuimg-* of the node.
            With --every the program runs on and replaces the file -o each INTERVAL;
            its labels last for three of them, and go when nobody writes it any more
  tunables  the value of GLIBC_TUNABLES with which a program of glibc 2.33 or later
            starts that shall run on there: it hides from glibc what is missing. Set
            it where the program starts; a checkpoint that exists is not changed

Of several CPUs what all have counts. What a form does not record is unknown: it is
not called missing, and what CRIU would make of it is unknown too. The JSON names
such flags in unknown_flags.

    fpuimg profile -o haswell.json
    fpuimg profile --host=skylake-avx512,-pku
    fpuimg profile --format=criu -o cpuinfo.img
    fpuimg profile --common *.json > fleet.json
    fpuimg profile --format=nfd --every=10m -o /etc/kubernetes/node-feature-discovery/features.d/fpuimg
    export $(fpuimg profile --format=tunables --common *.json)
    ssh node lscpu | fpuimg profile -o node.json -
`,
	Exits: exits,
	See:   []string{"fpuimg", "fpuimg-check", "fpuimg-convert"},
}

var diffManual = cli.Manual{
	Name:     "fpuimg diff",
	Short:    "show what differs between the FPU states of two checkpoints",
	Synopsis: "[OPTION]... A B",
	Body: `
Compares thread by thread, those of the same number first, the rest in their
order, and prints each register whose value differs: - is A, + is B. A component
that one record lacks counts as INIT, which is what a restored process sees
there. The exit status is 1 if anything differs, the format of the records
included.

Each side may be anything that fpuimg show reads. With --xsave-area a file that is
nothing else is a bare XSAVE area, and so is standard input; --host is the machine
that stored it, as in fpuimg show.

    fpuimg diff ckpt ckpt.fxsave
    fpuimg diff web.tar core.4711
    fpuimg diff --xsave-area before.bin after.bin
`,
	Exits: exits,
	See:   []string{"fpuimg"},
}
