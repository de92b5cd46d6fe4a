// Package view is how both programs print what the policy says: tables, findings,
// actions and losses, for people and in JSON.
package view

import (
	"strings"
	"unicode/utf8"

	"github.com/fatih/color"

	"github.com/fpuimg/fpuimg/internal/cli"
)

// Table prints rows under a header, in columns without boxes. Cells are neither
// wrapped nor cut.
func Table(s *cli.IO, header []string, rows [][]string) {
	widths := make([]int, len(header))
	for i, h := range header {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columns(cell))
		}
	}
	bold := make([]string, len(header))
	for i, h := range header {
		bold[i] = s.OutStyle(color.Bold).Sprint(h)
	}
	printRow(s, widths, bold)
	for _, row := range rows {
		printRow(s, widths, row)
	}
}

// printRow writes cells two columns apart, and no blanks at the end of the line.
func printRow(s *cli.IO, widths []int, cells []string) {
	var line strings.Builder
	for i, cell := range cells {
		line.WriteString(cell)
		line.WriteString(strings.Repeat(" ", widths[i]-columns(cell)+2))
	}
	s.Out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// columns counts the columns of a cell on a terminal; colour takes none.
func columns(cell string) int {
	n := utf8.RuneCountInString(cell)
	for {
		_, rest, ok := strings.Cut(cell, "\x1b[")
		if !ok {
			return n
		}
		code, rest, _ := strings.Cut(rest, "m")
		n -= len("\x1b[") + len(code) + len("m")
		cell = rest
	}
}

// Wrap breaks words into lines of at most width columns.
func Wrap(words []string, width int) []string { return cli.Wrap(words, width) }
