// Package facts holds what was found out about the code that the processes of a
// checkpoint run, as plain data: what [github.com/fpuimg/fpuimg/codec/program] reads
// and [github.com/fpuimg/fpuimg/convert/compat] judges. It knows no policy and does no
// I/O.
//
// CPU features are Linux flag names, those of [xstate.AllFlags], in sorted lists. What
// could not be found out is nil or empty and has an [Unknown] that says why.
package facts

import "github.com/fpuimg/fpuimg/codec/xstate"

// Process is one task: its code, and its threads.
type Process struct {
	PID    int
	Rooted bool   // ELF files were looked for: there is a root
	Libc   string // "glibc 2.36", "glibc" if the version is in no file, "musl", or "" if there is none or it is unknown

	// Source is the CPU that glibc found when the program started; nil if the memory
	// holds no such record.
	Source *Source

	// Objects are the ELF files that are mapped, in the order of their addresses. Of the
	// same file, processes share one Object.
	Objects []*Object
	// Targets are the functions that IFUNC slots hold, each once, the vDSO's left out.
	// nil if no ELF file was read, empty if no slot holds one.
	Targets []Target
	// Save is what glibc's lazy binding saves registers with; nil if no object binds
	// lazily, or it is unknown.
	Save *Save
	// Caches are the copies of CPUID's words that other objects than the libc keep.
	Caches []Cache
	// Areas are the mappings of anonymous memory that is executable.
	Areas []Area

	Threads  []Thread
	Unknowns []Unknown
}

// Source is the CPU as glibc's cpu_features records it.
type Source struct {
	// CPU is what CPUID said: family, model, stepping and the raw words.
	CPU *xstate.CPU
	// Active are the flags that glibc found usable, of those that it knows: what its
	// functions are chosen by.
	Active    []string
	Leaves    []Leaf
	ISALevel  int    // N of x86-64-vN; 0 if glibc is too old to record it
	SaveSize  uint64 // bytes that lazy binding takes from the stack; 0: it uses FXSAVE
	Preferred uint32 // glibc's bits of what it prefers, numbered by its version
}

// Leaf is one CPUID leaf, its registers in the order EAX, EBX, ECX, EDX.
type Leaf struct {
	Leaf, Subleaf uint32
	CPUID, Active [4]uint32 // raw; what glibc found usable, 0 in glibc before 2.32
}

// Status says how much is known of an object.
type Status string

const (
	OK        Status = "ok"          // the file has the dumped build-id
	Missing   Status = "missing"     // no root has a file of that path
	Differs   Status = "differs"     // the files there have other build-ids
	NoBuildID Status = "no-build-id" // the image, or the file, has none
	Unread    Status = "unread"      // not looked for, or cannot be read
)

// Object is one mapped ELF file.
type Object struct {
	Path    string // as the image names it
	BuildID string // of the image, in hex; "" if it has none
	Status  Status
	Reason  string // why the status is not OK

	// Own is the code of an object that does not choose it by IFUNC; nil if there is
	// none that needs more than x86-64, or it was not looked for. glibc's own objects
	// have none.
	Own *Own
}

// Own is vector code that an object chooses by itself, or has whatever the CPU.
type Own struct {
	Needs     []string
	AsksCPUID bool // the object executes CPUID
}

// Target is one function that slots hold.
type Target struct {
	Object    *Object // that it is part of
	Address   uint64
	Functions []string // what programs call: memset, strlen; sorted, may be empty
	Slots     int      // that hold it, in all objects; at least 1
	// Needs are the features of all instructions that can be reached from its entry
	// before it returns.
	Needs []string
	// Incomplete says why Needs may lack some: an instruction that is not known, a jump
	// that cannot be followed. "" if they are all.
	Incomplete string
}

// SaveKind is the instruction that saves registers.
type SaveKind string

const (
	FXSave SaveKind = "fxsave"
	XSave  SaveKind = "xsave"
	XSaveC SaveKind = "xsavec"
)

// SaveOffset is where the XSAVE area begins in the buffer of lazy binding, in bytes
// (glibc, sysdeps/x86/cpu-features.h: STATE_SAVE_OFFSET).
const SaveOffset = 64

// Save is the trampoline of lazy binding.
type Save struct {
	Kind SaveKind
	Size int // of the buffer, in bytes: the word that the trampoline reads; 0 for FXSave
	Lazy int // slots that are still to be bound through it
}

// Cache is a CPUID word that an object keeps.
type Cache struct {
	Object  *Object
	Address uint64
	Flags   []string // that they say the CPU has
}

// Area is anonymous executable memory.
type Area struct {
	Start, End uint64
	Writable   bool
}

// Thread is one thread of a process.
type Thread struct {
	TID    int
	IP     uint64
	Object *Object // that IP is in; nil for anonymous memory and the vDSO
	Symbol string  // of the function; "" if the file has no name for it

	// Syscall is the system call that the thread is blocked in, "" if it is in none.
	Syscall string
	// Dead are the components whose values no instruction reads before all of them are
	// overwritten.
	Dead xstate.Features
	// Live says why the others are not, by the instruction that ended the proof; "" if
	// nothing was proved or looked for.
	Live string

	// Needs are the features of all instructions that can be reached from IP before the
	// function returns, calls not followed.
	Needs      []string
	Incomplete string // as in [Target]
	// Certain are the features of those of them that no branch avoids: what the thread
	// executes next.
	Certain []string

	Frames []Frame // signal frames, the innermost first
}

// Frame is a signal frame on a thread's stack, with an XSAVE area.
type Frame struct {
	Address  uint64          // of the area
	Features xstate.Features // that the kernel saved: xfeatures of the software bytes
	BV       xstate.Features // XSTATE_BV of the area
	Size     int             // of the area: xstate_size of the software bytes
	// Live tells that a handler will return to it. Others are what is left of frames
	// that were returned from.
	Live bool
	// IP is where a live one was interrupted, and Needs the features of what can be
	// reached from there, as of a [Thread].
	IP    uint64
	Needs []string
	// Dead are the components of BV whose values the interrupted code does not read.
	Dead xstate.Features
}

// Topic is what an [Unknown] is about.
type Topic string

const (
	Code   Topic = "code"   // functions and slots of an object
	Memory Topic = "memory" // pages that are not there
	Libc   Topic = "libc"   // the libc: its file could not be proven, or what it recorded is not clear
	Proof  Topic = "proof"  // live or dead registers of a thread
)

// Unknown is something that was not found out, and why.
type Unknown struct {
	Topic  Topic
	TID    int     // 0 if it is about the process
	Object *Object // nil if it is about no object
	Reason string  // "pages are in a parent that is not there"; that there is no root needs no word
}
