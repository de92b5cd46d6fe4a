// Package view is how both programs print what the policy says: tables, findings,
// actions and losses, for people and in JSON.
package view

import (
	"bytes"

	"github.com/fatih/color"
	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"

	"github.com/fpuimg/fpuimg/internal/cli"
)

// Table prints rows under a header, without boxes. Cells must fit: it does not
// wrap them.
func Table(s *cli.IO, header []string, rows [][]string) error {
	off := tw.Off
	var buf bytes.Buffer
	t := tablewriter.NewTable(&buf,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Lines: tw.LinesNone, Separators: tw.SeparatorsNone},
		})),
		tablewriter.WithHeaderAutoFormat(off),
		tablewriter.WithHeaderAlignment(tw.AlignLeft),
		tablewriter.WithRowAlignment(tw.AlignLeft),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithPadding(tw.Padding{Right: "  ", Overwrite: true}),
	)
	head := make([]any, len(header))
	for i, h := range header {
		head[i] = s.OutStyle(color.Bold).Sprint(h)
	}
	t.Header(head...)
	if err := t.Bulk(rows); err != nil {
		return err
	}
	if err := t.Render(); err != nil {
		return err
	}
	for line := range bytes.Lines(buf.Bytes()) {
		s.Out.Write(bytes.TrimRight(line, " \n"))
		s.Out.WriteByte('\n')
	}
	return nil
}

// Wrap breaks words into lines of at most width columns.
func Wrap(words []string, width int) []string {
	var lines []string
	line := ""
	for _, w := range words {
		switch {
		case line == "":
			line = w
		case len(line)+1+len(w) > width:
			lines = append(lines, line)
			line = w
		default:
			line += " " + w
		}
	}
	return append(lines, line)
}
