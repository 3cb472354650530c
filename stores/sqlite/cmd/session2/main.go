// Session2 is the command line of package
// [github.com/session2/session2/command] for programs whose sessions are in SQLite: it
// knows URLs such as sqlite:sessions.db beside the library's own.
package main

import (
	"os"

	_ "modernc.org/sqlite"

	"github.com/session2/session2"
	"github.com/session2/session2/command"
	"github.com/session2/session2/stores/sqlite"
)

func main() {
	os.Exit(command.Main(os.Args[1:], map[string]session2.OpenFunc{"sqlite": sqlite.Open}))
}
