package xstate

// Vector is one vector register at the widest view that the record supports.
type Vector struct {
	Name  string // "xmm0", "ymm0" or "zmm0"
	Bytes []byte // 16, 32 or 64 bytes, little endian
}

// Hex returns the value, most significant digit first.
func (v Vector) Hex() string { return hexValue(v.Bytes) }

// VectorName names vector register i by its width in bytes.
func VectorName(i, width int) string {
	switch {
	case i >= 16:
		return Hi16ZMM.Component().Registers()[i-16].Name
	case width == 64:
		return ZMMHi256.Component().Registers()[i].Name
	case width == 32:
		return AVX.Component().Registers()[i].Name
	}
	return SSE.Component().Registers()[1+i].Name // after MXCSR
}

// vectorWidth returns the register width in bytes and the number of registers of
// the widest view: zmm if a ZMM component has a value, ymm if AVX has, else xmm; none
// without XMM registers.
func (s *State) vectorWidth() (width, n int) {
	n = 16
	switch hi256, hi16 := s.View(ZMMHi256) != nil, s.View(Hi16ZMM) != nil; {
	case s.View(SSE) == nil:
		return 0, 0
	case hi16 && !s.Compat:
		return 64, 32
	case hi256 || hi16:
		width = 64
	case s.View(AVX) != nil:
		width = 32
	default:
		width = 16
	}
	if s.Compat {
		n = 8
	}
	return width, n
}

// Vectors merges XMM, the high halves of YMM, ZMM_Hi256 and Hi16_ZMM into whole
// registers, at the widest view that the record supports: xmm0-15, ymm0-15,
// zmm0-15 or zmm0-31; a 32-bit task has the first 8. Parts that the record does
// not have read as zero.
func (s *State) Vectors() []Vector {
	width, n := s.vectorWidth()
	if n == 0 {
		return nil
	}
	ymmh, zmmh, hi16 := s.View(AVX), s.View(ZMMHi256), s.View(Hi16ZMM)
	xmm := s.FX.XMMSpace()
	out := make([]Vector, n)
	buf := make([]byte, n*width)
	for i := range out {
		b := buf[i*width:][:width:width]
		if i >= 16 {
			copy(b, hi16[(i-16)*64:][:64])
		} else {
			copy(b, xmm[i*16:][:16])
			if width > 16 && ymmh != nil {
				copy(b[16:], ymmh[i*16:][:16])
			}
			if width > 32 && zmmh != nil {
				copy(b[32:], zmmh[i*32:][:32])
			}
		}
		out[i] = Vector{VectorName(i, width), b}
	}
	return out
}
