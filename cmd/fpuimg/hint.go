package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
)

// inputHint says what to do about an input that could not be read whole, "" if
// nothing comes to mind. There may be an error for each of thousands of files in a
// directory or an archive; only what was named itself is looked at again.
func inputHint(path string, err error) string {
	var interrupted *codec.InterruptedError
	var layout *codec.LayoutError
	var compression *codec.CompressionError
	var format *codec.FormatError
	switch {
	case errors.As(err, &interrupted):
		return "any fpuimg convert of " + interrupted.Dir + " completes the interrupted one first"
	case errors.As(err, &layout) && layout.Machine != "":
		return "PROFILE is what fpuimg profile wrote on the machine that stored it; without --host the size tells, " +
			"as it must for cores by older gcore, which have Intel's layout everywhere; a bare area must end where a component does"
	case errors.As(err, &layout):
		return "fpuimg show or diff --host=PROFILE reads it, with --xsave-area if it is a bare area; PROFILE is what fpuimg profile wrote on the machine that stored it. " +
			"For fpuimg check, show --elf-core=FILE makes a core of it"
	case errors.Is(err, codec.ErrNoImages):
		return noImagesHint(path)
	case errors.As(err, &compression) && compression.Path == path:
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return "" // it is cut off, for any program
		}
		return "if " + compression.Program + " itself can read it: " + piped(path, compression.Program)
	case errors.As(err, &format) && format.Path == path:
		return fileHint(path, format.Field)
	}
	return ""
}

// noImagesHint is for a directory in which nothing is a checkpoint, though something
// may lead to one.
func noImagesHint(dir string) string {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type().IsRegular() && archiveSuffix(path) != "":
			return "name an archive in it, such as " + view.Path(path)
		case e.Type()&fs.ModeSymlink != 0 && isDir(path):
			if _, err := codec.OpenDir(path); err == nil {
				return "links in it are not followed; name " + view.Path(path)
			}
		}
	}
	return "name the directory that criu dump wrote, or one above it"
}

// fileHint is for a file whose field, as of a [*codec.FormatError], is wrong.
func fileHint(path, field string) string {
	switch field {
	case "file":
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
			return "pipe it into fpuimg show -"
		}
	case "magic":
		if path == "-" {
			return ""
		}
		if _, err := codec.OpenAll(path, codec.Options{XSaveArea: true}); err == nil {
			return "if this is a bare XSAVE area: fpuimg show --xsave-area " + view.Path(path)
		}
	case "gzip", "bzip2", "xz", "zstd":
		return "if it is a core image: " + piped(path, field)
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

// noImage reports whether an error is that a file begins as nothing that is known.
func noImage(err error) bool {
	format, ok := errors.AsType[*codec.FormatError](err)
	return ok && format.Field == "magic"
}

// profileHint is for a file that is to describe a machine, and does not.
func profileHint() string {
	return "PROFILE is a file by fpuimg profile, a cpuinfo.img or a directory that has one, a dump by cpuid -r, or a level: " +
		strings.Join(xstate.LevelNames(), ", ")
}

// hint says what to do about an error of a conversion.
func (o *convertOptions) hint(path string, err error) string {
	var interrupted *codec.InterruptedError
	var kind *convert.KindError
	switch {
	case errors.As(err, &interrupted) && o.dryRun:
		return "run the conversion again without --dry-run: it completes the interrupted one first"
	case errors.As(err, &interrupted):
		return "once the cause is mended, run the conversion again: it completes this one first"
	case errors.Is(err, convert.ErrFixed):
		return "lsattr shows an immutable or append-only file; -o PATH writes a new checkpoint instead"
	case errors.Is(err, convert.ErrStage), errors.Is(err, convert.ErrForeign):
		return "look at it, and remove it"
	case errors.As(err, &kind):
		return "fpuimg show and fpuimg check read it"
	case errors.Is(err, os.ErrExist):
		return takenHint(err, "-o")
	case errors.Is(err, convert.ErrInside):
		return "name a place outside of it with -o"
	case errors.Is(err, convert.ErrSpecial):
		return "remove it from the checkpoint, or convert with --in-place, which copies nothing"
	case errors.Is(err, convert.ErrNoWriter):
		return "choose another with --compress=" + strings.Join(compressions, ", ")
	case !o.inPlace && noPlace(path, err):
		return "-o PATH writes it elsewhere"
	}
	if hint := misplacedProfile(path); hint != "" {
		return hint
	}
	return inputHint(path, err)
}

// takenHint is for an output that is there already, named by an option. A device, a
// pipe or a link is nothing to remove; who names /dev/stdout means "-".
func takenHint(err error, option string) string {
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		if info, err := os.Lstat(file.Path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
			return "name a new output with " + option + "; - is standard output"
		}
	}
	return "remove it, or name another output with " + option
}

// noPlace reports whether an error is that nothing can be written where the output
// should be, outside of path.
func noPlace(path string, err error) bool {
	file, ok := errors.AsType[*fs.PathError](err)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // as it is copied from
	}
	return ok && file.Path != path && !strings.HasPrefix(file.Path, path+string(filepath.Separator)) &&
		(errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENAMETOOLONG))
}
