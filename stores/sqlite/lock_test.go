package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/stores/sqlite"
)

// lock takes the lock of writers, as a transaction of the application does, and returns
// what gives it back.
func lock(t testing.TB, db *sql.DB) (unlock func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	c, err := db.Conn(ctx)
	must(t, err)
	_, err = c.ExecContext(ctx, "BEGIN IMMEDIATE")
	must(t, err)
	return sync.OnceFunc(func() {
		_, err := c.ExecContext(ctx, "COMMIT")
		must(t, errors.Join(err, c.Close()))
	})
}

// TestLockedForLong has the application hold the lock: calls end with their context, and
// with the store's timeout where that has no end, also where the application has
// SQLite wait for a minute. Afterwards all goes on.
func TestLockedForLong(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		for _, wait := range []string{"0", "60000"} {
			path := filepath.Join(t.TempDir(), "app.db")
			db := sys.open(t, strings.NewReplacer("busy_timeout(100)", "busy_timeout("+wait+")",
				"_busy_timeout=100", "_busy_timeout="+wait).Replace(sys.dsn(path)))
			s := store(t, db)
			hasty := store(t, db)
			hasty.SetTimeout(30 * time.Millisecond)
			must(t, s.Save(t.Context(), record(1), 0))

			unlock := lock(t, db)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			for name, err := range map[string]error{
				"a context": s.Save(ctx, record(2), 0),
				"a timeout": hasty.Delete(t.Context(), record(1).ID),
			} {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s, busy_timeout %s: got %v, want %v", name, wait, err, context.DeadlineExceeded)
				}
			}
			cancel()
			if took := time.Since(start); took > 50*time.Second {
				t.Errorf("busy_timeout %s: the calls took %v", wait, took)
			}
			if _, err := s.Load(t.Context(), record(1).ID); err != nil {
				t.Errorf("a reader beside the lock: %v", err)
			}
			n, err := hasty.DeleteOld(t.Context(), 0)
			if n != 0 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("DeleteOld: got %d, %v, want %v", n, err, context.DeadlineExceeded)
			}
			done := make(chan error, 1)
			go func() { done <- s.Save(t.Context(), record(3), 0) }()
			unlock()
			must(t, <-done)
		}
	})
}

// TestLockedToTheEnd has a file locked for longer than a call has time, with each of its
// tries waiting in the driver for a while: the call says that the file is locked, and that
// nothing was changed. A driver whose context ends in the middle tells neither.
func TestLockedToTheEnd(t *testing.T) {
	for _, busy := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			tries := 0
			err := sqlite.Retry(ctx, func(ctx context.Context) error {
				tries++
				select {
				case <-time.After(busy):
					return errors.New("database is locked (5) (SQLITE_BUSY)")
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if !errors.Is(err, context.DeadlineExceeded) || !sqlite.NotDone(err) ||
				!strings.Contains(err.Error(), "database is locked") || tries < 5 {
				t.Errorf("each try takes %v: after %d got %v, want that the file is locked, and nothing changed",
					busy, tries, err)
			}
		})
	}
}

// TestBesideTransactions counts in a table of the application, by transactions of which
// every other one is rolled back, while sessions are saved by the same pool.
func TestBesideTransactions(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		db := sys.file(t, filepath.Join(t.TempDir(), "app.db"))
		s := store(t, db)
		ctx := t.Context()
		_, err := db.Exec("CREATE TABLE app (n INTEGER); INSERT INTO app VALUES (0)")
		must(t, err)
		const rounds = 20
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range rounds {
				if err := transact(ctx, db, i%2 == 0); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range 3 {
			wg.Go(func() {
				rec := record(byte(i + 1))
				err := s.Save(ctx, rec, 0)
				for range rounds {
					next := rec
					next.Version++
					err = errors.Join(err, s.Save(ctx, next, rec.Version))
					rec = next
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i := range 3 {
			rec, err := s.Load(ctx, record(byte(i+1)).ID)
			if want := record(byte(i+1)).Version + rounds; err != nil || rec.Version != want {
				t.Errorf("got version %d, %v, want %d", rec.Version, err, want)
			}
		}
		var n int
		must(t, db.QueryRow("SELECT n FROM app").Scan(&n))
		if n != rounds/2 {
			t.Errorf("the application counted to %d, want %d", n, rounds/2)
		}
	})
}

// TestLostAnswers has the disk fail after a statement was carried out: a Save that is
// asked again finds that it landed, and a number that may be too small says so.
func TestLostAnswers(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		path := filepath.Join(t.TempDir(), "app.db")
		flaky := &flakyConnector{driver: sys.file(t, path).Driver(), dsn: sys.dsn(path)}
		db := sql.OpenDB(flaky)
		defer db.Close()
		s := store(t, db)
		ctx := t.Context()
		failing := func(f func() error) error {
			flaky.lose.Store(true)
			defer flaky.lose.Store(false)
			return f()
		}
		rec := record(1)
		next := rec
		next.Version++
		for _, save := range []func() error{
			func() error { return s.Save(ctx, rec, 0) },
			func() error { return s.Save(ctx, next, rec.Version) },
		} {
			err := failing(save)
			if err == nil || errors.Is(err, session2.ErrConflict) || errors.Is(err, session2.ErrNotFound) {
				t.Errorf("got %v, want an error that leaves it open", err)
			}
			must(t, save())
		}
		if got, err := s.Load(ctx, rec.ID); err != nil || got.Version != next.Version {
			t.Errorf("got version %d, %v, want %d", got.Version, err, next.Version)
		}
		err := failing(func() error { _, err := s.DeleteUser(ctx, "alice"); return err })
		if !errors.Is(err, session2.ErrUncertain) {
			t.Errorf("DeleteUser: got %v, want %v", err, session2.ErrUncertain)
		}
		old := record(2)
		old.Expires = old.Created
		must(t, s.Save(ctx, old, 0))
		err = failing(func() error { _, err := s.DeleteOld(ctx, time.Hour); return err })
		if err == nil {
			t.Error("DeleteOld: got no error")
		}
	})
}
