// Command behaviour shows what session2 and other libraries do in five situations, the same
// handlers and the same browsers for each. The README has the table that it prints.
//
//	go run ./behaviour
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// row is one situation, and what happens there.
type row struct {
	situation string
	happens   func(*site) (string, error)
}

var rows = []row{
	{"64 requests at once add one to a counter: it counts", increments},
	{"a logout while a slow request of the same browser runs: signed in afterwards", logout},
	{"a handler sets a value and then streams: the value is there in the next request", stream},
	{"1,000 requests within a minute that only read, and keep the session from idling out: writes to the store", reads},
	{"somebody reads the store: the secret of the browser's cookie is in it", stolen},
}

func main() {
	if err := table(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "behaviour:", err)
		os.Exit(1)
	}
}

func table(w io.Writer) error {
	all := libraries()
	head, line := []string{""}, []string{"---"}
	for _, l := range all {
		head, line = append(head, l.name), append(line, "---")
	}
	print := func(cells []string) { fmt.Fprintln(w, "| "+strings.Join(cells, " | ")+" |") }
	print(head)
	print(line)
	for _, r := range rows {
		cells := []string{r.situation}
		for _, l := range all {
			text, err := r.on(l)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", l.name, r.situation, err)
			}
			cells = append(cells, text)
		}
		print(cells)
	}
	return nil
}

// on tells what happens with a library.
func (r row) on(l library) (string, error) {
	s, err := open(l)
	if err != nil {
		return "", err
	}
	defer s.close()
	return r.happens(s)
}
