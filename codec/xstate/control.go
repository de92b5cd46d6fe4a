package xstate

import (
	"strconv"
	"strings"
)

// bitNames spells the set bits of a control or status word, low bit first.
// A rounding or precision field is appended by the caller.
func bitNames(v uint32, names []string) []string {
	var out []string
	for i, n := range names {
		if n != "" && v>>i&1 != 0 {
			out = append(out, n)
		}
	}
	return out
}

var roundings = [4]string{"RC=nearest", "RC=down", "RC=up", "RC=zero"}

// FCWString decodes an x87 control word: masked exceptions, precision and
// rounding control (SDM vol. 1, 8.1.5).
func FCWString(v uint16) string {
	parts := bitNames(uint32(v), []string{"IM", "DM", "ZM", "OM", "UM", "PM", 12: "X"})
	parts = append(parts, [4]string{"PC=single", "PC=reserved", "PC=double", "PC=extended"}[v>>8&3], roundings[v>>10&3])
	return strings.Join(parts, " ")
}

// FSWString decodes an x87 status word: exception flags, condition codes and TOP
// (SDM vol. 1, 8.1.3).
func FSWString(v uint16) string {
	parts := bitNames(uint32(v), []string{"IE", "DE", "ZE", "OE", "UE", "PE", "SF", "ES", "C0", "C1", "C2", 14: "C3", 15: "B"})
	parts = append(parts, "TOP="+string(rune('0'+v>>11&7)))
	return strings.Join(parts, " ")
}

// FTWString names the physical registers that an abridged tag word marks as in
// use (SDM vol. 1, 10.5.1.1).
func FTWString(v uint8) string {
	parts := bitNames(uint32(v), []string{"R0", "R1", "R2", "R3", "R4", "R5", "R6", "R7"})
	if len(parts) == 0 {
		return "all empty"
	}
	return strings.Join(parts, " ") + " in use"
}

// MXCSRString decodes an MXCSR: exception flags, DAZ, masks, rounding control,
// FTZ (SDM vol. 1, 10.2.3) and AMD's MM (APM vol. 1, 4.2.2).
func MXCSRString(v uint32) string {
	parts := bitNames(v, []string{"IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM"})
	parts = append(parts, roundings[v>>13&3])
	parts = append(parts, bitNames(v, []string{15: "FTZ", 17: "MM"})...)
	return strings.Join(parts, " ")
}

// PKRUString names the protection keys that PKRU does not leave fully open: "AD"
// denies access, "WD" denies writes (SDM vol. 3, 4.6.2): "AD 2-15, WD 1".
func PKRUString(v uint32) string {
	var access, write []int
	for key := range 16 {
		switch bits := v >> (2 * key) & 3; {
		case bits&1 != 0:
			access = append(access, key)
		case bits == 2:
			write = append(write, key)
		}
	}
	var parts []string
	if len(access) > 0 {
		parts = append(parts, "AD "+ranges(access))
	}
	if len(write) > 0 {
		parts = append(parts, "WD "+ranges(write))
	}
	if len(parts) == 0 {
		return "all keys open"
	}
	return strings.Join(parts, ", ")
}

// ranges spells ascending numbers, runs folded: "1 3-15".
func ranges(keys []int) string {
	var out []string
	for i := 0; i < len(keys); {
		j := i
		for j+1 < len(keys) && keys[j+1] == keys[j]+1 {
			j++
		}
		word := strconv.Itoa(keys[i])
		if j > i {
			word += "-" + strconv.Itoa(keys[j])
		}
		out = append(out, word)
		i = j + 1
	}
	return strings.Join(out, " ")
}
