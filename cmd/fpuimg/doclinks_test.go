package main

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docLink is what go doc makes a link of if the name is known, and prints as it stands
// if not: [Name], [Type.Method], [package.Name].
var docLink = regexp.MustCompile(`(?:^|[\s(])\[\*?((?:[a-z]\w*\.)?[A-Z]\w*(?:\.[A-Z]\w*)?)\]`)

// TestDocLinks looks up the name in every link of a comment, in all packages of the
// module.
func TestDocLinks(t *testing.T) {
	names := map[string]map[string]bool{} // by import path
	files := map[string][]*ast.File{}
	fset := token.NewFileSet()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,IgnoredGoFiles", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Dir         string
			GoFiles, IgnoredGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		names[p.ImportPath] = map[string]bool{}
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files[p.ImportPath] = append(files[p.ImportPath], f)
			declared(f, names[p.ImportPath])
		}
	}
	imports := map[string]string{}
	for path := range names {
		imports[path[strings.LastIndex(path, "/")+1:]] = path
	}
	links := 0
	for pkg, list := range files {
		for _, f := range list {
			for _, group := range f.Comments {
				for _, m := range docLink.FindAllStringSubmatch(strings.ReplaceAll(group.Text(), "\n", " "), -1) {
					links++
					in, name := pkg, m[1]
					if first, rest, _ := strings.Cut(m[1], "."); first[0] >= 'a' {
						if in, name = imports[first], rest; in == "" {
							continue // of the standard library, or of another module
						}
					}
					if !names[in][name] {
						t.Errorf("%s: [%s] leads nowhere", fset.Position(group.Pos()), m[1])
					}
				}
			}
		}
	}
	if links < 100 {
		t.Errorf("%d links found, want 100 at least", links)
	}
}

// declared adds the names that a file declares: Name, and Type.Name of methods and
// fields.
func declared(f *ast.File, names map[string]bool) {
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = strings.TrimLeft(typeName(d.Recv.List[0].Type)+"."+name, "*")
			}
			names[name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					for _, n := range s.Names {
						names[n.Name] = true
					}
				case *ast.TypeSpec:
					names[s.Name.Name] = true
					var fields *ast.FieldList
					switch u := s.Type.(type) {
					case *ast.StructType:
						fields = u.Fields
					case *ast.InterfaceType:
						fields = u.Methods
					default:
						continue
					}
					for _, field := range fields.List {
						for _, n := range field.Names {
							names[s.Name.Name+"."+n.Name] = true
						}
					}
				}
			}
		}
	}
}

// typeName is the name of a receiver's type.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
