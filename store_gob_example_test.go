package session2_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/session2/session2"
)

func ExampleOpenGobStore() {
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := session2.OpenGobStore(filepath.Join(dir, "sessions.gob"), nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	ctx := context.Background()
	now := time.Now()
	rec := session2.Record{ID: session2.ID{1}, Version: 1, User: "ada",
		Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: []byte("hello")}
	if err := store.Save(ctx, rec, 0); err != nil {
		panic(err)
	}
	got, err := store.Load(ctx, rec.ID)
	fmt.Println(got.User, string(got.Data), err)
	// Output: ada hello <nil>
}
