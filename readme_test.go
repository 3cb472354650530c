package session2_test

import (
	"os"
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
