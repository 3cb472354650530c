package command_test

import (
	"context"
	"fmt"

	"github.com/session2/session2"
	"github.com/session2/session2/command"
)

// A program with a scheme of its own, beside file:, postgres: and the others.
func ExampleMain() {
	store := session2.NewMemoryStore()
	store.Save(context.Background(), session2.Record{ID: session2.ID{1}, Version: 1, User: "alice"}, 0)
	schemes := map[string]session2.OpenFunc{
		"mystore": func(context.Context, string) (session2.Store, error) { return store, nil },
	}
	// In main: os.Exit(command.Main(os.Args[1:], schemes))
	status := command.Main([]string{"delete-user", "alice", "-store", "mystore:"}, schemes)
	fmt.Println("exit status", status)
	// Output:
	// deleted 1
	// exit status 0
}
