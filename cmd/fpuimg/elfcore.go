package main

import (
	"bytes"
	"errors"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/elfcore"
)

// export writes the threads as an ELF core.
func (o *showOptions) export(s *cli.IO, threads []codec.Thread) error {
	var b bytes.Buffer
	lost, err := elfcore.Write(&b, threads)
	if errors.Is(err, elfcore.ErrMixedModes) {
		err = cli.Hinted(err, "--tid=TID,... picks those of one kind")
	}
	if err != nil {
		return atPath(o.elfCore, err)
	}
	if lost != 0 {
		s.Warnf("%s: the image lacks the values of %s; the ELF core has INIT there", o.elfCore, strings.Join(lost.Names(), ", "))
	}
	if o.elfCore == "-" {
		_, err := s.Out.Write(b.Bytes())
		return err
	}
	if err := writeNew(o.elfCore, "--elf-core", b.Bytes()); err != nil {
		return err
	}
	s.Sayf("%s: written, %s", o.elfCore, view.Count(len(threads), "thread"))
	return nil
}
