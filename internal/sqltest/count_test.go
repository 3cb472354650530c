package sqltest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/session2/session2"
	progress "github.com/session2/session2/internal/tally"
	"github.com/session2/session2/internal/testsite"
)

// TestSQLCreateDoesNotComeBack loses the answer to a create, and deletes what it
// created before the store looks. It must not create it again.
func TestSQLCreateDoesNotComeBack(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for name, lost := range lostAnswers {
			for _, landed := range []bool{true, false} {
				t.Run(fmt.Sprint(name, " landed ", landed), func(t *testing.T) {
					table := sqlTable(t.TempDir())
					db, tap := tap(t, sys.driver, dsn)
					store := sys.store(t, db, session2.SQLOptions{Table: table})
					other := sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{Table: table})
					testsite.Must(t, store.Setup(t.Context()))
					rec, drop, inserts := sqlRecord(1), once("INSERT", lost), 0
					count := func(query string) error {
						if strings.HasPrefix(query, "INSERT") {
							inserts++
						}
						return nil
					}
					if landed {
						tap.tamper(count, func(query string) error {
							err := drop(query)
							if err != nil {
								n, err := other.DeleteUser(t.Context(), rec.User)
								if n != 1 || err != nil {
									t.Errorf("DeleteUser: got %d, %v, want 1", n, err)
								}
							}
							return err
						})
					} else {
						tap.tamper(func(query string) error { count(query); return drop(query) }, nil)
					}
					if err := store.Save(t.Context(), rec, 0); !errors.Is(err, session2.ErrUncertain) {
						t.Errorf("got %v, want %v", err, session2.ErrUncertain)
					}
					if found, err := other.Has(t.Context(), rec.ID); found || err != nil || inserts != 1 {
						t.Errorf("got %v, %v after %d inserts, want no record after one", found, err, inserts)
					}
				})
			}
		}
	})
}

// TestSQLCreateDoesNotComeBackOnTheWire is the same with a real connection.
func TestSQLCreateDoesNotComeBackOnTheWire(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		p, proxied := viaProxy(t, dsn)
		table := sqlTable(t.TempDir())
		store, _ := sys.warm(t, proxied, table)
		other, _ := sys.warm(t, dsn, table)
		rec := sqlRecord(1)
		p.Refuse(true)
		dropped := p.DropAnswer()
		saved := make(chan error, 1)
		go func() { saved <- store.Save(t.Context(), rec, 0) }()
		<-dropped
		if n, err := other.DeleteUser(t.Context(), rec.User); n != 1 || err != nil {
			t.Errorf("DeleteUser: got %d, %v, want 1", n, err)
		}
		p.Refuse(false)
		if err := <-saved; !errors.Is(err, session2.ErrUncertain) {
			t.Errorf("got %v, want %v", err, session2.ErrUncertain)
		}
		if found, err := other.Has(t.Context(), rec.ID); found || err != nil {
			t.Errorf("got %v, %v, want no record", found, err)
		}
	})
}

// TestSQLRefusedAfterLostAnswer finds that a refusal says nothing where an
// earlier attempt may have landed.
func TestSQLRefusedAfterLostAnswer(t *testing.T) {
	no := map[string]error{"postgres": &pq.Error{Code: "42501"}, "mysql": &mysql.MySQLError{Number: 1142}}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, tap := sys.tapped(t, dsn)
		rec := sqlRecord(1)
		testsite.Must(t, store.Save(t.Context(), rec, 0))
		next := rec
		next.Version++
		for what, call := range map[string]func() error{
			"UPDATE": func() error { return store.Save(t.Context(), next, rec.Version) },
			"DELETE": func() error { return store.Delete(t.Context(), rec.ID) },
		} {
			asked := 0
			tap.tamper(func(string) error {
				if asked++; asked > 1 {
					return no[sys.name]
				}
				return nil
			}, once(what, io.ErrUnexpectedEOF))
			if err := call(); !errors.Is(err, session2.ErrUncertain) || errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s: got %v, want %v", what, err, session2.ErrUncertain)
			}
		}
	})
}

// deletions are the calls that count what they delete.
var deletions = map[string]func(context.Context, sqlStore) (int, error){
	"DeleteUser": func(ctx context.Context, s sqlStore) (int, error) { return s.DeleteUser(ctx, "ada") },
	"DeleteOld":  func(ctx context.Context, s sqlStore) (int, error) { return s.DeleteOld(ctx, time.Hour) },
}

// deletable returns a store over rows that each of the deletions deletes.
func (sys sqlSystem) deletable(t *testing.T, dsn string, rows int) (_ sqlStore, _ *tappedDriver, left func() int) {
	t.Helper()
	_, db, table := sys.filled(t, dsn, sqlRows{from: 1, to: rows, user: "ada", expires: "{now}-i"})
	pool, tapped := tap(t, sys.driver, dsn)
	return sys.store(t, pool, session2.SQLOptions{Table: table}), tapped, func() (n int) {
		testsite.Must(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
		return n
	}
}

// TestSQLLostCount loses the answer to one of the statements that delete: all
// is deleted, and the number is exact, or comes with an error.
func TestSQLLostCount(t *testing.T) {
	t.Parallel()
	const rows = 2500
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for name, lost := range lostAnswers {
			for what, del := range deletions {
				for _, landed := range []bool{true, false} {
					store, tapped, left := sys.deletable(t, dsn, rows)
					drop := once("DELETE", lost)
					if landed {
						tapped.tamper(nil, drop)
					} else {
						tapped.tamper(drop, nil)
					}
					n, err := del(t.Context(), store)
					exact := n == rows && err == nil
					uncounted := landed && n < rows && errors.Is(err, session2.ErrUncertain)
					if left() != 0 || !exact && !uncounted {
						t.Errorf("%s, %s, landed %v: got %d, %v, and %d left; want none left, and %d or %v",
							what, name, landed, n, err, left(), rows, session2.ErrUncertain)
					}
				}
			}
		}
	})
}

// TestSQLUnfinished ends a context between two batches: the error is the
// context's own, and the number that of what is gone.
func TestSQLUnfinished(t *testing.T) {
	const rows = 2500
	other := map[error]error{context.Canceled: context.DeadlineExceeded, context.DeadlineExceeded: context.Canceled}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for want, not := range other {
			for what, del := range deletions {
				store, tapped, left := sys.deletable(t, dsn, rows)
				ctx, end := context.WithCancel(t.Context())
				if want == context.DeadlineExceeded {
					ctx, end = context.WithTimeout(t.Context(), 500*time.Millisecond)
				}
				deletes := 0
				tapped.tamper(func(query string) error {
					if deletes++; deletes == 3 {
						if want == context.Canceled {
							end()
						}
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}, nil)
				n, err := del(ctx, store)
				end()
				if !errors.Is(err, want) || errors.Is(err, not) {
					t.Errorf("%s: got %v, want %v", what, err, want)
				}
				// The deadline may come in the midst of a statement that then lands.
				if sum := n + left(); sum > rows || want == context.Canceled && sum != rows {
					t.Errorf("%s: got %d, and %d of %d are left", what, n, left(), rows)
				}
			}
		}
	})
}

// errHeld stands for an answer that the server has given and that nobody gets.
var errHeld = errors.New("held")

// TestSQLCalledOffUnderWay ends a context when the server has carried out the
// statement of a batch: by what a driver then says, the number is that of what is
// gone, or the error matches ErrUncertain, too.
func TestSQLCalledOffUnderWay(t *testing.T) {
	t.Parallel()
	const rows = 1100
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		answers := map[string]error{
			"success": nil, "context's": context.Canceled, "connection's": driver.ErrBadConn, "none": errHeld,
			"unclear": map[string]error{
				"postgres": &pq.Error{Code: "XX000"}, "mysql": &mysql.MySQLError{Number: 1105},
			}[sys.name],
		}
		for name, answer := range answers {
			for what, del := range deletions {
				store, tapped, left := sys.deletable(t, dsn, rows)
				ctx, end := context.WithCancel(t.Context())
				release, deletes := make(chan struct{}), 0
				tapped.tamper(nil, func(query string) error {
					if deletes++; deletes != 2 {
						return nil
					}
					end()
					if answer == errHeld {
						<-release
						return context.Canceled
					}
					return answer
				})
				n, err := del(ctx, store)
				close(release)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s, %s: got %v, want %v", what, name, err, context.Canceled)
				}
				if !errors.Is(err, session2.ErrUncertain) || n+left() > rows {
					t.Errorf("%s, %s: got %d, %v, and %d of %d are left; want %v",
						what, name, n, err, left(), rows, session2.ErrUncertain)
				}
				if answer == nil && n+left() != rows {
					t.Errorf("%s: got %d, and %d of %d are left, although the server said how many",
						what, n, left(), rows)
				}
			}
		}
	})
}

// TestSQLCalledOffBefore ends a context before the server has carried out the
// statement of a batch, which it says, or before it is sent: the number is exact
// and the error says nothing else.
func TestSQLCalledOffBefore(t *testing.T) {
	t.Parallel()
	const rows = 1100
	cancelled := map[string]error{"postgres": &pq.Error{Code: "57014"}, "mysql": &mysql.MySQLError{Number: 1205}}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for what, del := range deletions {
			for _, sent := range []bool{true, false} {
				store, tapped, left := sys.deletable(t, dsn, rows)
				ctx, end := context.WithCancel(t.Context())
				deletes := 0
				if sent {
					tapped.tamper(func(string) error {
						if deletes++; deletes == 2 {
							end()
							return cancelled[sys.name]
						}
						return nil
					}, nil)
				} else { // by the one who is told of the progress, as Ctrl-C between two batches
					ctx = progress.With(ctx, func(int) { end() })
				}
				n, err := del(ctx, store)
				if !errors.Is(err, context.Canceled) || errors.Is(err, session2.ErrUncertain) ||
					n == 0 || n+left() != rows {
					t.Errorf("%s, sent %v: got %d, %v, and %d of %d are left; want their number and %v",
						what, sent, n, err, left(), rows, context.Canceled)
				}
			}
		}
	})
}

// TestSQLUncertainThenRefused loses the answer to one batch, and the next is
// refused: the number is not sure, whatever ended the call.
func TestSQLUncertainThenRefused(t *testing.T) {
	t.Parallel()
	const rows = 1100
	no := map[string]error{"postgres": &pq.Error{Code: "42501"}, "mysql": &mysql.MySQLError{Number: 1142}}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for what, del := range deletions {
			store, tapped, left := sys.deletable(t, dsn, rows)
			deletes := 0
			tapped.tamper(func(string) error { // the lost one is asked again
				if deletes++; deletes > 2 {
					return no[sys.name]
				}
				return nil
			}, once("DELETE", driver.ErrBadConn))
			n, err := del(t.Context(), store)
			if n != 0 || left() == rows || !errors.Is(err, session2.ErrUncertain) ||
				!strings.Contains(err.Error(), "more may have been deleted") {
				t.Errorf("%s: got %d, %v, and %d of %d are left; want %v",
					what, n, err, left(), rows, session2.ErrUncertain)
			}
		}
	})
}

// TestSQLCalledOffOnTheWire ends a context when the server's real answer to a
// statement is on its way, and holds that back.
func TestSQLCalledOffOnTheWire(t *testing.T) {
	t.Parallel()
	const rows = 1100
	calls := map[string]func(context.Context, sqlStore) (int, error){
		"Delete": func(ctx context.Context, s sqlStore) (int, error) { return 0, s.Delete(ctx, sqlRowID(1)) },
		"Touch": func(ctx context.Context, s sqlStore) (int, error) {
			return 0, s.Touch(ctx, sqlRowID(1), time.Now(), time.Now().Add(time.Hour))
		},
	}
	maps.Copy(calls, deletions)
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for what, call := range calls {
			p, proxied := viaProxy(t, dsn)
			_, db, table := sys.filled(t, dsn, sqlRows{from: 1, to: rows, user: "ada", expires: "{now}-i"})
			pool, tapped := tap(t, sys.driver, proxied)
			store := sys.store(t, pool, session2.SQLOptions{Table: table})
			ctx, end := context.WithCancel(t.Context())
			asked := 0
			tapped.tamper(func(string) error {
				if asked++; asked == 2 || what == "Delete" || what == "Touch" {
					held := p.HoldAnswer()
					go func() { <-held; end() }()
				}
				return nil
			}, nil)
			n, err := call(ctx, store)
			p.Cut() // lib/pq would wait for good when the pool is closed
			if !errors.Is(err, context.Canceled) || !errors.Is(err, session2.ErrUncertain) {
				t.Errorf("%s: got %d, %v, want %v and %v", what, n, err, context.Canceled, session2.ErrUncertain)
			}
			var left int
			testsite.Must(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&left))
			if what != "Touch" && n+left >= rows {
				t.Errorf("%s: got %d, and %d of %d are left: the server had done what it was asked",
					what, n, left, rows)
			}
		}
	})
}

// TestSQLDeleteUserBesideLogins ends a user's sessions while others of the same
// user begin and are used: what was there before is gone, the number is that of
// what is gone, and nobody fails.
func TestSQLDeleteUserBesideLogins(t *testing.T) {
	const before, workers, logins = 3000, 4, 60
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		_, db, table := sys.filled(t, dsn, sqlRows{from: 1, to: before, user: "alice"})
		pool := openSQL(t, sys.driver, dsn)
		pool.SetMaxIdleConns(2 * workers)
		store := sys.store(t, pool, session2.SQLOptions{Table: table})
		keep := []session2.ID{sqlRowID(1), sqlRowID(2)}
		var wg sync.WaitGroup
		var mu sync.Mutex
		deleted := 0
		for w := range workers {
			wg.Go(func() {
				for i := range logins {
					rec := sqlRecord(1)
					rec.ID = sqlRowID(before + 1 + w*logins + i)
					err := store.Save(t.Context(), rec, 0)
					next := rec
					next.Version++
					if again := store.Save(t.Context(), next, rec.Version); !errors.Is(again, session2.ErrNotFound) {
						err = errors.Join(err, again)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				n, err := store.DeleteUser(t.Context(), "alice", keep...)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				deleted += n
			})
		}
		wg.Wait()
		left := make(map[session2.ID]bool)
		for rec, err := range store.IterUser(t.Context(), "alice") {
			testsite.Must(t, err)
			left[rec.ID] = true
		}
		if want := before + workers*logins; deleted+len(left) != want {
			t.Errorf("got %d deleted and %d left, want %d together", deleted, len(left), want)
		}
		for i := range before {
			if id := sqlRowID(i + 1); left[id] != (i < len(keep)) {
				t.Errorf("session %d, from before: left is %v", i+1, left[id])
			}
		}
		testsite.Must(t, db.Ping())
	})
}

// TestSQLPages lists small records, large ones and small ones again, each once
// and whole.
func TestSQLPages(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, db, table := sys.filled(t, dsn, sqlRows{from: 1, to: 1300, user: "alice"})
		data := map[string]string{
			"postgres": "decode(repeat('61', 300000), 'hex')",
			"mysql":    "repeat('a', 300000)",
		}[sys.name]
		some := map[string]string{
			"postgres": `id > '\x40' AND id < '\x44'`,
			"mysql":    "id > x'40' AND id < x'44'",
		}[sys.name]
		query := fmt.Sprintf("UPDATE %s SET data = %s WHERE %s", table, data, some)
		_, err := db.Exec(query)
		testsite.Must(t, err)
		var sizes int
		testsite.Must(t, db.QueryRow("SELECT sum(octet_length(data)) FROM "+table).Scan(&sizes))
		for name, list := range map[string]func(func(session2.Record, error) bool){
			"Iter": store.Iter(t.Context()), "IterUser": store.IterUser(t.Context(), "alice"),
		} {
			for range 2 { // it may be ranged over again
				seen, size := make(map[session2.ID]bool), 0
				for rec, err := range list {
					testsite.Must(t, err)
					seen[rec.ID] = true
					size += len(rec.Data)
				}
				if len(seen) != 1300 || size != sizes {
					t.Errorf("%s: got %d records and %d bytes, want 1300 and %d", name, len(seen), size, sizes)
				}
			}
		}
	})
}

// BenchmarkSQLRevokeUser ends the 20,000 sessions of one user through a manager,
// which lists them first.
func BenchmarkSQLRevokeUser(b *testing.B) {
	const sessions = 20000
	for _, sys := range sqlSystems {
		b.Run(sys.name, func(b *testing.B) {
			dsn := sys.server(b)
			store, db, table := sys.filled(b, dsn)
			m, err := session2.NewManager(store, session2.Config{})
			testsite.Must(b, err)
			last := 0
			for b.Loop() {
				b.StopTimer()
				sys.fill(b, db, table, sqlRows{from: last + 1, to: last + sessions, user: "ada"})
				last += sessions
				b.StartTimer()
				if n, err := m.RevokeUser(b.Context(), "ada"); n != sessions || err != nil {
					b.Fatalf("got %d, %v, want %d", n, err, sessions)
				}
			}
			b.ReportMetric(float64(sessions*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
