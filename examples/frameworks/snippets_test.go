package frameworks

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// texts are the ones whose blocks are pieces of files that are compiled or run by tests.
var texts = []string{"README.md", "docs/RECIPES.md", "docs/SECURITY.md", "docs/MIGRATING.md", "docs/OPERATING.md"}

const root = "../.."

// kinds are the languages of blocks, and the names of the files that they are pieces of.
var kinds = map[string]string{"go": ".go", "nginx": ".conf"}

// Each block of the texts is a piece of a file of its kind in the repository, but for the
// indentation, and for lines with … alone, which stand for what is left out.
func TestSnippetsArePiecesOfFiles(t *testing.T) {
	files := sources(t)
	for _, name := range texts {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		blocks := blocksOf(string(text))
		if len(blocks) == 0 {
			t.Errorf("%s: no block", name)
		}
		for _, block := range blocks {
			if !slices.ContainsFunc(files[block.kind], func(file []string) bool { return isPiece(block.lines, file) }) {
				t.Errorf("%s:%d: this is no piece of a %s file:\n%s", name, block.at, block.kind, strings.Join(block.lines, "\n"))
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
	kind  string
	lines []string
}

var fence = regexp.MustCompile("^ *```(.*)$")

// blocksOf returns the blocks of those kinds in a Markdown text, also the ones in lists.
func blocksOf(text string) (blocks []block) {
	inside, ours := false, false
	for i, line := range strings.Split(text, "\n") {
		switch f := fence.FindStringSubmatch(line); {
		case f != nil:
			inside = !inside
			if ours = inside && kinds[f[1]] != ""; ours {
				blocks = append(blocks, block{at: i + 1, kind: kinds[f[1]]})
			}
		case ours && strings.TrimSpace(line) != "":
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

// sources returns the lines of all files by their kind, without indentation and empty lines.
func sources(t *testing.T) map[string][][]string {
	files := make(map[string][][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		kind := filepath.Ext(path)
		if err != nil || d.IsDir() || kind != ".go" && kind != ".conf" {
			return err
		}
		text, err := os.ReadFile(path)
		var lines []string
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		files[kind] = append(files[kind], lines)
		return err
	})
	if err != nil || len(files[".go"]) < 100 {
		t.Fatal(len(files[".go"]), " Go files", err)
	}
	return files
}
