package corpus

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEntries(t *testing.T) {
	for _, name := range Names(t) {
		truth := Load(t, name)
		if len(truth.Processes) == 0 {
			t.Errorf("%s: no process", name)
		}
		if _, err := os.Stat(filepath.Join(Images(t, name), "pstree.img")); err != nil {
			t.Error(err)
		}
		Root(t, name)
	}
}
