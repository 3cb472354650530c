package session2_test

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
		store := sys.store(t, pool, session2.SQLOptions{Table: table})
		must(t, store.Setup(t.Context()))
		n, err := deadlocked(t, sys, db, table, store)
		if n != 2 || err != nil {
			t.Errorf("got %d, %v, want 2 deleted", n, err)
		}
		if got := tap.failures(); got != 1 {
			t.Errorf("%d statements failed, want one deadlock", got)
		}
	})
}

// deadlocked runs DeleteUser over two rows that a transaction takes the other
// way round.
func deadlocked(t *testing.T, sys sqlSystem, db *sql.DB, table string, store sqlStore) (n int, err error) {
	t.Helper()
	for b := range byte(10) {
		rec := sqlRecord(b + 1)
		if b >= 2 {
			rec.User = ""
		}
		must(t, store.Save(t.Context(), rec, 0))
	}
	tx, err := db.Begin()
	must(t, err)
	defer tx.Rollback()
	for b := byte(10); b >= 2; b-- { // more than two rows: InnoDB's victim is who has changed less
		must(t, lockRow(tx, sys, table, session2.ID{b}))
	}
	done := make(chan struct{})
	go func() {
		n, err = store.DeleteUser(context.Background(), "alice")
		close(done)
	}()
	waitForLock(t, sys, db, table)
	must(t, lockRow(tx, sys, table, session2.ID{1}))
	must(t, tx.Rollback())
	<-done
	return n, err
}

func lockRow(tx *sql.Tx, sys sqlSystem, table string, id session2.ID) error {
	arg := map[string]string{"postgres": "$1", "mysql": "?"}[sys.name]
	_, err := tx.Exec("UPDATE "+table+" SET created = created + 1 WHERE id = "+arg, id[:])
	return err
}

// waitForLock waits until a statement on the table waits for a lock.
func waitForLock(t *testing.T, sys sqlSystem, db *sql.DB, table string) {
	t.Helper()
	query := map[string]string{
		"postgres": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1",
		"mysql":    "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE ?",
	}[sys.name]
	// InnoDB shows news only to those who have not asked for a tenth of a second.
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(120 * time.Millisecond) {
		var n int
		must(t, db.QueryRow(query, "%"+table+"%").Scan(&n))
		if n > 0 {
			return
		}
	}
	t.Fatal("nothing waits for the row")
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
		store := sys.store(t, pool, session2.SQLOptions{Timeout: time.Minute})
		must(t, store.Setup(t.Context()))
		var wg sync.WaitGroup
		for g := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, g))
			wg.Go(func() {
				for range 60 {
					if what, err := contend(t.Context(), store, rng); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
		}
		wg.Wait()
		t.Logf("the database aborted %d statements", tap.failures())
		if tap.failures() == 0 {
			t.Error("none was aborted: nothing was tested")
		}
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
		store := sys.store(t, pool, session2.SQLOptions{})
		must(t, store.Setup(t.Context()))
		st := newSite(t, store, session2.Config{CommitTimeout: time.Minute})
		b := st.login("alice")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 8 {
					if res := st.do(b.clone(), increment); res.StatusCode != 200 {
						t.Errorf("status %d", res.StatusCode)
					}
				}
			})
		}
		wg.Wait()
		if n, _ := st.counted(b); n != 64 {
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
			store := sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{})
			rec := sqlRecord(1)
			must(t, store.Setup(t.Context()))
			must(t, store.Save(t.Context(), rec, 0))
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
