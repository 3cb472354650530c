package session2_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/session2/session2"
)

func TestOpen(t *testing.T) {
	for i, test := range []struct {
		url  string // with % for a path
		caps session2.Capabilities
	}{
		{"memory:", session2.Capabilities{ThreadSafe: true}},
		{"file:%", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true}},
		{"file:%?nosync=true", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true}},
		{"bolt:%", session2.Capabilities{ThreadSafe: true, Durable: true}},
		{"bolt:%?timeout=3s&nosync=1", session2.Capabilities{ThreadSafe: true}},
		{"gob:%", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true}},
		{"gob://%?nosync=false", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true}},
		{"gob:%?nosync=true", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true}},
	} {
		t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
			path := filepath.ToSlash(filepath.Join(t.TempDir(), "store"))
			store, err := session2.Open(t.Context(), strings.Replace(test.url, "%", path, 1))
			if err != nil {
				t.Fatal(err)
			}
			defer closeStore(t, store)
			if got := store.(session2.CapableStore).Capabilities(); got != test.caps {
				t.Errorf("capabilities %+v, want %+v", got, test.caps)
			}
		})
	}
}

func TestOpenRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	store, err := session2.Open(t.Context(), "bolt:a%20b.db")
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, store)
	if list, _ := filepath.Glob("a b.db"); len(list) != 1 {
		t.Error("the file is not where the URL says")
	}
}

func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"":                             "there are file, bolt",
		"sessions":                     "scheme",
		"redis:localhost":              "redis",
		"file:":                        "names no path",
		"bolt:":                        "names no path",
		"memory:x":                     "memory:",
		"file://host/path":             "without host",
		"file:x#y":                     "fragment",
		"file:x?color=green":           `unknown option "color"`,
		"file:x?nosync=perhaps":        "nosync",
		"bolt:x?timeout=soon":          "timeout",
		"bolt:x?timeout=1s&timeout=2s": `"timeout" is given more than once`,
		"bolt:x?timeout=1s;nosync=1":   "malformed options",
		"bolt:x?timeout=%zz":           "malformed options",
		"memory:?nosync=true":          `unknown option "nosync"`,
		"file:%zz":                     "URL",
		"postgres://u:hunter2@h:x/db":  "URL",
		"pg://u:hunter2@h/db":          "postgres",
	} {
		store, err := session2.Open(t.Context(), url)
		if store != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) = %v, %v; want an error with %q", url, store, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := session2.Open(ctx, "memory:"); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a context that has ended: %v", err)
	}
}

// TestOpenMySQLTLS finds that the driver expects the certificate of the URL's
// host.
func TestOpenMySQLTLS(t *testing.T) {
	for url, want := range map[string]string{
		"mysql://u@db.example:3307/db?tls=true": "db.example",
		"mysql://u@db.example/db?tls=true":      "db.example",
		"mysql://u@[::1]/db?tls=true":           "::1",
	} {
		if got, err := session2.MySQLServerName(url); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", url, got, err, want)
		}
	}
}
