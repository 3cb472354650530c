package session2_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// The README's program is examples/hello, which compiles with everything else.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("examples/hello/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(program), "\n") // without the package comment
	if !strings.Contains(string(readme), "```go\n"+code+"```\n") {
		t.Error("the README's program is not examples/hello/main.go")
	}
}

func TestTextsNameTestsThatExist(t *testing.T) {
	texts, err := filepath.Glob("docs/*.md")
	testsite.Must(t, err)
	have := testNames(t)
	for _, path := range append(texts, "README.md") {
		text, err := os.ReadFile(path)
		testsite.Must(t, err)
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1) {
			if !have[name] {
				t.Errorf("%s speaks of %s, which is not there", path, name)
			}
		}
	}
}

// TestStoresShowTheSchema compares what docs/STORES.md shows with what Setup
// runs.
func TestStoresShowTheSchema(t *testing.T) {
	text, err := os.ReadFile("docs/STORES.md")
	testsite.Must(t, err)
	for _, url := range []string{"postgres://localhost/db", "mysql://u@localhost/db"} { // nobody is called
		store, err := session2.Open(t.Context(), url)
		testsite.Must(t, err)
		ddl := strings.Join(store.(interface{ Schema() []string }).Schema(), ";\n") + ";\n"
		if !strings.Contains(string(text), "```sql\n"+ddl+"```") {
			t.Errorf("docs/STORES.md does not show the schema of %s:\n%s", url, ddl)
		}
	}
}
