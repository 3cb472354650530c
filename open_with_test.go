package session2_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/session2/session2"
)

// TestOpenWith opens a store of a scheme that is given, gets the built-in ones as
// before, and finds that nothing was registered for later calls.
func TestOpenWith(t *testing.T) {
	ctx := t.Context()
	own := session2.NewMemoryStore()
	var got string
	schemes := map[string]session2.OpenFunc{
		"own+tls": func(_ context.Context, url string) (session2.Store, error) {
			got = url
			return own, nil
		},
	}
	const url = "own+tls://user:secret@host/path?option=x#part"
	for _, text := range []string{url, strings.Replace(url, "own", "OWN", 1)} {
		if store, err := session2.OpenWith(ctx, text, schemes); store != session2.Store(own) || err != nil || got != text {
			t.Errorf("got %v, %v for %q, want the store of one's own", store, err, got)
		}
	}
	store, err := session2.OpenWith(ctx, "memory:", schemes)
	if _, ok := store.(*session2.MemoryStore); !ok || err != nil {
		t.Errorf("memory: got %T, %v", store, err)
	}
	if _, err := session2.OpenWith(ctx, "other:x", schemes); err == nil || !strings.Contains(err.Error(), "own+tls") {
		t.Errorf("got %v, want the schemes there are", err)
	}
	store, err = session2.Open(ctx, url)
	if err == nil || store != nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Open: got %v, %v, want it not to know the scheme", store, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := session2.OpenWith(ended, url, schemes); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// The error of a malformed option says what the option takes, in words that are not Go's.
func TestOpenSaysWhatAnOptionTakes(t *testing.T) {
	for url, want := range map[string]string{
		"bolt:x?timeout=5":                "option timeout: not a duration such as 5s",
		"file:x?timeout=5":                "option timeout: not a duration such as 5s",
		"gob:x?nosync=maybe":              "option nosync: not true or false",
		"postgres://localhost/x?conns=-1": "option conns: not a number",
	} {
		store, err := session2.Open(t.Context(), url)
		if store != nil || err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", url, err, want)
		}
	}
}

// Who gives Open a URL of another module's store is told which module that is.
func TestOpenNamesTheModule(t *testing.T) {
	for url, want := range map[string]string{
		"sqlite:x.db": "stores/sqlite,", "redis://h/0": "stores/redis,", "rediss://h/0": "stores/redis,",
	} {
		if _, err := session2.Open(t.Context(), url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", url, err, want)
		}
	}
}

// TestOpenWithRefusesSchemes gives schemes that would never be used, or would change
// what a URL of the library means.
func TestOpenWithRefusesSchemes(t *testing.T) {
	open := func(context.Context, string) (session2.Store, error) { return session2.NewMemoryStore(), nil }
	schemes := map[string]session2.OpenFunc{"good": open, "none": nil, "Upper": open, "": open, "a b": open}
	for _, scheme := range []string{"file", "bolt", "gob", "memory", "postgres", "postgresql", "mysql"} {
		schemes[scheme] = open
	}
	store, err := session2.OpenWith(t.Context(), "good:", schemes)
	if store != nil || err == nil {
		t.Fatalf("got %v, %v, want an error", store, err)
	}
	for scheme := range schemes {
		if says := strings.Contains(err.Error(), fmt.Sprintf("%q", scheme)); says != (scheme != "good") {
			t.Errorf("got %v; it names %q: %v", err, scheme, says)
		}
	}
}

// A program that knows one more kind of store.
func ExampleOpenWith() {
	schemes := map[string]session2.OpenFunc{ // "sqlite": sqlite.Open
		"mine": func(context.Context, string) (session2.Store, error) { return session2.NewMemoryStore(), nil },
	}
	store, err := session2.OpenWith(context.Background(), "mine:sessions", schemes)
	fmt.Printf("%T %v\n", store, err)
	// Output: *session2.MemoryStore <nil>
}
