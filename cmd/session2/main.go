// Session2 looks after the sessions in a store: it lists, counts, checks, deletes and
// copies them. Run session2 help, or see package
// [github.com/session2/session2/command], which also makes such a program of one's
// own, with stores that are not the library's.
package main

import (
	"os"

	"github.com/session2/session2/command"
)

func main() { os.Exit(command.Main(os.Args[1:], nil)) }
