package main

import (
	"errors"
	"io/fs"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/internal/cli"
)

// paths returns the inputs: the current directory if none is named.
func paths(args []string) []string {
	if len(args) == 0 {
		return []string{"."}
	}
	return args
}

// open reads what a path argument names; "-" is standard input.
func open(s *cli.IO, path string) (*codec.Checkpoint, error) {
	if path == "-" {
		return codec.OpenReader("-", s.In)
	}
	return codec.Open(path)
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
	var file *fs.PathError
	switch {
	case errors.As(err, &format):
		doc.File, doc.Offset, doc.Field, doc.Message = format.Path, format.Offset, format.Field, format.Err.Error()
	case errors.As(err, &file):
		doc.File, doc.Message = file.Path, file.Err.Error()
	}
	return doc
}
