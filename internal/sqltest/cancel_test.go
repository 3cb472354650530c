package sqltest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// TestOpenHeedsContexts finds that a call ends with its context although the server is silent
// to it, and, of PostgreSQL, to the request to cancel it: whatever else there is that would
// end it.
func TestOpenHeedsContexts(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		patient := "&timeout=2m"
		if sys.name == "postgres" {
			patient += "&connect_timeout=120"
		}
		for _, options := range []string{patient, "&timeout=-1s"} {
			testHeedsContexts(t, sys, dsn, options)
		}
	})
}

func testHeedsContexts(t *testing.T, sys sqlSystem, dsn, options string) {
	p, proxied := viaProxy(t, dsn)
	table, rec := sqlTable(t.TempDir()), sqlRecord(1)
	store := sys.opened(t, proxied, options+"&table="+table)
	book := &testsite.Log{}
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(book.Logger())
	testsite.Must(t, store.Setup(t.Context()))
	testsite.Must(t, store.Save(t.Context(), rec, 0))
	for what, call := range map[string]func(context.Context) error{
		"load":   func(ctx context.Context) error { _, err := store.Load(ctx, rec.ID); return err },
		"delete": func(ctx context.Context) error { return store.Delete(ctx, sqlRecord(2).ID) },
	} {
		for range 2 { // the second one while the server has been heard just now
			testsite.Must(t, call(t.Context()))
		}
		p.Hang(true)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		bounded(t, what+options, context.DeadlineExceeded, func() error { return call(ctx) })
		cancel()
		p.Hang(false)
	}
	if text := book.String(); text != "" {
		t.Errorf("got the log %q, want nothing of connections that the store ended", text)
	}
}

// TestOpenCancelledConnection finds that a connection is of no use to others once a call of it
// was cancelled, also if the server has answered that at once: it is closed soon.
func TestOpenCancelledConnection(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for name, call := range map[string]func(context.Context, sqlStore) error{
			"create":      func(ctx context.Context, s sqlStore) error { return s.Save(ctx, sqlRecord(2), 0) },
			"delete":      func(ctx context.Context, s sqlStore) error { return s.Delete(ctx, sqlRecord(3).ID) },
			"delete user": func(ctx context.Context, s sqlStore) error { _, err := s.DeleteUser(ctx, "alice"); return err },
			"delete old":  func(ctx context.Context, s sqlStore) error { _, err := s.DeleteOld(ctx, time.Hour); return err },
		} {
			t.Run(name, func(t *testing.T) { testCancelledConnection(t, sys, dsn, call) })
		}
	})
}

func testCancelledConnection(t *testing.T, sys sqlSystem, dsn string, call func(context.Context, sqlStore) error) {
	table, rec, ctx := sqlTable(t.TempDir()), sqlRecord(1), t.Context()
	store := sys.opened(t, dsn, "&conns=1&timeout=1m&table="+table)
	testsite.Must(t, store.Setup(ctx))
	testsite.Must(t, store.Save(ctx, rec, 0))
	old := sqlRecord(4)
	old.Accessed = old.Accessed.Add(-48 * time.Hour)
	testsite.Must(t, store.Save(ctx, old, 0))
	testsite.Must(t, store.Delete(ctx, sqlRecord(3).ID)) // its statement is prepared
	tx, err := openSQL(t, sys.driver, dsn).Begin()
	testsite.Must(t, err)
	defer tx.Rollback()
	lock := `SELECT id FROM ` + table + ` FOR UPDATE`
	if sys.name == "postgres" {
		lock = `LOCK TABLE ` + table + ` IN EXCLUSIVE MODE`
	}
	_, err = tx.Exec(lock)
	testsite.Must(t, err)
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := store.Delete(short, rec.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("delete from a locked table: got %v, want %v", err, context.DeadlineExceeded)
	}
	if sys.name == "postgres" { // which was asked to cancel
		db := openSQL(t, sys.driver, dsn)
		testsite.Must(t, until(func() (bool, error) { return waiting(t, sys, db, table) == 0, nil }))
	}
	time.AfterFunc(300*time.Millisecond, func() { tx.Rollback() }) // when the socket is long closed
	if err := call(ctx, store); err != nil {
		t.Errorf("then: got %v (uncertain: %v), want nil", err, errors.Is(err, session2.ErrUncertain))
	}
}
