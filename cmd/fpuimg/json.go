package main

import (
	"encoding/json"
	"path/filepath"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/internal/cli"
)

// writeJSON prints a document. Every verb prints exactly one per run.
func writeJSON(s *cli.IO, doc any) error {
	enc := json.NewEncoder(s.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

func baseName(path string) string {
	if path == "-" {
		return path
	}
	return filepath.Base(path)
}

// profileJSON returns the profile document of a CPU, null for an unknown one.
func profileJSON(c *xstate.CPU) (json.RawMessage, error) {
	if c == nil {
		return json.RawMessage("null"), nil
	}
	return json.Marshal(cpuid.NewProfile(c))
}
