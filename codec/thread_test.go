package codec_test

import (
	"testing"

	"github.com/fpuimg/fpuimg/codec"
)

func TestParseGPRegs(t *testing.T) {
	b := make([]byte, 27*8)
	for i := range 27 {
		b[8*i] = byte(i + 1)
	}
	for i, v := range codec.ParseGPRegs(b) {
		if v != uint64(i+1) {
			t.Errorf("register %d is %d", i, v)
		}
	}
	b = make([]byte, 17*4)
	for i := range 17 {
		b[4*i] = byte(i + 1)
	}
	gp := codec.ParseGPRegs(b)
	// struct user_regs_struct32: bx cx dx si di bp ax ds es fs gs orig_ax ip cs flags sp ss
	for name, p := range map[string][2]uint64{"bx": {gp[5], 1}, "di": {gp[14], 5}, "ax": {gp[10], 7}, "orig_ax": {gp[15], 12},
		"ip": {gp[16], 13}, "flags": {gp[18], 15}, "sp": {gp[19], 16}, "ss": {gp[20], 17}} {
		if p[0] != p[1] {
			t.Errorf("%s is %d, want %d", name, p[0], p[1])
		}
	}
	if codec.ParseGPRegs(b[:67]) != codec.ParseGPRegs(append(b[:64:64], 0, 0, 0)) || codec.ParseGPRegs(nil) != [27]uint64{} {
		t.Error("what is missing is not 0")
	}
}
