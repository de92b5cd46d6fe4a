package main

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fpuimg/fpuimg/"

// edges lists what each package imports besides the standard library, no less and no
// more. Imports go down this list only, and what decides, reads and models knows nothing
// of flags, colours and processes.
var edges = []struct {
	pkg     string
	imports string // of this module without its path, then modules of others
}{
	{"cmd/fpuimg", "codec codec/facts codec/program codec/checkpoint codec/cpuid codec/elfcore codec/xstate convert convert/compat convert/level cmd/internal/cli cmd/internal/view internal/ahead color pflag"},
	{"cmd/fpurestore", "codec codec/checkpoint codec/cpuid codec/xstate convert convert/compat cmd/fpurestore/internal/ptrace cmd/internal/cli cmd/internal/view pflag sys"},
	{"cmd/fpurestore/internal/ptrace", "codec/cpuid codec/xstate sys"},
	{"cmd/internal/view", "codec/xstate convert/compat cmd/internal/cli color tablewriter"},
	{"cmd/internal/cli", "color go-isatty pflag sys"},
	{"convert/level", "codec codec/checkpoint codec/facts codec/isa codec/memory codec/program codec/xstate convert convert/compat"},
	{"convert", "codec codec/checkpoint codec/facts convert/compat sys"},
	{"convert/compat", "codec/facts codec/xstate"},
	{"codec/checkpoint", "codec codec/elfcore codec/xstate codec/internal/rawtar internal/ahead protobuf"},
	{"codec/program", "codec codec/cpuid codec/facts codec/isa codec/memory codec/xstate"},
	{"codec/elfcore", "codec codec/xstate"},
	{"internal/test/glibc", "codec internal/test/elf internal/test/img"}, // for tests only
	{"codec/memory", "codec"},
	{"codec", "codec/xstate protobuf sys"},
	{"internal/test/machines", "codec/cpuid codec/xstate"}, // for maintainers only
	{"codec/cpuid", "codec/xstate sys"},
	{"codec/facts", "codec/xstate"},
	{"internal/test/elf", "codec/xstate"},                     // for tests only
	{"internal/test/truth", "codec/xstate internal/test/img"}, // for tests only
	{"codec/xstate", ""},
	{"codec/isa", ""},
	{"codec/internal/rawtar", "compress lz4 xz"},
	{"internal/ahead", ""},
	// For tests only.
	{"internal/test/corpus", "compress xz"},
	{"internal/test/sysfault", "sys"},
	{"internal/test/shell", "internal/test/cmd"},
	{"internal/test/cmd", "internal/test/img go-internal"},
	{"internal/test/img", "compress protobuf"},
	{"internal/test/summary", ""},
	{"internal/test/target", ""},
	{"vmtest", ""},
	{"vmtest/guest", "vmtest/guest/internal/agent sys xz"},
	{"vmtest/guest/internal/guestinit", "vmtest/guest/internal/agent sys"},
	{"vmtest/guest/internal/agent", ""},
	{"vmtest/testprog", ""},
}

// others names the modules that edges speaks of.
var others = map[string]string{
	"color":       "github.com/fatih/color",
	"compress":    "github.com/klauspost/compress",
	"go-internal": "github.com/rogpeppe/go-internal",
	"go-isatty":   "github.com/mattn/go-isatty",
	"lz4":         "github.com/pierrec/lz4",
	"pflag":       "github.com/spf13/pflag",
	"protobuf":    "google.golang.org/protobuf",
	"sys":         "golang.org/x/sys",
	"tablewriter": "github.com/olekukonko/tablewriter",
	"xz":          "github.com/xi2/xz",
}

func TestImports(t *testing.T) {
	pkgs := listImports(t)
	listed := map[string]bool{}
	for _, e := range edges {
		listed[e.pkg] = true
		imports, ok := pkgs[e.pkg]
		if !ok {
			t.Errorf("%s is listed, and no package", e.pkg)
		}
		allowed := strings.Fields(e.imports)
		is := func(imp, name string) bool {
			if other := others[name]; other != "" {
				return imp == other || strings.HasPrefix(imp, other+"/")
			}
			return imp == module+name
		}
		for _, imp := range imports {
			if !slices.ContainsFunc(allowed, func(name string) bool { return is(imp, name) }) {
				t.Errorf("%s imports %s", e.pkg, imp)
			}
		}
		for _, name := range allowed {
			if !slices.ContainsFunc(imports, func(imp string) bool { return is(imp, name) }) {
				t.Errorf("%s may import %s, and does not", e.pkg, name)
			}
		}
	}
	for i, e := range edges {
		for j := range i {
			if slices.Contains(strings.Fields(e.imports), edges[j].pkg) {
				t.Errorf("%s imports %s, which stands above it", e.pkg, edges[j].pkg)
			}
		}
	}
	for pkg := range pkgs {
		if !listed[pkg] {
			t.Errorf("%s: which imports it may have is not listed", pkg)
		}
	}
}

// listImports asks the go command for the module's packages, on every platform
// that files are made for, and what they import outside the standard library.
func listImports(t *testing.T) map[string][]string {
	t.Helper()
	pkgs := map[string][]string{}
	for _, platform := range []string{"linux/amd64", "darwin/arm64"} {
		goos, goarch, _ := strings.Cut(platform, "/")
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
		cmd.Env = append(cmd.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				t.Fatalf("go list: %s", exit.Stderr)
			}
			t.Fatal(err)
		}
		dec := json.NewDecoder(strings.NewReader(string(out)))
		for {
			var p struct {
				ImportPath string
				Imports    []string
			}
			if err := dec.Decode(&p); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(p.ImportPath, module)
			pkgs[name] = append(pkgs[name], nil...)
			for _, imp := range p.Imports {
				if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") && !slices.Contains(pkgs[name], imp) {
					pkgs[name] = append(pkgs[name], imp)
				}
			}
		}
	}
	if len(pkgs) < 5 {
		t.Fatalf("go list found %d packages", len(pkgs))
	}
	return pkgs
}

// TestSerial holds the Makefile to its word on what it tests without the race detector: a
// package that starts goroutines, itself or by internal/ahead, has tests TestConcurrent,
// which the Makefile runs with it; and no other package leaves out cases for its sake.
func TestSerial(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(makefile), "\nSERIAL = ")
	list, _, _ := strings.Cut(rest, "\n")
	if !ok || list == "" {
		t.Fatal("the Makefile has no list SERIAL")
	}
	cmd := exec.Command("go", append([]string{"list", "-f", "{{.Dir}}"}, strings.Fields(list)...)...)
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	files, fset := 0, token.NewFileSet()
	serial := strings.Fields(string(out))
	for _, dir := range serial {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		concurrent, starts := false, []token.Pos(nil)
		for _, path := range paths {
			files++
			file, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			test := strings.HasSuffix(path, "_test.go")
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					concurrent = concurrent || test && strings.HasPrefix(n.Name.Name, "TestConcurrent")
				case *ast.GoStmt:
					starts = append(starts, n.Pos())
				case *ast.SelectorExpr: // of a sync.WaitGroup, of context and time, of internal/ahead
					pkg, _ := n.X.(*ast.Ident)
					if n.Sel.Name == "Go" || n.Sel.Name == "AfterFunc" || n.Sel.Name == "Map" && pkg != nil && pkg.Name == "ahead" {
						starts = append(starts, n.Pos())
					}
				}
				return !test || n == file // of tests the names of functions
			})
		}
		for _, at := range starts {
			if !concurrent {
				t.Errorf("%v: a goroutine, in what the Makefile never tests with the race detector", fset.Position(at))
			}
		}
	}
	if files < 20 {
		t.Errorf("%d files", files)
	}
	sampled := regexp.MustCompile(`testcmd\.(Step|Cases|Rows)\b`)
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") || slices.Contains(serial, filepath.Dir(path)) {
			return err
		}
		b, err := os.ReadFile(path)
		if sampled.Match(b) {
			t.Errorf("%s leaves out cases, and the Makefile never tests it without the race detector", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
