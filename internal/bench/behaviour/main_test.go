package main

import (
	"os"
	"strings"
	"testing"
)

// The README's table is what this prints.
func TestReadme(t *testing.T) {
	var b strings.Builder
	if err := table(&b); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), b.String()) {
		t.Errorf("the README does not have the table\n%s", &b)
	}
}
