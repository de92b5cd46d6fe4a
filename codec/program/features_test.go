package program

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// otherLibc are the entries of programs of musl, and of Go, which has none.
var otherLibc = regexp.MustCompile(`musl|^(inlm|sighm|spinm|go)-`)

// All pages of a checkpoint hold one record where its program is of glibc, and none
// where it is of musl or Go.
func TestFindFeatures(t *testing.T) {
	for _, name := range testcmd.Rows(corpus.Names(t)) {
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
		}
	}
}
