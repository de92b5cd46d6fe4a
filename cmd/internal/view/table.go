// Package view is how both programs print what the policy says: tables, findings,
// actions and losses, for people and in JSON.
package view

import (
	"bytes"

	"github.com/fatih/color"
	"github.com/olekukonko/tablewriter"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

// Width is the columns that text takes on a terminal, without its colours.
func Width(text string) int { return tablewriter.DisplayWidth(text) }

// Table prints rows under a header, in columns without boxes. Cells are neither
// wrapped nor cut.
//
// tablewriter stays at 0.0.5: the package initialisation of its version 1 costs more
// than reading and printing a checkpoint does.
func Table(s *cli.IO, header []string, rows [][]string) {
	bold := make([]string, len(header))
	for i, h := range header {
		bold[i] = s.OutStyle(color.Bold).Sprint(h)
	}
	var buf bytes.Buffer
	t := tablewriter.NewWriter(&buf)
	t.SetAutoFormatHeaders(false)
	t.SetAutoWrapText(false)
	t.SetHeader(bold) // wrapped at once, if at all
	t.SetHeaderAlignment(tablewriter.ALIGN_LEFT)
	t.SetAlignment(tablewriter.ALIGN_LEFT)
	t.SetBorder(false)
	t.SetHeaderLine(false)
	t.SetColumnSeparator("")
	t.SetCenterSeparator("")
	t.SetRowSeparator("")
	t.SetTablePadding("  ")
	t.SetNoWhiteSpace(true)
	t.AppendBulk(rows)
	t.Render()
	for line := range bytes.Lines(buf.Bytes()) {
		s.Out.Write(bytes.TrimRight(line, " \n"))
		s.Out.WriteByte('\n')
	}
}
