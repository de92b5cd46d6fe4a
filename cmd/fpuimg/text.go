package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// number spells little-endian bytes as a hexadecimal number of full width.
func number(le []byte) string { return xstate.Vector{Bytes: le}.Hex() }

// hex spells a number without leading zeros.
func hex(v uint64) string { return fmt.Sprintf("%#x", v) }

// quads cuts the digits of a number into groups of 16.
func quads(hex string) []string {
	var out []string
	for digits := range slices.Chunk([]byte(strings.TrimPrefix(hex, "0x")), 16) {
		out = append(out, string(digits))
	}
	return out
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
