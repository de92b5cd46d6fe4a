package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// paths returns the inputs: the current directory if none is named.
func paths(args []string) []string {
	if len(args) == 0 {
		return []string{"."}
	}
	return args
}

// inputs returns the inputs of what only reads. A directory that holds archives and no
// images, such as kubelet's of checkpoints, stands for its archives.
func inputs(args []string) (out []string) {
	for _, path := range paths(args) {
		if _, err := os.Lstat(filepath.Join(path, "pstree.img")); err == nil {
			out = append(out, path) // its many files need not be looked at
			continue
		}
		archives := archivesIn(path)
		if len(archives) > 0 {
			if _, err := checkpoint.OpenAll(path, checkpoint.Options{}); !errors.Is(err, checkpoint.ErrNoImages) {
				archives = nil
			}
		}
		if len(archives) == 0 {
			archives = []string{path}
		}
		out = append(out, archives...)
	}
	return out
}

// archivesIn returns the files in a directory that are named as archives are. Standard
// input is none.
func archivesIn(dir string) (archives []string) {
	if dir == "-" {
		return nil
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type().IsRegular() && checkpoint.ArchiveSuffix(e.Name()) != "" {
			archives = append(archives, filepath.Join(dir, e.Name()))
		}
	}
	return archives
}

// open reads the one checkpoint that a path argument names; "-" is standard input.
func open(s *cli.IO, path string, o checkpoint.Options) (*checkpoint.Checkpoint, error) {
	all, err := openAll(s, path, o)
	if err != nil {
		return nil, err
	}
	return checkpoint.Only(path, all)
}

// openAll reads every checkpoint that a path argument holds.
func openAll(s *cli.IO, path string, o checkpoint.Options) ([]checkpoint.Found, error) {
	if path == "-" {
		return checkpoint.ReadAll("-", s.In, o)
	}
	return checkpoint.OpenAll(path, o)
}

// kindNames are the kinds of inputs as a title spells them.
var kindNames = map[checkpoint.Kind]string{checkpoint.KindELFCore: "ELF core, ", checkpoint.KindXSaveArea: "XSAVE area, "}

// containerText describes the container that a checkpoint was taken of: "container
// web (Podman, runc)".
func containerText(c *checkpoint.Container) string {
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
	var foreign *checkpoint.ForeignError
	switch {
	case errors.As(err, &foreign):
		doc.File, doc.Message = foreign.Path, foreign.Name
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

// isDir reports whether a path argument names a directory.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// parseComponents reads a list of component names; an empty list is all of them.
func parseComponents(names []string) (xstate.Features, error) {
	if len(names) == 0 {
		return ^xstate.Features(0), nil
	}
	set, err := xstate.ParseFeatures(strings.Join(names, ","))
	var unknown *xstate.UnknownFeatureError
	if errors.As(err, &unknown) {
		return 0, cli.Unknown(err, "", unknown.Name, "the components", xstate.Known.Names())
	}
	return set, nil
}
