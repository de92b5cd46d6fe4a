package program

import (
	"errors"
	"io"
	"testing"

	"github.com/fpuimg/fpuimg/codec/cpuid"
)

// runCode runs code at 0x1000, with the answer of CPUID that repeats the leaf.
func runCode(code []byte) (uint64, error) {
	e := emulator{
		load: func(b []byte, addr uint64) (int, error) {
			if addr < 0x1000 || addr-0x1000 >= uint64(len(code)) {
				return 0, io.ErrUnexpectedEOF
			}
			n := copy(b, code[addr-0x1000:])
			if n < len(b) {
				return n, io.ErrUnexpectedEOF
			}
			return n, nil
		},
		cpuid: func(leaf, sub uint32) (cpuid.Regs, bool) { return cpuid.Regs{EAX: leaf, EBX: sub}, leaf < 8 },
	}
	return e.run(0x1000)
}

// The results are those of the SDM, vol. 2, for the instruction before RET.
func TestEmulate(t *testing.T) {
	for _, tt := range []struct {
		name string
		code string
		want uint64
	}{
		{"mov eax clears the upper half", "\x48\x83\xc8\xff\xb8\x07\x00\x00\x00", 7},                                             // or $-1,%rax; mov $7,%eax
		{"mov al leaves the rest", "\x48\x83\xc8\xff\xb0\x07", 0xffffffffffffff07},                                               // or $-1,%rax; mov $7,%al
		{"test of ch", "\xb9\x00\x02\x00\x00\xf6\xc5\x02\x0f\x95\xc0\x0f\xb6\xc0", 1},                                            // mov $0x200,%ecx; test $2,%ch; setne %al; movzbl %al,%eax
		{"add to ah", "\xb8\xff\x01\x00\x00\x80\xc4\x03", 0x4ff},                                                                 // mov $0x1ff,%eax; add $3,%ah
		{"cmov that does not move clears the upper half", "\x48\x83\xc8\xff\x31\xc9\x0f\x45\xc1", 0xffffffff},                    // or $-1,%rax; xor %ecx,%ecx; cmovne %ecx,%eax
		{"signed less with overflow", "\xb8\x00\x00\x00\x80\x83\xf8\x01\x0f\x9c\xc0\x0f\xb6\xc0", 1},                             // mov $0x80000000,%eax; cmp $1,%eax; setl %al; movzbl
		{"unsigned below", "\xb8\x00\x00\x00\x80\x83\xf8\x01\x0f\x92\xc0\x0f\xb6\xc0", 0},                                        // the same; setb
		{"sbb of itself", "\x31\xc0\x83\xf8\x01\x19\xc0", 0xffffffff},                                                            // xor %eax,%eax; cmp $1,%eax; sbb %eax,%eax
		{"adc with carry at the top", "\x83\xc8\xff\x31\xc9\x83\xf9\x01\x83\xd0\xff\x0f\x92\xc0\x0f\xb6\xc0", 1},                 // or $-1,%eax; xor %ecx,%ecx; cmp $1,%ecx; adc $-1,%eax; setb
		{"sar", "\xb8\x00\x00\x00\x80\xc1\xf8\x1f", 0xffffffff},                                                                  // mov $0x80000000,%eax; sar $31,%eax
		{"sar to the carry", "\xb8\x02\x00\x00\x00\xc1\xf8\x02\x0f\x92\xc0\x0f\xb6\xc0", 1},                                      // mov $2,%eax; sar $2,%eax; setb
		{"shl to the carry", "\xb8\x00\x00\x00\x40\xc1\xe0\x02\x0f\x92\xc0\x0f\xb6\xc0", 1},                                      // mov $0x40000000,%eax; shl $2,%eax; setb
		{"bt", "\xb8\x00\x00\x01\x00\x0f\xba\xe0\x10\x0f\x92\xc0\x0f\xb6\xc0", 1},                                                // mov $0x10000,%eax; bt $16,%eax; setb
		{"neg of zero has no carry", "\x31\xc0\xf7\xd8\x0f\x92\xc0\x0f\xb6\xc0", 0},                                              // xor %eax,%eax; neg %eax; setb
		{"parity", "\xb8\x03\x01\x00\x00\x85\xc0\x0f\x9a\xc0\x0f\xb6\xc0", 1},                                                    // mov $0x103,%eax; test %eax,%eax; setp
		{"movslq", "\xb9\x00\x00\x00\x80\x48\x63\xc1", 0xffffffff80000000},                                                       // mov $0x80000000,%ecx; movslq %ecx,%rax
		{"movsbl", "\xb1\x80\x0f\xbe\xc1", 0xffffff80},                                                                           // mov $0x80,%cl; movsbl %cl,%eax
		{"not", "\x31\xc0\x48\xf7\xd0", ^uint64(0)},                                                                              // xor %eax,%eax; not %rax
		{"stack, call and scaled index", "\xe8\x01\x00\x00\x00\xc3\xb9\x05\x00\x00\x00\x51\x5a\x48\x8d\x44\x8a\x03\xc3", 28},     // call 1f; ret; 1: mov $5,%ecx; push %rcx; pop %rdx; lea 3(%rdx,%rcx,4),%rax; ret
		{"xchg", "\xb8\x01\x00\x00\x00\xb9\x02\x00\x00\x00\x87\xc1\x8d\x04\xc8", 10},                                             // eax=1, ecx=2; xchg %eax,%ecx; lea (%rax,%rcx,8),%eax
		{"cpuid", "\xb8\x07\x00\x00\x00\xb9\x01\x00\x00\x00\x0f\xa2\x8d\x04\xd8", 15},                                            // eax=7, ecx=1; cpuid; lea (%rax,%rbx,8),%eax
		{"the code is memory too", "\x48\x8b\x05\xf9\xff\xff\xff", 0xc3fffffff9058b48},                                           // mov -7(%rip),%rax
		{"what was written is read", "\xc7\x44\x24\xf8\x09\x00\x00\x00\x8b\x44\x24\xf8\x66\xc7\x44\x24\xf8\x01\x00\x03\xc0", 18}, // movl $9,-8(%rsp); mov -8(%rsp),%eax; movw $1,-8(%rsp); add %eax,%eax
	} {
		got, err := runCode([]byte(tt.code + "\xc3"))
		if err != nil || got != tt.want {
			t.Errorf("%s: %#x, %v; want %#x", tt.name, got, err, tt.want)
		}
	}
}

// What no resolver does is refused, with the instruction.
func TestEmulateRefuses(t *testing.T) {
	for name, code := range map[string]string{
		"vector":    "\x0f\xef\xc0",                     // pxor
		"syscall":   "\x0f\x05",                         //
		"fs":        "\x64\x8b\x04\x25\x28\x00\x00\x00", // mov %fs:0x28,%eax
		"locked":    "\xf0\x01\x00",                     // lock add %eax,(%rax)
		"indirect":  "\xff\xe0",                         // jmp *%rax
		"xbegin":    "\xc7\xf8\x00\x00\x00\x00",         //
		"bsf":       "\x0f\xbc\xc0",                     //
		"popcnt":    "\xf3\x0f\xb8\xc0",                 //
		"no end":    "\xeb\xfe",                         // jmp .
		"undefined": "\x06",                             //
	} {
		_, err := runCode([]byte(code))
		if _, ok := errors.AsType[*resolverError](err); !ok {
			t.Errorf("%s: %v, want a *resolverError", name, err)
		}
	}
}

func FuzzEmulate(f *testing.F) {
	f.Add([]byte("\xf3\x0f\x1e\xfa\x48\x8b\x05\x00\x00\x00\x00\xc3"))
	f.Fuzz(func(t *testing.T, code []byte) {
		runCode(code)
	})
}
