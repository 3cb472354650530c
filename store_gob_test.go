package session2_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

var ctxGob = context.Background()

func openGob(t testing.TB, path string) *session2.GobStore {
	t.Helper()
	s, err := session2.OpenGobStore(path, &session2.GobOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestGobStoreConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openGob(t, filepath.Join(dir, "sessions.gob"))
	}, &storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
		corruptGob(t, filepath.Join(dir, "sessions.gob"), id)
	}})
}

// corruptGob flips the byte behind the last appearance of the ID, which is in
// the payload of the record's frame.
func corruptGob(t testing.TB, path string, id session2.ID) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := hex.DecodeString(id.String())
	i := bytes.LastIndex(b, raw)
	if i < 0 {
		t.Fatalf("no record %v in the file", id)
	}
	b[i+len(raw)] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
