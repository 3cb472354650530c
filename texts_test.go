package session2_test

import (
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// texts returns the project's pages by their paths.
func texts(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		testsite.Must(t, err)
		for _, p := range paths {
			text, err := os.ReadFile(p)
			testsite.Must(t, err)
			pages[filepath.ToSlash(p)] = string(text)
		}
	}
	return pages
}

// The README's program is examples/hello, which compiles with everything else.
func TestReadmeProgram(t *testing.T) {
	program, err := os.ReadFile("examples/hello/main.go")
	testsite.Must(t, err)
	_, code, _ := strings.Cut(string(program), "\n") // without the package comment
	if !strings.Contains(texts(t)["README.md"], "```go\n"+code+"```\n") {
		t.Error("the README's program is not examples/hello/main.go")
	}
}

func TestTextsNameTestsThatExist(t *testing.T) {
	have := testNames(t)
	for page, text := range texts(t) {
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(text, -1) {
			if !have[name] {
				t.Errorf("%s speaks of %s, which is not there", page, name)
			}
		}
	}
}

// TestStoresShowTheSchema compares what docs/STORES.md shows with what Setup
// runs.
func TestStoresShowTheSchema(t *testing.T) {
	text := texts(t)["docs/STORES.md"]
	for _, url := range []string{"postgres://localhost/db", "postgres:", "mysql://u@localhost/db"} { // nobody is called
		store, err := session2.Open(t.Context(), url)
		testsite.Must(t, err)
		defer closeStore(t, store)
		ddl := strings.Join(store.(interface{ Schema() []string }).Schema(), ";\n") + ";\n"
		if !strings.Contains(text, "```sql\n"+ddl+"```") {
			t.Errorf("docs/STORES.md does not show the schema of %s:\n%s", url, ddl)
		}
	}
}

var (
	codeInText = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	linkInText = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// TestLinksInTexts follows each link to another file of the project, or to a heading.
func TestLinksInTexts(t *testing.T) {
	pages, followed := texts(t), 0
	for page, text := range pages {
		for _, m := range linkInText.FindAllStringSubmatch(codeInText.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			followed++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
			} else if anchor != "" && !anchors(pages[target])[anchor] {
				t.Errorf("%s: %s: %s has no such heading", page, m[1], target)
			}
		}
	}
	if followed == 0 {
		t.Error("no links were found")
	}
}

// anchors returns what GitHub calls the headings of a page.
func anchors(text string) map[string]bool {
	have := map[string]bool{}
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		title := strings.TrimLeft(line, "#")
		if fenced || title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		have[strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case c == '-', c == '_', unicode.IsLetter(c), unicode.IsDigit(c):
				return unicode.ToLower(c)
			}
			return -1
		}, strings.TrimSpace(title))] = true
	}
	return have
}

// TestTextsNameWhatIsExported looks for each name of a package, or of a type's field or
// method, that a page speaks of in code.
func TestTextsNameWhatIsExported(t *testing.T) {
	have := map[string]bool{} // "session2.Config", "Config.Realm"
	types := map[string]bool{}
	for _, dir := range documented {
		pkg := documentation(t, dir)
		types[pkg.Name] = true
		for name := range names(pkg) {
			of, _, member := strings.Cut(name, ".")
			if member {
				have[name], types[of] = true, true
			} else {
				have[pkg.Name+"."+name] = true
			}
		}
	}
	found := 0
	name := regexp.MustCompile(`(?:^|[^\w./])(\w+)\.([A-Z]\w*)`)
	for page, text := range texts(t) {
		for _, code := range codeInText.FindAllString(text, -1) {
			for _, m := range name.FindAllStringSubmatch(code, -1) {
				if !types[m[1]] {
					continue
				}
				if found++; !have[m[1]+"."+m[2]] {
					t.Errorf("%s speaks of %s.%s, which is not there", page, m[1], m[2])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no names were found")
	}
}

// documented are the directories of the public packages.
var documented = []string{".", "command", "sessiontest", "storetest", "stores/redis", "stores/sqlite"}

// documentation reads a package as go doc does.
func documentation(t *testing.T, dir string) *doc.Package {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	testsite.Must(t, err)
	set := token.NewFileSet()
	var files []*ast.File
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		testsite.Must(t, err)
		files = append(files, f)
	}
	pkg, err := doc.NewFromFiles(set, files, path.Join("github.com/session2/session2", dir))
	testsite.Must(t, err)
	return pkg
}

// names returns the exported names of a package with their comments; fields and methods
// with their type before them.
func names(pkg *doc.Package) map[string]string {
	list := map[string]string{}
	funcs := func(of string, all []*doc.Func) {
		for _, f := range all {
			list[of+f.Name] = f.Doc
		}
	}
	values := func(all []*doc.Value) {
		for _, v := range all {
			for _, s := range v.Decl.Specs {
				s := s.(*ast.ValueSpec)
				for _, name := range s.Names {
					list[name.Name] = v.Doc + "\n" + s.Doc.Text()
				}
			}
		}
	}
	funcs("", pkg.Funcs)
	values(pkg.Vars)
	values(pkg.Consts)
	for _, typ := range pkg.Types {
		list[typ.Name] = typ.Doc
		funcs("", typ.Funcs)
		funcs(typ.Name+".", typ.Methods)
		values(typ.Vars)
		values(typ.Consts)
		ast.Inspect(typ.Decl, func(n ast.Node) bool {
			if f, ok := n.(*ast.Field); ok {
				for _, name := range f.Names {
					if name.IsExported() {
						list[typ.Name+"."+name.Name] = f.Doc.Text() + f.Comment.Text()
					}
				}
			}
			return true
		})
	}
	return list
}

// TestDocComments checks that each function, method and type has a comment that begins
// with its name, and that each [Name] in a comment is a link.
func TestDocComments(t *testing.T) {
	unresolved := regexp.MustCompile(`(?:^|[\s(])\[\*?[A-Za-z][\w./]*\]`)
	for _, dir := range documented {
		pkg := documentation(t, dir)
		texts := names(pkg)
		for _, name := range spokenFor(pkg) {
			short := name[strings.LastIndex(name, ".")+1:]
			if !strings.HasPrefix(texts[name], short+" ") {
				t.Errorf("%s: the comment of %s does not begin with its name: %q", dir, name, texts[name])
			}
		}
		texts["package"] = pkg.Doc
		for name, text := range texts {
			for _, plain := range plainTexts(pkg.Parser().Parse(text).Content) {
				for _, link := range unresolved.FindAllString(plain, -1) {
					t.Errorf("%s: %s: %s is no link", dir, name, strings.TrimSpace(link))
				}
			}
		}
	}
}

// spokenFor returns the functions, methods and types of a package.
func spokenFor(pkg *doc.Package) (list []string) {
	for _, f := range pkg.Funcs {
		list = append(list, f.Name)
	}
	for _, typ := range pkg.Types {
		list = append(list, typ.Name)
		for _, f := range typ.Funcs {
			list = append(list, f.Name)
		}
		for _, f := range typ.Methods {
			list = append(list, typ.Name+"."+f.Name)
		}
	}
	return list
}

// plainTexts returns what of a comment is no link and no code.
func plainTexts(blocks []comment.Block) (list []string) {
	for _, b := range blocks {
		var text []comment.Text
		switch b := b.(type) {
		case *comment.Paragraph:
			text = b.Text
		case *comment.Heading:
			text = b.Text
		case *comment.List:
			for _, item := range b.Items {
				list = append(list, plainTexts(item.Content)...)
			}
		}
		for _, piece := range text {
			if plain, ok := piece.(comment.Plain); ok {
				list = append(list, string(plain))
			}
		}
	}
	return list
}
