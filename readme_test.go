package session2_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
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

func TestReadmeNamesTestsThatExist(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	have := testNames(t, ".")
	for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(string(readme), -1) {
		if !slices.Contains(have, name) {
			t.Errorf("the README speaks of %s, which is not there", name)
		}
	}
}
