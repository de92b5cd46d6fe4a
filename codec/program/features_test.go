package program

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// otherLibc are the entries of programs of musl, and of Go, which has none.
var otherLibc = regexp.MustCompile(`musl|^(inlm|sighm|spinm|go)-`)

// All pages of a checkpoint hold one record where its program is of glibc, and none
// where it is of musl or Go. It says what ld.so of the machine said.
func TestFindFeatures(t *testing.T) {
	for _, name := range corpus.Names(t) {
		truth := corpus.Load(t, name)
		var found []record
		dirs := []string{corpus.Images(t, name)}
		if parent, err := os.Readlink(filepath.Join(dirs[0], "parent")); err == nil {
			dirs = append(dirs, filepath.Join(dirs[0], parent))
		}
		for _, dir := range dirs {
			pages, err := filepath.Glob(filepath.Join(dir, "pages-*.img"))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range pages {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				found = findFeatures(found, b, 0, 0, len(b))
			}
		}
		glibc := len(truth.Processes)
		if otherLibc.MatchString(name) {
			glibc = 0
		}
		if len(found) != glibc {
			t.Errorf("%s: %d records, want %d", name, len(found), glibc)
			continue
		}
		for _, r := range found {
			s := r.source()
			d := truth.Diagnostics
			if d == nil {
				continue
			}
			for key, got := range map[string]any{
				"basic.family":     *s.CPU.Family,
				"basic.model":      *s.CPU.Model,
				"basic.stepping":   *s.CPU.Stepping,
				"isa_1":            1<<s.ISALevel - 1,
				"xsave_state_size": s.SaveSize,
			} {
				if got := fmt.Sprintf("%#x", got); got != d["x86.cpu_features."+key] {
					t.Errorf("%s: %s %s, want %s", name, key, got, d["x86.cpu_features."+key])
				}
			}
			for i, l := range s.Leaves {
				for j := range 4 {
					key := fmt.Sprintf("x86.cpu_features.features[%#x].", i)
					if got := fmt.Sprintf("%#x", l.Active[j]); got != d[key+fmt.Sprintf("active[%#x]", j)] {
						t.Errorf("%s: leaf %#x register %d: active %s, want %s", name, l.Leaf, j, got, d[key+fmt.Sprintf("active[%#x]", j)])
					}
					if i > 0 || j != 1 { // CPUID 1, EBX has the number of the processor that was asked
						if got := fmt.Sprintf("%#x", l.CPUID[j]); got != d[key+fmt.Sprintf("cpuid[%#x]", j)] {
							t.Errorf("%s: leaf %#x register %d: %s, want %s", name, l.Leaf, j, got, d[key+fmt.Sprintf("cpuid[%#x]", j)])
						}
					}
				}
			}
		}
	}
}
