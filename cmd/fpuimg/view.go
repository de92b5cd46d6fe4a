package main

import (
	"github.com/fpuimg/fpuimg/internal/cli"
	"github.com/fpuimg/fpuimg/internal/view"
)

// table prints rows under a header, without boxes. Cells must fit: it does not
// wrap them.
func table(s *cli.IO, header []string, rows [][]string) error {
	view.Table(s, header, rows)
	return nil
}

// wrap breaks words into lines of at most width columns.
func wrap(words []string, width int) []string { return cli.Wrap(words, width) }
