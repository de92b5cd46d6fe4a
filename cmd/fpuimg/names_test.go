package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// hostileName would colour the terminal, turn the text around, hide a part of it and
// begin a line.
const hostileName = "a\x1b[31m\u009b31m\x7f\u202eb\u2066\u200b\ufe0f\u3164\nc\u2028"

// TestNamesDoNotReachTheTerminal has every verb read names that a terminal would
// obey, wherever a name may stand, and looks at each character that they print.
func TestNamesDoNotReachTheTerminal(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	const name = hostileName
	dir := filepath.Join(t.TempDir(), name, "checkpoint")
	if err := os.CopyFS(dir, os.DirFS(testimg.Path(t, "h-avx"))); err != nil {
		t.Fatal(err)
	}
	write := func(path string, b []byte) string {
		t.Helper()
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cores, _ := filepath.Glob(testimg.Path(t, "h-avx", "core-*.img"))
	core := filepath.Join(dir, filepath.Base(cores[0]))
	image := testimg.Read(t, "h-avx", filepath.Base(cores[0]))
	write(core, withText(t, withText(t, image, name, 3, 6), name, 5, 13))
	cpu, ok := xstate.ByName("x86-64-v3")
	if !ok {
		t.Fatal("no level")
	}
	cpu.Name, cpu.ModelName = "a\ufe0fb", "d\u3164e" // controls are refused
	profile, err := json.Marshal(cpuid.NewProfile(cpu))
	if err != nil {
		t.Fatal(err)
	}
	host := write(filepath.Join(dir, "..", name+".json"), profile)
	info := testimg.Read(t, "h-avx", "cpuinfo.img")
	write(filepath.Join(dir, "cpuinfo.img"), withText(t, info, name, 1, 7))
	config, err := json.Marshal(map[string]string{"name": name, "rootfsImageName": name, "runtime": name})
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "..", "config.dump"), config)
	pack := func(path, root string) string {
		t.Helper()
		testimg.Pack(t, path, root)
		return path
	}
	top := filepath.Dir(filepath.Dir(dir))
	archive := pack(filepath.Join(t.TempDir(), "x.tar"), filepath.Dir(dir))
	named := pack(filepath.Join(t.TempDir(), name+".tar"), top)
	layout := filepath.Join(t.TempDir(), "oci")
	packed, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(packed))
	index, err := json.Marshal(map[string]any{"manifests": []any{map[string]any{
		"mediaType": "application/vnd.containerd.container.criu.checkpoint.criu.tar", "digest": "sha256:" + sum,
		"annotations": map[string]string{"org.criu.checkpoint." + name: name},
	}}})
	if err = errors.Join(err, os.MkdirAll(filepath.Join(layout, "blobs", "sha256"), 0o700)); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(layout, "blobs", "sha256", sum), packed)
	write(filepath.Join(layout, "index.json"), index)
	cut := write(filepath.Join(dir, "..", name+".img"), image[:len(image)-9])

	for _, args := range [][]string{
		{"show", dir}, {"show", "--regs", dir}, {"show", "--json", dir}, {"show", archive}, {"show", "--json", archive},
		{"show", layout}, {"show", "--json", layout},
		{"show", named}, {"show", "--json", named}, {"show", cut}, {"show", "--json", cut}, {"show", dir + name},
		{"show", "--elf-core=" + filepath.Join(dir, name), core}, {"show", "--host=" + host, "--xsave-area", core},
		{"check", "--host=" + host, dir}, {"check", "--host=" + host, "--json", dir}, {"check", "--host=" + host, host},
		{"check", "--host=" + host, "--host=x86-64-v2", dir, archive, cut}, {"check", "--host=x86-64-v2", dir},
		{"convert", "--to=fxsave", dir}, {"convert", "--to=fxsave", "--dry-run", "--json", dir}, {"convert", "--host=" + host, "--dry-run", dir},
		{"convert", "--to=fxsave", "--force", dir}, {"convert", "--to=fxsave", "--force", named}, {"convert", "--to=fxsave", "--force", "-o", dir, dir},
		{"diff", dir, testimg.Path(t, "h-sse")}, {"diff", "--json", dir, testimg.Path(t, "h-sse")}, {"diff", testimg.Path(t, "h-threads8"), core},
		{"need", dir}, {"need", "--as=json", dir, archive}, {"need", "--as=affinity", named}, {"need", "--as=nfd-rule", dir}, {"need", "--as=annotations", dir},
		{"profile", host}, {"profile", dir}, {"profile", cut}, {"profile", "--common", host, dir},
		{name}, {"help", name}, {"--" + name}, {"show", "--" + name}, {"show", "--component=" + name}, {"show", "--as=" + name}, {"show", "--tid=" + name},
		{"show", "--color=" + name}, {"convert", "--to=" + name}, {"check", "--host=" + name}, {"completion", name},
	} {
		var out, errs bytes.Buffer
		run(args, strings.NewReader(""), &out, &errs)
		if out.Len()+errs.Len() == 0 {
			t.Errorf("%q: says nothing", args)
		}
		for _, text := range []string{out.String(), errs.String()} {
			if text = strings.NewReplacer("\n", "", "\t", "").Replace(text); cli.Printable(text) != text {
				t.Errorf("%q prints\n%q", args, text)
			}
		}
		if slices.Contains(args, "--json") && !json.Valid(out.Bytes()) {
			t.Errorf("%q: no JSON:\n%s%s", args, &out, &errs)
		}
	}

	// JSON decodes to the name as it was.
	var doc struct {
		Images []struct {
			Path      string
			Container struct{ Name string }
			CPU       struct {
				ModelName string `json:"model_name"`
			}
			Threads []struct{ Comm string }
		}
	}
	var out, errs bytes.Buffer
	run([]string{"show", "--json", core, dir}, nil, &out, &errs)
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil || len(doc.Images) != 2 {
		t.Fatalf("%v: %s%s", err, &out, &errs)
	}
	img := doc.Images[1]
	for what, got := range map[string]string{"container": img.Container.Name, "model": img.CPU.ModelName, "comm": img.Threads[0].Comm} {
		if got != name {
			t.Errorf("%s: %q", what, got)
		}
	}
	if img.Path != dir {
		t.Errorf("path: %q", img.Path)
	}
}

// withText replaces a text field of the message of an image.
func withText(t *testing.T, image []byte, text string, path ...protowire.Number) []byte {
	t.Helper()
	out := setText(t, image[12:], text, path...)
	return append(protowire.AppendFixed32(bytes.Clone(image[:8]), uint32(len(out))), out...)
}

// setText replaces a text field of a message; path are the numbers of the fields that
// lead to it.
func setText(t *testing.T, b []byte, text string, path ...protowire.Number) []byte {
	t.Helper()
	var out []byte
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		m := protowire.ConsumeFieldValue(num, typ, b[max(n, 0):])
		if n < 0 || m < 0 {
			t.Fatal("no message")
		}
		if num != path[0] {
			out = append(out, b[:n+m]...)
		} else {
			v, _ := protowire.ConsumeBytes(b[n:])
			if len(path) > 1 {
				v = setText(t, v, text, path[1:]...)
			} else {
				v = []byte(text)
			}
			out = protowire.AppendBytes(append(out, b[:n]...), v)
		}
		b = b[n+m:]
	}
	return out
}
