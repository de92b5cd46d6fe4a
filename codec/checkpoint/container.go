package checkpoint

import (
	"encoding/json"
	"path/filepath"

	"github.com/fpuimg/fpuimg/codec"
)

// maxConfig bounds config.dump and spec.dump.
const maxConfig = 4 << 20

// Container is what an engine recorded of the container that a checkpoint was
// taken of. Fields that are not known are empty.
type Container struct {
	Name    string
	Image   string
	Engine  string // "Podman", "CRI-O", "containerd"
	Runtime string // "runc", "crun"
}

// parseContainer reads what an engine wrote beside a checkpoint: Podman, CRI-O and
// containerd all write config.dump, and the OCI runtime specification as spec.dump.
// Neither matters for the registers, so what cannot be read is left out.
func parseContainer(config, spec []byte) *Container {
	if config == nil && spec == nil {
		return nil
	}
	var conf struct {
		Name    string `json:"name"`
		Image   string `json:"rootfsImageName"`
		Runtime string `json:"runtime"`
	}
	var sp struct {
		Annotations map[string]string `json:"annotations"`
	}
	_ = json.Unmarshal(config, &conf)
	_ = json.Unmarshal(spec, &sp)
	c := &Container{Name: conf.Name, Image: conf.Image, Runtime: conf.Runtime}
	switch notes := sp.Annotations; {
	case notes["io.container.manager"] == "libpod":
		c.Engine = "Podman"
	case notes["io.container.manager"] == "cri-o" || notes["io.kubernetes.cri-o.Metadata"] != "":
		c.Engine = "CRI-O"
		var meta struct {
			Name string `json:"name"`
		}
		if json.Unmarshal([]byte(notes["io.kubernetes.cri-o.Metadata"]), &meta) == nil && meta.Name != "" {
			c.Name = meta.Name
		}
	case notes["io.kubernetes.cri.container-name"] != "":
		c.Engine = "containerd"
		if c.Name == "" {
			c.Name = notes["io.kubernetes.cri.container-name"]
		}
	}
	if *c == (Container{}) {
		return nil
	}
	return c
}

// dirContainer reads the description that stands beside a directory of images, if it
// is named as engines name it.
func dirContainer(dir string) *Container {
	if filepath.Base(dir) != "checkpoint" {
		return nil
	}
	read := func(base string) []byte {
		b, err := codec.ReadFile(filepath.Join(filepath.Dir(dir), base))
		if err != nil || len(b) > maxConfig {
			return nil
		}
		return b
	}
	return parseContainer(read("config.dump"), read("spec.dump"))
}
