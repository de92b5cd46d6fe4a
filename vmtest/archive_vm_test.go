package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	"github.com/fpuimg/fpuimg/vmtest/guest"
)

// archive packs an image as container engines do, the checkpoint in a directory
// of that name.
func (m *matrix) archive(from *image) *image {
	m.t.Helper()
	to := &image{name: from.name + ".archive", program: from.program, dump: from.dump, ext: ".tar.gz"}
	dir := filepath.Join(m.dir, "archives", strings.ReplaceAll(from.name, "/", "-"))
	to.dir = dir + to.ext
	if err := os.CopyFS(filepath.Join(dir, "checkpoint"), os.DirFS(from.dir)); err != nil {
		m.t.Fatal(err)
	}
	testimg.Pack(m.t, to.dir, dir)
	m.images[to.name] = to
	return to
}

// inGuest puts an image into a job and returns the directory for criu restore
// there. An archive is unpacked by a step of its own.
func (img *image) inGuest(j *guest.Job) string {
	if img.ext == "" {
		dir := "/job/images/" + img.name
		j.Files[dir] = img.dir
		return dir
	}
	packed, dir := "/job/archives/"+img.name, "/job/unpacked/"+img.name
	if j.Files[packed] == "" {
		j.Files[packed] = img.dir
		j.Steps = append(j.Steps, guest.Step{
			Name:   fmt.Sprintf("unpack-%d", len(j.Files)),
			Script: fmt.Sprintf("mkdir -p %s && tar -xzf %s -C %[1]s", dir, packed),
		})
	}
	return dir + "/checkpoint"
}

// An archive is converted as its checkpoint is, and restores when it is unpacked.
func (m *matrix) archives(t *testing.T) {
	for _, kind := range []string{"sse", "threads"} {
		img := "haswell/" + kind
		m.want(t, img+".archive", fxsaveHost, "default", outcome{refused: "xsave-record"})
		var want outcome
		if kind == "threads" {
			want.lost = extended("haswell")
		}
		m.want(t, img+".archive.fxsave", fxsaveHost, "default", want)
	}
}
