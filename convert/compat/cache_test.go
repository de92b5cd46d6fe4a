package compat_test

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// near returns a state that differs a little from one, or in nothing but values.
func near(r *rand.Rand, s *xstate.State) *xstate.State {
	s = s.Clone()
	parts := [][]byte{s.FX[:32], s.FX.STSpace(), s.FX.XMMSpace()}
	for f := range codec.Storable.All() {
		if d := s.Data(f); d != nil {
			parts = append(parts, d)
		}
	}
	part := parts[r.IntN(len(parts))]
	switch i := r.IntN(len(part)); r.IntN(8) {
	case 0:
		part[i] ^= 1 << r.IntN(8)
	case 1:
		s.BV ^= 1 << r.IntN(20)
	case 2:
		if s.ShadowStack != nil {
			s.ShadowStack.Status ^= r.Uint64N(2)
			s.ShadowStack.SSP ^= r.Uint64N(2)
		}
	default:
		for i, v := range part {
			if v != 0 {
				part[i] = byte(1 + r.IntN(255))
			}
		}
	}
	return s
}

// TestCache holds what a cache says of threads, each like one before or nearly so,
// against what is decided of each by itself, for 40 targets or one in [testcmd.Step] of so
// many.
func TestCache(t *testing.T) {
	var memory []byte
	alike := func(s *xstate.State) (th compat.Thread) {
		th, memory = compat.Thread{State: s}.Alike(memory)
		return th
	}
	r := rand.New(rand.NewPCG(1, 2))
	targets, shared := 40/testcmd.Step, 0
	for range targets {
		target := randomTarget(r)
		for _, policy := range []compat.Policy{{}, {Force: true}} {
			cache := compat.NewCache(target, policy)
			told := map[*compat.Report]bool{}
			for range 100 {
				s := randomState(r)
				for range 4 {
					one, alone := cache.Judge(), compat.Judge(target, policy)
					got, want := one.Thread(alike(s)), compat.Decide(s, target, policy)
					if alone.Thread(compat.Thread{State: s}); !reflect.DeepEqual(got, want) {
						t.Fatalf("%s: the cache says\n%+v, want\n%+v", describe(s, target), got, want)
					}
					for _, cap := range compat.Caps() {
						if got, want := one.Predict(cap), alone.Predict(cap); !reflect.DeepEqual(got, want) {
							t.Fatalf("%s: predicted is %v, want %v", describe(s, target), got, want)
						}
					}
					if told[got] {
						shared++
					}
					told[got] = true
					s = near(r, s)
				}
			}
		}
	}
	if shared < 25*targets {
		t.Errorf("%d reports were of a thread before", shared)
	}
}
