package codec_test

import (
	"runtime"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestLongArray reads an array of eight million bytes, of which few are held; its
// length is known all the same.
func TestLongArray(t *testing.T) {
	const size = 8 << 20
	c, err := codec.ParseCore("core", testimg.Read(t, "h-avx", "core-20300.img"))
	if err != nil {
		t.Fatal(err)
	}
	s := c.State.Clone()
	s.SetData(xstate.AVX, make([]byte, size))
	b, err := c.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err = codec.ParseCore("core", b)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	const want = 64 << 10
	if have, over := len(c.State.Data(xstate.AVX)), c.State.Over(xstate.AVX); have != want || over != size-want {
		t.Errorf("%d bytes are held and %d are over, want %d and %d", have, over, want, size-want)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(b)) {
		t.Errorf("%d bytes were allocated for an image of %d", n, len(b))
	}
	// A state of the proper length takes the place of all of it.
	s.SetData(xstate.AVX, c.State.Data(xstate.AVX)[:xstate.AVX.Component().Size])
	if b, err = c.Encode(s); err != nil {
		t.Fatal(err)
	}
	if c, err = codec.ParseCore("core", b); err != nil || c.State.Over(xstate.AVX) != 0 {
		t.Errorf("%d bytes are over once they were taken away; %v", c.State.Over(xstate.AVX), err)
	}
}
