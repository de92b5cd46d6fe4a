package testimg

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Pack writes a directory as an archive, compressed as the end of its name says: .gz, .zst
// or neither.
func Pack(tb testing.TB, archive, dir string) {
	tb.Helper()
	f, err := os.Create(archive)
	if err != nil {
		tb.Fatal(err)
	}
	var z io.WriteCloser
	switch filepath.Ext(archive) {
	case ".gz":
		z = gzip.NewWriter(f)
	case ".zst":
		if z, err = zstd.NewWriter(f); err != nil {
			tb.Fatal(err)
		}
	default:
		z = struct {
			io.Writer
			io.Closer
		}{f, io.NopCloser(nil)}
	}
	w := tar.NewWriter(z)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), z.Close(), f.Close()); err != nil {
		tb.Fatal(err)
	}
}

// Allocated returns how many bytes f allocates.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
