package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// hasty returns the name of the server's data with settings that make its
// sessions collide, and find out soon.
func (sys sqlSystem) hasty(t testing.TB, dsn string) string {
	t.Helper()
	settings := url.Values{"default_transaction_isolation": {"serializable"}, "deadlock_timeout": {"20ms"}}
	if sys.name == "mysql" {
		settings = url.Values{"tx_isolation": {"'SERIALIZABLE'"}}
	}
	sep := "?"
	if strings.Contains(dsn, "?") {
		sep = "&"
	}
	return dsn + sep + settings.Encode()
}

// TestSQLDeadlock makes a real deadlock: somebody else's transaction and a batch
// of DeleteUser take the same two rows in opposite orders, and the batch is the
// victim. It is asked again, and nobody hears of it. (DeleteOld waits for no
// row.)
func TestSQLDeadlock(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db, table := openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
		pool, tap := tap(t, sys.driver, sys.hasty(t, dsn))
		store := sys.store(t, pool, session2.SQLOptions{Table: table, Timeout: -1})
		testsite.Must(t, store.Setup(t.Context()))
		n, err := deadlocked(t, sys, db, table, store)
		if n != 3 || err != nil {
			t.Errorf("got %d, %v, want 3 deleted", n, err)
		}
		// More than one, if the second attempt has the first row before the other
		// transaction, which waits for it, wakes up.
		if tap.failures() == 0 {
			t.Error("no statement failed: there was no deadlock")
		}
	})
}

// deadlocked runs DeleteUser over three rows. A gate holds the second until
// another transaction, which has the third, waits for the first: so it is the
// DELETE that closes the circle, and whoever does that is PostgreSQL's victim.
// InnoDB's is who has changed less: so the other one has changed more rows.
func deadlocked(t *testing.T, sys sqlSystem, db *sql.DB, table string, store sqlStore) (n int, err error) {
	t.Helper()
	for b := range byte(12) {
		rec := sqlRecord(b + 1)
		if b >= 3 {
			rec.User = ""
		}
		testsite.Must(t, store.Save(t.Context(), rec, 0))
	}
	gate, other := begin(t, db), begin(t, db)
	if sys.name == "postgres" { // each waiter looks for a circle once, after this time
		_, err := other.Exec("SET LOCAL deadlock_timeout = '1h'")
		testsite.Must(t, err)
	}
	testsite.Must(t, lockRow(gate, sys, table, session2.ID{2}))
	for b := byte(12); b >= 3; b-- {
		testsite.Must(t, lockRow(other, sys, table, session2.ID{b}))
	}
	deleted, locked := make(chan struct{}), make(chan error, 1)
	go func() {
		n, err = store.DeleteUser(context.Background(), "alice")
		close(deleted)
	}()
	waitForLocks(t, sys, db, table, 1)
	go func() { locked <- lockRow(other, sys, table, session2.ID{1}) }()
	waitForLocks(t, sys, db, table, 2)
	testsite.Must(t, gate.Rollback())
	testsite.Must(t, <-locked)
	testsite.Must(t, other.Rollback())
	<-deleted
	return n, err
}

func begin(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.Begin()
	testsite.Must(t, err)
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

func lockRow(tx *sql.Tx, sys sqlSystem, table string, id session2.ID) error {
	arg := map[string]string{"postgres": "$1", "mysql": "?"}[sys.name]
	_, err := tx.Exec("UPDATE "+table+" SET created = created + 1 WHERE id = "+arg, id[:])
	return err
}

// waitForLocks waits until so many statements on the table wait for a lock.
func waitForLocks(t *testing.T, sys sqlSystem, db *sql.DB, table string, want int) {
	t.Helper()
	// InnoDB shows news only to those who have not asked for a tenth of a second.
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(120 * time.Millisecond) {
		if waiting(t, sys, db, table) >= want {
			return
		}
	}
	t.Fatalf("no %d statements wait for rows", want)
}

// waiting returns how many statements wait for rows of the table, or for all of it.
func waiting(t *testing.T, sys sqlSystem, db *sql.DB, table string) (n int) {
	t.Helper()
	query := map[string]string{
		"postgres": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1",
		"mysql": "SELECT count(*) FROM information_schema.innodb_trx" +
			" WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE ?",
	}[sys.name]
	testsite.Must(t, db.QueryRow(query, "%"+table+"%").Scan(&n))
	return n
}

// TestSQLContention lets goroutines do everything to a few rows at once, under
// serializable isolation: what the database aborts is asked again, and nobody
// hears of anything but conflicts.
func TestSQLContention(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		pool, tap := tap(t, sys.driver, sys.hasty(t, dsn))
		pool.SetMaxIdleConns(6)
		store := sys.store(t, pool, session2.SQLOptions{Timeout: -1})
		testsite.Must(t, store.Setup(t.Context()))
		var wg sync.WaitGroup
		for g := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, g))
			wg.Go(func() {
				for i := 0; (i < 60 || tap.failures() == 0) && !t.Failed(); i++ { // until the database aborted some
					if what, err := contend(t.Context(), store, rng); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
		}
		wg.Wait()
		t.Logf("the database aborted %d statements", tap.failures())
	})
}

// contend does something to one row of three, or to all of them.
func contend(ctx context.Context, store sqlStore, rng *rand.Rand) (what string, err error) {
	rec := sqlRecord(byte(1 + rng.IntN(3)))
	switch rng.IntN(8) {
	case 0:
		return "delete", store.Delete(ctx, rec.ID)
	case 1:
		_, err := store.DeleteUser(ctx, rec.User)
		return "delete user", err
	case 2:
		_, err := store.DeleteOld(ctx, 0)
		return "delete old", err
	case 3:
		return "touch", store.Touch(ctx, rec.ID, rec.Accessed.Add(time.Second), rec.Expires)
	}
	old, err := store.Load(ctx, rec.ID)
	if err != nil && !errors.Is(err, session2.ErrNotFound) {
		return "load", err
	}
	rec.Version = session2.Version(rng.Uint64() | 1)
	err = store.Save(ctx, rec, old.Version)
	if errors.Is(err, session2.ErrConflict) || errors.Is(err, session2.ErrNotFound) {
		err = nil
	}
	return fmt.Sprint("save over ", old.Version), err
}

// TestSQLSerializableIncrements counts under serializable isolation.
func TestSQLSerializableIncrements(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		pool := openSQL(t, sys.driver, sys.hasty(t, dsn))
		pool.SetMaxIdleConns(8)
		store := sys.store(t, pool, session2.SQLOptions{Timeout: -1})
		testsite.Must(t, store.Setup(t.Context()))
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Hour})
		b := st.Login("alice")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 8 {
					if res := st.Do(b.Clone(), increment); res.StatusCode != 200 {
						t.Errorf("status %d", res.StatusCode)
					}
				}
			})
		}
		wg.Wait()
		if n, _ := counted(st, b); n != 64 {
			t.Errorf("counted %d, want 64", n)
		}
	})
}

// TestSQLFullServer loads more records at once than the store has connections,
// while others hold all that the server has left: the calls share those that the
// pool has.
func TestSQLFullServer(t *testing.T) {
	for _, sys := range sqlSystems {
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			dsn := sys.private(t, "max_connections = 10").DSN()
			pool := openSQL(t, sys.driver, dsn)
			pool.SetMaxIdleConns(2)
			store := sys.store(t, pool, session2.SQLOptions{Timeout: -1})
			rec := sqlRecord(1)
			testsite.Must(t, store.Setup(t.Context()))
			testsite.Must(t, store.Save(t.Context(), rec, 0))
			others := openSQL(t, sys.driver, dsn)
			for {
				c, err := others.Conn(t.Context())
				if err != nil {
					t.Log(err)
					break
				}
				defer c.Close()
			}
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := store.Load(t.Context(), rec.ID); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}
