package rawtar

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// gnuTar packs a small tree with GNU tar in a format: long names, links, a sparse
// file. It skips the test where there is no GNU tar.
func gnuTar(tb testing.TB, args ...string) []byte {
	tb.Helper()
	tar := testcmd.GNUTar(tb)
	dir := tb.TempDir()
	long := strings.Repeat("long-name-", 11)
	if err := os.MkdirAll(filepath.Join(dir, long, long), 0o755); err != nil {
		tb.Fatal(err)
	}
	for name, size := range map[string]int{"a": 0, "b": 1, "c": 512, "d": 513, long + "/" + long + "/e": 5000} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name[:1]), size), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		tb.Fatal(err)
	}
	for i := range int64(40) { // more pieces than the header block holds
		if _, err := sparse.WriteAt([]byte("piece"), i*100_000); err != nil {
			tb.Fatal(err)
		}
	}
	sparse.Close()
	for _, err := range []error{os.Symlink("a", filepath.Join(dir, "l")), os.Link(filepath.Join(dir, "c"), filepath.Join(dir, "h"))} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	out, err := exec.Command(tar, append([]string{"-C", dir, "-cf", "-"}, append(args, ".")...)...).Output()
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

var formats = map[string][]string{
	"ustar": {"--format=ustar", "--exclude=long-name-*"}, "gnu": {"--format=gnu"}, "pax": {"--format=posix"},
	"v7": {"--format=v7", "--exclude=long-name-*"}, "gnu sparse": {"--format=gnu", "-S"}, "pax sparse": {"--format=posix", "-S"},
	"pax sparse 0.0": {"--format=posix", "-S", "--sparse-version=0.0"}, "pax sparse 0.1": {"--format=posix", "-S", "--sparse-version=0.1"},
}

// TestAgainstStandardLibrary walks archives of every format and compares with
// archive/tar; then puts the blocks together again.
func TestAgainstStandardLibrary(t *testing.T) {
	for name, args := range formats {
		t.Run(name, func(t *testing.T) {
			b := gnuTar(t, args...)
			if n := compare(t, b); n < 8 {
				t.Errorf("%d members compared, want at least 8", n)
			}
			if got := copyAll(t, NewReader(bytes.NewReader(b))); !bytes.Equal(got, b) {
				t.Error("the copy differs from the archive")
			}
			seek := NewSeeker(bytes.NewReader(b), 0, int64(len(b)))
			stream := NewReader(bytes.NewReader(b))
			for {
				m, _, err := seek.Next()
				n, _, nerr := stream.Next()
				if fmt.Sprint(err) != fmt.Sprint(nerr) {
					t.Fatalf("seeking %v, reading %v", err, nerr)
				}
				if err != nil {
					break
				}
				if m.Name != n.Name || m.Offset != n.Offset || m.Size != n.Size {
					t.Errorf("seeking %+v, reading %+v", m, n)
				}
			}
		})
	}
}

func copyAll(t *testing.T, r *Reader) []byte {
	var out bytes.Buffer
	for {
		m, tail, err := r.Next()
		if err == io.EOF {
			out.Write(tail)
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Write(m.Header)
		if err := r.CopyData(&out); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Rest(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// compare walks b with both readers and returns how many members they agree on.
func compare(t *testing.T, b []byte) int {
	t.Helper()
	std := tar.NewReader(bytes.NewReader(b))
	raw := NewReader(bytes.NewReader(b))
	for n := 0; ; {
		h, serr := std.Next()
		for serr == nil && h.Typeflag == tar.TypeXGlobalHeader { // no member here
			h, serr = std.Next()
		}
		m, _, rerr := raw.Next()
		switch {
		case serr == io.EOF && rerr == io.EOF:
			return n
		case serr != nil:
			return n // it is the stricter one
		case rerr != nil:
			t.Fatalf("member %d, %q: %v; archive/tar accepts it", n, h.Name, rerr)
		}
		n++
		if m.Name != h.Name {
			t.Errorf("name %q, archive/tar has %q", m.Name, h.Name)
		}
		if m.Type != h.Typeflag {
			t.Errorf("%q: type %q, archive/tar has %q", h.Name, m.Type, h.Typeflag)
		}
		if m.Regular() {
			got, err := io.ReadAll(raw)
			want, serr := io.ReadAll(std)
			if serr != nil {
				return n
			}
			if err != nil || !bytes.Equal(got, want) || m.Size != h.Size {
				t.Errorf("%q: %d bytes and %v, archive/tar has %d", h.Name, len(got), err, len(want))
			}
		}
	}
}

// TestResized changes the size of each plain file of archives of every format, and
// reads the result with archive/tar.
func TestResized(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 70_001)
	archives := map[string][]byte{"pax size": paxSize(t), "binary size": binarySize(t)}
	for name, args := range formats {
		archives[name] = gnuTar(t, args...)
	}
	for name, b := range archives {
		t.Run(name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(b))
			var out bytes.Buffer
			changed := 0
			for {
				m, tail, err := r.Next()
				if err == io.EOF {
					out.Write(tail)
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if !m.Regular() || m.Size == 0 {
					out.Write(m.Header)
					if err := r.CopyData(&out); err != nil {
						t.Fatal(err)
					}
					continue
				}
				same, err := m.Resized(m.Size)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(same, m.Header) {
					t.Errorf("%q: another header for the same size", m.Name)
				}
				h, err := m.Resized(int64(len(big)))
				if err != nil {
					t.Fatal(err)
				}
				changed++
				out.Write(h)
				out.Write(big)
				out.Write(make([]byte, -len(big)&511))
			}
			r.Rest(&out)
			if changed == 0 {
				t.Fatal("no member was changed")
			}
			was := headers(t, b)
			for i, h := range headers(t, out.Bytes()) {
				if h.Size == int64(len(big)) {
					h.Size = was[i].Size
					changed--
				}
				delete(h.PAXRecords, "size")
				delete(was[i].PAXRecords, "size")
				if fmt.Sprintf("%+v", h) != fmt.Sprintf("%+v", was[i]) {
					t.Errorf("header %+v\nwas %+v", h, was[i])
				}
			}
			if changed != 0 {
				t.Errorf("%d changed members are not found", changed)
			}
		})
	}
}

// headers returns all headers of an archive, and reads all data.
func headers(t *testing.T, b []byte) []tar.Header {
	t.Helper()
	var out []tar.Header
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		out = append(out, *h)
	}
}

// paxSize is an archive whose size stands in a pax record too.
func paxSize(t *testing.T) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "a", Size: 9, Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": "c", "z.z": "z"}}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("123456789"))
	w.Close()
	out := b.Bytes()
	// Put a size record where the comment is, which is as long.
	at := bytes.Index(out, []byte("13 comment=c\n"))
	copy(out[at:], "13 comment=c\n")
	body := slices.Concat([]byte("10 size=9\n"), []byte("11 z.z=zzz\n"))
	head := out[:512]
	copy(out[512:], append(body, make([]byte, 512-len(body))...))
	if err := setSize(head, int64(len(body))); err != nil {
		t.Fatal(err)
	}
	return out
}

// binarySize is an archive whose size is a binary number.
func binarySize(t *testing.T) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "a", Size: 3, Typeflag: tar.TypeReg, ModTime: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("123"))
	w.Close()
	out := b.Bytes()
	copy(out[124:], append([]byte{0x80}, make([]byte, 11)...))
	if err := setSize(out[:512], 3); err != nil {
		t.Fatal(err)
	}
	return out
}

// maxSpecial is archive/tar's bound on a pax header and a long name.
const maxSpecial = 1 << 20

// TestLimits refuses what would need memory that no real archive needs.
func TestLimits(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "a", Size: maxSpecial + 1, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR})
	for _, typ := range []byte{tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink} {
		h := slices.Clone(b.Bytes()[:512])
		h[156] = typ
		if err := setSize(h, maxSpecial+1); err != nil {
			t.Fatal(err)
		}
		_, _, err := NewReader(bytes.NewReader(append(h, make([]byte, maxSpecial+512)...))).Next()
		var tarErr *Error
		if !errors.As(err, &tarErr) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("type %q: error %v, want that it is refused", typ, err)
		}
	}
	// An endless row of extended headers before a member.
	long := slices.Clone(b.Bytes()[:512])
	long[156] = tar.TypeGNULongName
	if err := setSize(long, maxSpecial); err != nil {
		t.Fatal(err)
	}
	row := append(long, make([]byte, maxSpecial)...)
	_, _, err := NewReader(strings.NewReader("")).Next()
	if err != io.EOF {
		t.Errorf("nothing: %v, want EOF", err)
	}
	_, _, err = NewReader(bytes.NewReader(bytes.Repeat(row, 20))).Next()
	if err == nil || !strings.Contains(err.Error(), "more than 16 MiB") {
		t.Errorf("error %v, want that the headers are too many", err)
	}
}

// FuzzWalk walks arbitrary bytes: what archive/tar accepts must be read the same,
// and an archive is copied to the same bytes.
func FuzzWalk(f *testing.F) {
	for _, args := range formats {
		b := gnuTar(f, args...)
		f.Add(b[:min(len(b), 40<<10)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		var out bytes.Buffer
		for {
			m, tail, err := r.Next()
			if err == io.EOF {
				out.Write(tail)
				r.Rest(&out)
				if !bytes.Equal(out.Bytes(), b) {
					t.Fatalf("copied %d bytes of %d", out.Len(), len(b))
				}
				break
			}
			if err != nil {
				break
			}
			if m.Regular() {
				if h, err := m.Resized(m.Size); err == nil && len(h) < 512 {
					t.Fatal("short header")
				}
			}
			out.Write(m.Header)
			if r.CopyData(&out) != nil {
				break
			}
		}
		std := tar.NewReader(bytes.NewReader(b))
		raw := NewReader(bytes.NewReader(b))
		for {
			h, err := std.Next()
			if err != nil || h.Typeflag == tar.TypeXGlobalHeader || h.Format == tar.FormatUnknown {
				return
			}
			m, _, err := raw.Next()
			if err != nil {
				if h.Format&(tar.FormatUSTAR|tar.FormatPAX|tar.FormatGNU) != 0 && !strings.Contains(err.Error(), "refused") {
					t.Fatalf("archive/tar accepts %q, and we say %v", h.Name, err)
				}
				return
			}
			if m.Name != h.Name {
				// archive/tar reads the prefix of headers that mix formats.
				return
			}
			if m.Regular() && m.Size != h.Size {
				t.Fatalf("%q: size %d, archive/tar has %d", h.Name, m.Size, h.Size)
			}
		}
	})
}

// TestGlobalHeader refuses global headers that tar obeys and archive/tar does not.
func TestGlobalHeader(t *testing.T) {
	for key, want := range map[string]string{"comment": "", "path": "a global header", "size": "a global header", "GNU.sparse.size": "a global header"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "99"}}); err != nil {
			t.Fatal(err)
		}
		w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg})
		w.Close()
		raw := b.Bytes()
		record := []byte(newPaxRecord(key, "99"))
		copy(raw[512:], append(record, make([]byte, 50)...))
		if err := setSize(raw[:512], int64(len(record))); err != nil {
			t.Fatal(err)
		}
		_, _, err := NewReader(bytes.NewReader(raw)).Next()
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", key, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want %q", key, err, want)
		}
	}
}
