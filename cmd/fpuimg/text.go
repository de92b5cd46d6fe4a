package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// number spells little-endian bytes as a hexadecimal number of full width.
func number(le []byte) string { return xstate.Vector{Bytes: le}.Hex() }

// hex spells a number without leading zeros.
func hex(v uint64) string { return "0x" + strconv.FormatUint(v, 16) }

// quads cuts the digits of a number into groups of 16.
func quads(hex string) []string {
	digits := strings.TrimPrefix(hex, "0x")
	out := make([]string, 0, len(digits)/16+1)
	for len(digits) > 16 {
		out, digits = append(out, digits[:16]), digits[16:]
	}
	return append(out, digits)
}

// baseName is the name of a file in its directory; "-" stays.
func baseName(path string) string {
	if path == "-" {
		return path
	}
	return filepath.Base(path)
}

// atPath says which file an error, if any, is about.
func atPath(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}
