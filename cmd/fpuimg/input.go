package main

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
)

// paths returns the inputs: the current directory if none is named.
func paths(args []string) []string {
	if len(args) == 0 {
		return []string{"."}
	}
	return args
}

// open reads the one checkpoint that a path argument names; "-" is standard input.
func open(s *cli.IO, path string, o codec.Options) (*codec.Checkpoint, error) {
	all, err := openAll(s, path, o)
	if err != nil {
		return nil, err
	}
	return codec.Only(path, all)
}

// openAll reads every checkpoint that a path argument holds.
func openAll(s *cli.IO, path string, o codec.Options) ([]*codec.Checkpoint, error) {
	if path == "-" {
		return codec.ReadAll("-", s.In, o)
	}
	return codec.OpenAll(path, o)
}

// kindNames are the kinds of inputs as a title spells them.
var kindNames = map[codec.Kind]string{codec.KindELFCore: "ELF core, ", codec.KindXSaveArea: "XSAVE area, "}

// containerText describes the container that a checkpoint was taken of: "container
// web (Podman, runc)".
func containerText(c *codec.Container) string {
	if c == nil {
		return ""
	}
	word := func(s string) string { return cli.Printable(strings.Join(strings.Fields(s), " ")) }
	text := "container"
	if c.Name != "" {
		text += " " + word(c.Name)
	}
	var by []string
	for _, s := range []string{c.Engine, c.Runtime} {
		if s != "" {
			by = append(by, word(s))
		}
	}
	if len(by) > 0 {
		text += " (" + strings.Join(by, ", ") + ")"
	}
	return text
}

// errorDoc is an error in JSON.
type errorDoc struct {
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Field   string `json:"field"`
	Message string `json:"message"`
}

func newErrorDoc(path string, err error) *errorDoc {
	if err == nil {
		return nil
	}
	doc := &errorDoc{File: path, Message: err.Error()}
	var format *codec.FormatError
	var missing *codec.MissingError
	var interrupted *codec.InterruptedError
	var file *fs.PathError
	switch {
	case errors.As(err, &format):
		doc.File, doc.Offset, doc.Field, doc.Message = format.Path, format.Offset, format.Field, format.Err.Error()
	case errors.As(err, &missing):
		doc.File, doc.Message = missing.Path, "missing: "+missing.Reason
	case errors.As(err, &interrupted):
		doc.File, doc.Message = interrupted.Dir, "a conversion of this checkpoint was interrupted"
	case errors.As(err, &file):
		doc.File, doc.Message = file.Path, file.Err.Error()
	}
	return doc
}
