package frameworks

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// texts are the ones whose Go blocks are pieces of files that are compiled and tested.
var texts = []string{"README.md", "docs/RECIPES.md", "docs/SECURITY.md"}

const root = "../.."

// Each Go block of the texts is a piece of a Go file of the repository, but for the
// indentation, and for lines with … alone, which stand for what is left out.
func TestSnippetsArePiecesOfFiles(t *testing.T) {
	files := goFiles(t)
	for _, name := range texts {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		blocks := goBlocks(string(text))
		if len(blocks) == 0 {
			t.Errorf("%s: no Go block", name)
		}
		for _, block := range blocks {
			if !slices.ContainsFunc(files, func(file []string) bool { return isPiece(block.lines, file) }) {
				t.Errorf("%s:%d: this is no piece of a Go file:\n%s", name, block.at, strings.Join(block.lines, "\n"))
			}
		}
	}
}

// A snippet that has rotted is found.
func TestIsPiece(t *testing.T) {
	file := strings.Split("a b c d e f", " ")
	for block, want := range map[string]bool{
		"a b c": true, "c d": true, "a … e f": true, "… f": true, "b …": true, "a … c … f": true,
		"a c": false, "f … a": false, "a … b d": false, "g": false, "e f g": false,
	} {
		if got := isPiece(strings.Split(block, " "), file); got != want {
			t.Errorf("%s: %v", block, got)
		}
	}
}

type block struct {
	at    int // the line of the text
	lines []string
}

var fence = regexp.MustCompile("^ *```(.*)$")

// goBlocks returns the Go blocks of a Markdown text, also those in lists.
func goBlocks(text string) (blocks []block) {
	inside, isGo := false, false
	for i, line := range strings.Split(text, "\n") {
		switch f := fence.FindStringSubmatch(line); {
		case f != nil:
			inside = !inside
			if isGo = inside && f[1] == "go"; isGo {
				blocks = append(blocks, block{at: i + 1})
			}
		case isGo && strings.TrimSpace(line) != "":
			b := &blocks[len(blocks)-1]
			b.lines = append(b.lines, strings.TrimSpace(line))
		}
	}
	return blocks
}

// isPiece reports whether the parts of lines between those with … are in file, one after
// the other.
func isPiece(lines, file []string) bool {
	for len(lines) > 0 {
		n := slices.Index(append(slices.Clone(lines), "…"), "…")
		at := indexOf(file, lines[:n])
		if at < 0 {
			return false
		}
		file, lines = file[at+n:], lines[min(n+1, len(lines)):]
	}
	return true
}

func indexOf(file, part []string) int {
	for i := range len(file) - len(part) + 1 {
		if slices.Equal(file[i:i+len(part)], part) {
			return i
		}
	}
	return -1
}

// goFiles returns the lines of all Go files, without indentation and empty lines.
func goFiles(t *testing.T) (files [][]string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		var lines []string
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		files = append(files, lines)
		return err
	})
	if err != nil || len(files) < 100 {
		t.Fatal(fmt.Sprint(len(files), " Go files"), err)
	}
	return files
}
