package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/elfcore"
)

// inputHint says what to do about an input that could not be read whole, "" if
// nothing comes to mind. There may be an error for each of thousands of files in a
// directory or an archive; only what was named itself is looked at again.
func inputHint(path string, err error) string {
	var interrupted *codec.InterruptedError
	var layout *elfcore.LayoutError
	var compression *checkpoint.CompressionError
	var format *codec.FormatError
	var foreign *checkpoint.ForeignError
	switch {
	case errors.As(err, &foreign) && foreign.Path == path:
		return foreignHint(foreign)
	case errors.As(err, &interrupted):
		return "any fpuimg convert of " + interrupted.Dir + " completes the interrupted one first"
	case errors.As(err, &layout) && layout.Machine != "":
		return "PROFILE is what fpuimg profile wrote on the machine that stored it; without --host the size tells, " +
			"as it must for cores by older gcore, which have Intel's layout everywhere; a bare area must end where a component does"
	case errors.As(err, &layout):
		return "fpuimg show or diff --host=PROFILE reads it, with --xsave-area if it is a bare area; PROFILE is what fpuimg profile wrote on the machine that stored it. " +
			"For fpuimg check, show --elf-core=FILE makes a core of it"
	case errors.Is(err, checkpoint.ErrPreDump):
		return preDumpHint(path)
	case errors.Is(err, checkpoint.ErrNoImages):
		return noImagesHint(path)
	case errors.As(err, &compression) && compression.Path == path:
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return "" // it is cut off, for any program
		}
		return "if " + compression.Program + " itself can read it: " + piped(path, compression.Program)
	case errors.As(err, &format) && format.Path == path:
		return fileHint(path, format)
	}
	return ""
}

// noImagesHint is for a directory in which nothing is a checkpoint, though something
// may lead to one.
func noImagesHint(dir string) string {
	if archives := archivesIn(dir); len(archives) > 0 {
		return "name an archive in it, such as " + view.Path(archives[0])
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Type()&fs.ModeSymlink != 0 && isDir(path) {
			if _, err := checkpoint.OpenDir(path); err == nil {
				return "links in it are not followed; name " + view.Path(path)
			}
		}
	}
	return "name the directory that criu dump wrote, or one above it"
}

// preDumpHint names the dump that a pre-dump belongs to: that has a link to it.
func preDumpHint(dir string) string {
	info, err := os.Stat(dir)
	entries, _ := os.ReadDir(filepath.Dir(filepath.Clean(dir)))
	for _, e := range entries {
		final := filepath.Join(filepath.Dir(filepath.Clean(dir)), e.Name())
		parent, perr := os.Stat(filepath.Join(final, "parent"))
		if err != nil || perr != nil || !os.SameFile(info, parent) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(final, "pstree.img")); err == nil {
			return "name the dump that came after it: " + view.Path(final)
		}
	}
	return "name the directory of the dump that came after it"
}

// foreignHint makes the advice about a file of another kind one about this file.
func foreignHint(e *checkpoint.ForeignError) string {
	if e.Path == "-" {
		return ""
	}
	image := strings.TrimSuffix(e.Path, filepath.Ext(e.Path)) + ".img"
	return strings.NewReplacer("FILE", view.Path(e.Path), "IMAGE", view.Path(image)).Replace(e.Advice)
}

// fileHint is for a file in which something is wrong.
func fileHint(path string, err *codec.FormatError) string {
	var magic *codec.MagicError
	var packed *checkpoint.PackedError
	switch {
	case errors.Is(err, codec.ErrIrregular):
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
			return "pipe it into fpuimg show -"
		}
	case path != "-" && errors.As(err, &magic) && magic.Kind() == "cpuinfo":
		return "it describes a machine: --host=" + view.Path(path)
	case path != "-" && errors.As(err, &magic) && magic.Kind() != "":
		return "it holds no registers; name the directory of the checkpoint, or a core-*.img"
	case path != "-" && errors.Is(err, codec.ErrMagic):
		if _, err := checkpoint.OpenAll(path, checkpoint.Options{XSaveArea: true}); err == nil {
			return "if this is a bare XSAVE area: fpuimg show --xsave-area " + view.Path(path)
		}
		if err.Offset == 0 {
			return "it begins like no image of CRIU, archive or ELF core; file " + view.Path(path) + " may tell what it is"
		}
	case errors.As(err, &packed):
		return piped(path, packed.Program)
	}
	return ""
}

// piped is the command that has a file decompressed by a program.
func piped(path, program string) string {
	command := program + " -dc"
	if program == "zstd" {
		command += " --long=31" // a window of more than 128 MiB
	}
	if path != "-" {
		command += " " + view.Path(path)
	}
	return command + " | fpuimg show -"
}

// profileHint is for a file that is to describe a machine, and does not.
func profileHint(err error) string {
	var text *cpuid.TextError
	var hinted *cli.HintError
	switch {
	case errors.As(err, &text) && text.Hint != "":
		return text.Hint
	case errors.As(err, &hinted):
		return hinted.Hint
	}
	return "PROFILE is a file by fpuimg profile, a cpuinfo.img or a directory or archive that has one, /proc/cpuinfo or what lscpu, " +
		"cpuid -r or ld.so --list-diagnostics print, a log of criu -v4, or a name that fpuimg profile --list prints, such as znver3 or x86-64-v4"
}
