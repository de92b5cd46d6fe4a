package guest

import (
	"path/filepath"
	"testing"
)

func TestBootVM(t *testing.T) {
	im := Require(t)
	r, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), Job{CPU: "Haswell", Steps: []Step{
		{Name: "a", Script: "uname -a; criu --version; criu check; ls -l / /job; cat /proc/uptime; echo hi >$OUT/x; dmesg|tail -5"},
		{Name: "b", Script: "echo foo >/dev/kmsg; false"},
	}})
	t.Logf("%+v %v", r, err)
}
