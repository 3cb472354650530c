package session2_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/session2/session2/internal/testsite"
)

// TestAPI compares what the public packages export, and which modules the library needs,
// with testdata/api.txt. A release may add to it; what it takes away or changes breaks who
// uses it (docs/RELEASING.md). KEEP=1 writes the file anew.
func TestAPI(t *testing.T) {
	const file = "testdata/api.txt"
	var now []string
	for _, dir := range []string{".", "command", "sessiontest", "storetest"} {
		now = append(now, exported(t, dir)...)
	}
	mod, err := os.ReadFile("go.mod")
	testsite.Must(t, err)
	needs := regexp.MustCompile(`(?m)^(?:require )?\t?(\S+\.\S+/\S+) v(\d+)`)
	for _, m := range needs.FindAllStringSubmatch(string(mod), -1) {
		now = append(now, "needs "+m[1]+" v"+m[2])
	}
	if os.Getenv("KEEP") != "" {
		testsite.Must(t, os.WriteFile(file, []byte(strings.Join(now, "\n")+"\n"), 0o666))
		return
	}
	kept, err := os.ReadFile(file)
	testsite.Must(t, err)
	before := strings.Split(strings.TrimSuffix(string(kept), "\n"), "\n")
	for _, line := range before {
		if !slices.Contains(now, line) {
			t.Errorf("gone or changed: %s", line)
		}
	}
	for _, line := range now {
		if !slices.Contains(before, line) {
			t.Errorf("new (KEEP=1 go test -run TestAPI . writes it down): %s", line)
		}
	}
}

// exported returns the exported declarations of a directory's package, a line each.
func exported(t *testing.T, dir string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	testsite.Must(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		testsite.Must(t, err)
		if f.Name.Name == "main" || !ast.FileExports(f) {
			continue
		}
		for _, decl := range f.Decls {
			for _, text := range declared(t, set, decl) {
				lines = append(lines, f.Name.Name+": "+text)
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// declared returns what a declaration declares, each on one line and without comments.
func declared(t *testing.T, set *token.FileSet, decl ast.Decl) (texts []string) {
	line := func(node any) string {
		var b bytes.Buffer
		testsite.Must(t, printer.Fprint(&b, set, node))
		return strings.Join(strings.Fields(b.String()), " ")
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv != nil && !receiverIsExported(d) {
			return nil
		}
		d.Body, d.Doc = nil, nil
		return []string{line(d)}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				s.Doc, s.Comment = nil, nil
				texts = append(texts, types(s, line)...)
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.IsExported() {
						texts = append(texts, d.Tok.String()+" "+name.Name)
					}
				}
			}
		}
	}
	return texts
}

// types returns a type, and a line for each field or method of its own.
func types(s *ast.TypeSpec, line func(any) string) (texts []string) {
	var fields *ast.FieldList
	switch u := s.Type.(type) {
	case *ast.StructType:
		fields, texts = u.Fields, []string{"type " + s.Name.Name + " struct"}
	case *ast.InterfaceType:
		fields, texts = u.Methods, []string{"type " + s.Name.Name + " interface"}
	default:
		return []string{"type " + line(s)}
	}
	for _, f := range fields.List {
		for _, name := range f.Names {
			texts = append(texts, s.Name.Name+"."+name.Name+" "+line(f.Type))
		}
		if len(f.Names) == 0 {
			texts = append(texts, s.Name.Name+": "+line(f.Type))
		}
	}
	return texts
}

func receiverIsExported(d *ast.FuncDecl) bool {
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}
