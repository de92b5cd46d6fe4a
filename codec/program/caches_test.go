package program

import (
	"path"
	"slices"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// The files tell the version of the libc.
func TestLibcVersion(t *testing.T) {
	for name, want := range map[string]string{"lp-1": "glibc 2.36", "lp-bullseye-1": "glibc 2.31", "lp-trixie-1": "glibc 2.41", "lpst-1": "glibc", "lpmusl-1": "musl"} {
		if got := lookAt(t, name, corpus.Load(t, name).Processes[0].PID).Libc; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// OpenSSL, its copy in node, and HotSpot keep CPUID's words; programs of the libc alone
// do not.
func TestCaches(t *testing.T) {
	for name, want := range map[string]string{"oss-1": "libcrypto.so.3", "node-1": "node", "java-1": "libjvm.so", "py-1": "", "lp-1": "", "go-1": "", "gh-lp1": ""} {
		l := NewLooker(codec.Dir(corpus.Images(t, name)), nil)
		p, err := l.Look(corpus.Load(t, name).Processes[0].PID, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		var got []string
		for _, c := range p.Caches {
			if base := path.Base(c.Object.Path); !slices.Contains(got, base) {
				got = append(got, base)
			}
			if !slices.Contains(c.Flags, "avx2") && !slices.Contains(c.Flags, "avx") && !slices.Contains(c.Flags, "vaes") && !slices.Contains(c.Flags, "abm") {
				t.Errorf("%s: flags %v", name, c.Flags)
			}
		}
		if want == "" && got != nil || want != "" && !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
	}
}
