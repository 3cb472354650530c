package sqltest

import (
	"context"
	"crypto/md5"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// benchRecords is the size of the tables that tests and benchmarks of sweeps
// fill: SESSION2_BENCH_RECORDS, or a few.
func benchRecords(t testing.TB, few int) int {
	t.Helper()
	text := os.Getenv("SESSION2_BENCH_RECORDS")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < few {
		t.Fatalf("SESSION2_BENCH_RECORDS=%s: want a number from %d on", text, few)
	}
	return n
}

// sqlRows are rows that the server makes by itself, numbered by i. Times are SQL
// in microseconds, over i and {now}.
type sqlRows struct {
	from, to                    int
	data                        int // bytes, by default 304
	user                        string
	accessed, expires           string
	filedAccessed, filedExpires string // by default where they belong
}

var sqlFillers = map[string]string{
	"postgres": `INSERT INTO {t} (id, version, username, created, accessed, expires, by_accessed, by_expires, data)
SELECT decode(md5(i::text), 'hex'), 1, '{user}', {now}, {accessed}, {expires}, {filedAccessed}, {filedExpires},
decode(repeat(md5((-i)::text), {data} / 16), 'hex') FROM generate_series({from}::bigint, {to}::bigint) i ORDER BY 1`,
	"mysql": `INSERT INTO {t} (id, version, username, created, accessed, expires, by_accessed, by_expires, data)
SELECT unhex(md5(i)), 1, '{user}', {now}, {accessed}, {expires}, {filedAccessed}, {filedExpires},
unhex(repeat(md5(-i), {data} / 16)) FROM (SELECT seq AS i FROM seq_{from}_to_{to}) numbers ORDER BY 1`,
}

// sqlRowID returns the ID of a row that fill made.
func sqlRowID(i int) session2.ID { return md5.Sum([]byte(strconv.Itoa(i))) }

// fill makes rows.
func (sys sqlSystem) fill(t testing.TB, db *sql.DB, table string, rows sqlRows) {
	t.Helper()
	const live = "{now}+3600000000+i"
	if rows.data == 0 {
		rows.data = 304
	}
	if rows.accessed == "" {
		rows.accessed = "{now}-i%60000000"
	}
	if rows.expires == "" {
		rows.expires = live
	}
	if rows.filedAccessed == "" {
		rows.filedAccessed = rows.accessed
	}
	if rows.filedExpires == "" {
		rows.filedExpires = rows.expires
	}
	query := strings.NewReplacer("{t}", table, "{user}", rows.user, "{data}", strconv.Itoa(rows.data),
		"{from}", strconv.Itoa(rows.from), "{to}", strconv.Itoa(rows.to),
		"{accessed}", rows.accessed, "{expires}", rows.expires,
		"{filedAccessed}", rows.filedAccessed, "{filedExpires}", rows.filedExpires).Replace(sqlFillers[sys.name])
	_, err := db.Exec(strings.ReplaceAll(query, "{now}", strconv.FormatInt(time.Now().UnixMicro(), 10)))
	testsite.Must(t, err)
}

// analyze lets the server know what is in the table, as it would by itself a
// little later.
func (sys sqlSystem) analyze(t testing.TB, db *sql.DB, table string) {
	t.Helper()
	query := map[string]string{"postgres": "ANALYZE ", "mysql": "ANALYZE TABLE "}[sys.name]
	_, err := db.Exec(query + table)
	testsite.Must(t, err)
}

// filled returns a store over a table with rows that live, its database and its
// table.
func (sys sqlSystem) filled(t testing.TB, dsn string, rows ...sqlRows) (store sqlStore, db *sql.DB, table string) {
	t.Helper()
	db, table = openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
	db.SetMaxOpenConns(1) // some counters are a connection's own
	store = sys.store(t, db, session2.SQLOptions{Table: table})
	testsite.Must(t, store.Setup(t.Context()))
	for _, r := range rows {
		sys.fill(t, db, table, r)
	}
	sys.analyze(t, db, table)
	return store, db, table
}

// counters returns what this connection read and wrote in the table.
func (sys sqlSystem) counters(t testing.TB, db *sql.DB, table string) map[string]int {
	t.Helper()
	query := `SHOW SESSION STATUS WHERE Variable_name IN (
'Handler_read_key', 'Handler_read_next', 'Handler_read_rnd_next',
'Handler_icp_attempts', 'Handler_delete', 'Handler_update')`
	if sys.name == "postgres" {
		_, err := db.Exec(`SELECT pg_stat_force_next_flush()`)
		testsite.Must(t, err)
		query = fmt.Sprintf(`SELECT k, v FROM pg_stat_user_tables, LATERAL (VALUES
('seq_scan', seq_scan), ('fetch', idx_tup_fetch), ('delete', n_tup_del), ('update', n_tup_upd)) x (k, v)
WHERE relname = '%[1]s'
UNION ALL SELECT 'read', sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = '%[1]s'`, table)
	}
	rows, err := db.Query(query)
	testsite.Must(t, err)
	defer rows.Close()
	counts := make(map[string]int)
	for rows.Next() {
		var name string
		var n int
		testsite.Must(t, rows.Scan(&name, &n))
		counts[strings.ToLower(strings.TrimPrefix(name, "Handler_"))] = n
	}
	testsite.Must(t, rows.Err())
	return counts
}

// TestSQLSweepTouchesOnlyWhatItDeletes counts the rows that a sweep reads, in a
// table where most of them are live.
func TestSQLSweepTouchesOnlyWhatItDeletes(t *testing.T) {
	const live, old = 20000, 2000
	kinds := map[string]sqlRows{
		"expired":         {expires: "{now}-i"},
		"expired at once": {expires: "{now}-1"},
		"idle":            {accessed: "{now}-7200000000-i"},
		"touched since":   {filedExpires: "{now}-i"},
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for name, rows := range kinds {
			t.Run(name, func(t *testing.T) {
				rows.from, rows.to = live+1, live+old
				store, db, table := sys.filled(t, dsn, sqlRows{from: 1, to: live}, rows)
				want := map[string]int{"delete": old}
				if name == "touched since" {
					want = map[string]int{"update": old}
				}
				sys.wantTouched(t, db, table, want, func() {
					if n, err := store.DeleteOld(t.Context(), time.Hour); n != want["delete"] || err != nil {
						t.Errorf("DeleteOld: got %d, %v, want %d", n, err, want["delete"])
					}
				})
				if n, err := store.DeleteOld(t.Context(), time.Hour); n != 0 || err != nil {
					t.Errorf("a second DeleteOld: got %d, %v, want 0", n, err)
				}
			})
		}
	})
}

// wantTouched wants a sweep to delete and update so many rows and no others,
// to read each three times at most, to find, lock and change it, and to scan no
// table.
func (sys sqlSystem) wantTouched(t *testing.T, db *sql.DB, table string, want map[string]int, sweep func()) {
	t.Helper()
	rows := want["delete"] + want["update"]
	before := sys.counters(t, db, table)
	sweep()
	after := sys.counters(t, db, table)
	for what, n := range after {
		n -= before[what]
		t.Logf("%s: %d", what, n)
		switch what {
		case "delete", "update", "seq_scan":
			if n != want[what] {
				t.Errorf("%s: got %d, want %d", what, n, want[what])
			}
		default:
			if n > 3*rows+rows/2 { // a half for what starts and ends each batch
				t.Errorf("%s: got %d for %d rows", what, n, rows)
			}
		}
	}
}

// TestSQLSweepInBatches counts the statements of a sweep.
func TestSQLSweepInBatches(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		_, _, table := sys.filled(t, dsn, sqlRows{from: 1, to: 2000, expires: "{now}-i"})
		tapped, tap := tap(t, sys.driver, dsn)
		tapped.SetMaxOpenConns(1) // each statement is prepared once
		store := sys.store(t, tapped, session2.SQLOptions{Table: table})
		if n, err := store.DeleteOld(t.Context(), time.Hour); n != 2000 || err != nil {
			t.Errorf("got %d, %v, want 2000", n, err)
		}
		if got, want := tap.taken(), "map[exec:20 prepare:3 query:22]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestSQLSweepsAtOnce has several instances sweep one table: their counts add
// up, none deadlocks, and they share the work instead of each doing all of it.
func TestSQLSweepsAtOnce(t *testing.T) {
	const instances, old, early = 4, 10000, 2000
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		_, db, table := sys.filled(t, dsn,
			sqlRows{from: 1, to: old, expires: "{now}-i*1000"},
			sqlRows{from: old + 1, to: old + early, filedExpires: "{now}-i*4000"})
		deadlocks := sys.deadlocks(t, db)
		deleted, looks := sys.sweepAtOnce(t, dsn, table, instances)
		if deleted != old {
			t.Errorf("got %d deleted, want %d", deleted, old)
		}
		var left, filed int
		const query = "SELECT count(*), sum(CASE WHEN by_expires = expires THEN 1 ELSE 0 END) FROM "
		testsite.Must(t, db.QueryRow(query+table).Scan(&left, &filed))
		if left != early || filed != early {
			t.Errorf("got %d rows left, %d of them filed right, want %d", left, filed, early)
		}
		if n := sys.deadlocks(t, db) - deadlocks; n != 0 {
			t.Errorf("got %d deadlocks, want none", n)
		}
		t.Logf("%d looks for %d batches", looks, (old+early)/100)
		if most := 3 * (old + early) / 100; looks > most {
			t.Errorf("got %d looks, want at most %d: each instance does all the work", looks, most)
		}
	})
}

// sweepAtOnce has several instances sweep one table, each with connections of
// its own. It returns how many rows they say they deleted, and how often they
// looked for some.
func (sys sqlSystem) sweepAtOnce(t testing.TB, dsn, table string, instances int) (deleted, looks int) {
	t.Helper()
	var wg sync.WaitGroup
	var sum atomic.Int64
	var taps []*tappedDriver
	for range instances {
		tapped, tap := tap(t, sys.driver, dsn)
		taps = append(taps, tap)
		store := sys.store(t, tapped, session2.SQLOptions{Table: table})
		wg.Go(func() {
			n, err := store.DeleteOld(t.Context(), time.Hour)
			if err != nil {
				t.Error(err)
			}
			sum.Add(int64(n))
		})
	}
	wg.Wait()
	for _, tap := range taps {
		looks += tap.total("query")
	}
	return int(sum.Load()), looks
}

// total returns a count so far.
func (d *tappedDriver) total(what string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[what]
}

// deadlocks returns how many the server has seen.
func (sys sqlSystem) deadlocks(t testing.TB, db *sql.DB) (n int) {
	t.Helper()
	query := `SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'`
	if sys.name == "postgres" {
		query = `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`
	}
	testsite.Must(t, db.QueryRow(query).Scan(&n))
	return n
}

// TestSQLSweepSparesWhatMoved has others at the rows that a sweep has just
// found: one is touched, one is saved, and one is locked and not let go.
func TestSQLSweepSparesWhatMoved(t *testing.T) {
	const old = 300
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		other, db, table := sys.filled(t, dsn, sqlRows{from: 1, to: old, expires: "{now}-i"})
		db.SetMaxOpenConns(2)
		touched, saved, locked := sqlRowID(old), sqlRowID(old-1), sqlRowID(old-2) // the oldest
		tapped, tap := tap(t, sys.driver, dsn)
		store := sys.store(t, tapped, session2.SQLOptions{Table: table})
		var tx *sql.Tx
		tap.tamper(func(query string) (err error) {
			if !strings.HasPrefix(query, "DELETE") || tx != nil {
				return nil
			}
			later := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
			testsite.Must(t, other.Touch(t.Context(), touched, later, later))
			rec := session2.Record{ID: saved, Version: 7, Created: later, Accessed: later, Expires: later}
			testsite.Must(t, other.Save(t.Context(), rec, 1))
			tx, err = db.Begin()
			testsite.Must(t, err)
			_, err = tx.Exec("SELECT id FROM " + table + " WHERE " + sys.hasID(locked) + " FOR UPDATE")
			return err
		}, nil)
		if n, err := store.DeleteOld(t.Context(), time.Hour); n != old-3 || err != nil {
			t.Errorf("beside others: got %d, %v, want %d", n, err, old-3)
		}
		testsite.Must(t, tx.Rollback())
		if n, err := store.DeleteOld(t.Context(), time.Hour); n != 1 || err != nil {
			t.Errorf("after them: got %d, %v, want 1", n, err)
		}
		got := make(map[session2.ID]bool)
		for rec, err := range store.Iter(t.Context()) {
			testsite.Must(t, err)
			got[rec.ID] = true
		}
		if want := map[session2.ID]bool{touched: true, saved: true}; !maps.Equal(got, want) {
			t.Errorf("got %v left, want %v", got, want)
		}
	})
}

// hasID is a condition on an ID.
func (sys sqlSystem) hasID(id session2.ID) string {
	if sys.name == "postgres" {
		return fmt.Sprintf(`id = '\x%x'`, id[:])
	}
	return fmt.Sprintf("id = x'%x'", id[:])
}

// TestSQLSweepWithoutSkipLocked sweeps on a server that does not know SKIP
// LOCKED: it is asked once.
func TestSQLSweepWithoutSkipLocked(t *testing.T) {
	unknown := map[string]error{"postgres": &pq.Error{Code: "42601"}, "mysql": &mysql.MySQLError{Number: 1064}}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		_, db, table := sys.filled(t, dsn,
			sqlRows{from: 1, to: 250, expires: "{now}-i"},
			sqlRows{from: 251, to: 400, filedAccessed: "{now}-7200000000"})
		tapped, tap := tap(t, sys.driver, dsn)
		store := sys.store(t, tapped, session2.SQLOptions{Table: table})
		asked := 0
		tap.tamper(func(query string) error {
			if strings.Contains(query, "SKIP LOCKED") {
				asked++
				return unknown[sys.name]
			}
			return nil
		}, nil)
		if n, err := store.DeleteOld(t.Context(), time.Hour); n != 250 || err != nil || asked != 1 {
			t.Errorf("got %d, %v, asked %d times, want 250, asked once", n, err, asked)
		}
		var filed int
		testsite.Must(t, db.QueryRow("SELECT count(*) FROM "+table+" WHERE by_accessed = accessed").Scan(&filed))
		if filed != 150 {
			t.Errorf("got %d rows filed anew, want 150", filed)
		}
	})
}

// TestSQLMemory looks at the heap while a table of several megabytes is listed
// and swept.
func TestSQLMemory(t *testing.T) {
	const rows, most = 20000, 2 << 20
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		_, _, table := sys.filled(t, dsn, sqlRows{from: 1, to: rows, expires: "{now}-i"})
		tapped, tap := tap(t, sys.driver, dsn)
		store := sys.store(t, tapped, session2.SQLOptions{Table: table})
		seen, start, peak := 0, heap(), uint64(0)
		look := func() {
			if seen++; seen%1000 == 0 {
				peak = max(peak, heap())
			}
		}
		for _, err := range store.Iter(t.Context()) {
			testsite.Must(t, err)
			look()
		}
		tap.tamper(func(string) error { seen += 99; look(); return nil }, nil)
		if n, err := store.DeleteOld(t.Context(), time.Hour); n != rows || err != nil || seen < 2*rows {
			t.Fatalf("got %d, %v and %d rows seen, want %d and twice that", n, err, seen, rows)
		}
		t.Logf("from %d to %d bytes", start, peak)
		if peak > start+most {
			t.Errorf("the heap grew from %d to %d bytes over %d rows", start, peak, rows)
		}
	})
}

// heap returns the bytes in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSQLRefiling simulates sessions that are used every minute, and swept as
// often, for two hours: each costs a sweep one write in 30 minutes, their idle
// timeout.
func TestSQLRefiling(t *testing.T) {
	const sessions, idle, minutes = 120, 30, 120
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, db, table := sys.filled(t, dsn)
		at := time.Now().Truncate(time.Microsecond)
		sweep := func() int {
			n, err := store.DeleteOld(t.Context(), idle*time.Minute)
			testsite.Must(t, err)
			return n
		}
		pass := func(d time.Duration) { // all that is stored becomes older
			older := strings.NewReplacer("{t}", table, "{d}", fmt.Sprint(d.Microseconds()))
			_, err := db.Exec(older.Replace("UPDATE {t} SET accessed = accessed-{d}, expires = expires-{d}," +
				" by_accessed = by_accessed-{d}, by_expires = by_expires-{d}"))
			testsite.Must(t, err)
		}
		for i := range sessions { // begun at different times
			rec := session2.Record{ID: sqlRowID(i), Version: 1, Created: at}
			rec.Accessed = at.Add(time.Duration(i%idle-idle) * time.Minute)
			rec.Expires = rec.Accessed.Add(idle * time.Minute)
			testsite.Must(t, store.Save(t.Context(), rec, 0))
		}
		refiled := 0
		for range minutes {
			now := time.Now()
			_, err := db.Exec(fmt.Sprintf("UPDATE %s SET accessed = %d, expires = %d",
				table, now.UnixMicro(), now.Add(idle*time.Minute).UnixMicro()))
			testsite.Must(t, err)
			before := sys.filedAt(t, db, table)
			if n := sweep(); n != 0 {
				t.Fatalf("got %d sessions deleted that are in use", n)
			}
			for id, filed := range sys.filedAt(t, db, table) {
				if filed != before[id] {
					refiled++
				}
			}
			pass(time.Minute)
		}
		per := float64(refiled) / sessions
		t.Logf("%.2f writes a session in %d minutes", per, minutes)
		if per > minutes/idle {
			t.Errorf("got %.2f writes a session in %d minutes, want one in %d", per, minutes, idle)
		}
		pass(idle * time.Minute)
		if n := sweep(); n != sessions {
			t.Errorf("unused: got %d deleted, want %d", n, sessions)
		}
	})
}

// filedAt returns where rows are filed.
func (sys sqlSystem) filedAt(t testing.TB, db *sql.DB, table string) map[string][2]int64 {
	t.Helper()
	rows, err := db.Query("SELECT id, by_accessed, by_expires FROM " + table)
	testsite.Must(t, err)
	defer rows.Close()
	filed := make(map[string][2]int64)
	for rows.Next() {
		var id []byte
		var at [2]int64
		testsite.Must(t, rows.Scan(&id, &at[0], &at[1]))
		filed[string(id)] = at
	}
	testsite.Must(t, rows.Err())
	return filed
}

// TestPostgresUpdatesAreHeapOnly touches and saves the rows of a table that was
// just filled, at random: almost none of it writes an index.
func TestPostgresUpdatesAreHeapOnly(t *testing.T) {
	sys, n := sqlSystems[0], benchRecords(t, 5000)
	dsn := sys.server(t)
	_, db, table := sys.filled(t, dsn, sqlRows{from: 1, to: n, data: 512})
	updater := openSQL(t, sys.driver, withSettings(dsn, "synchronous_commit=off")) // or it takes its time
	store := sys.store(t, updater, session2.SQLOptions{Table: table})
	const goroutines = 4
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range 2 * n / goroutines {
				id := sqlRowID(rand.IntN(n/goroutines)*goroutines + g + 1) // its own, so that no Save conflicts
				later := time.Now().Add(time.Duration(i) * time.Minute)
				var err error
				if i%10 == 0 {
					err = resave(t.Context(), store, id, later, make([]byte, 200+rand.IntN(700)))
				} else {
					err = store.Touch(t.Context(), id, later, later.Add(time.Hour))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	testsite.Must(t, updater.Close())
	var all, hot int
	err := until(func() (bool, error) { // connections report as they end
		row := db.QueryRow(`SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1`, table)
		err := row.Scan(&all, &hot)
		return all >= n*2/goroutines*goroutines, err
	})
	testsite.Must(t, err)
	t.Logf("%d of %d updates were heap-only: %.1f%%", hot, all, 100*float64(hot)/float64(all))
	if hot*10 < all*9 {
		t.Errorf("got %d heap-only of %d updates, want 9 in 10", hot, all)
	}
}

// resave saves a record with other data.
func resave(ctx context.Context, store session2.Store, id session2.ID, accessed time.Time, data []byte) error {
	rec, err := store.Load(ctx, id)
	if err != nil {
		return err
	}
	prev := rec.Version
	rec.Version, rec.Accessed, rec.Expires, rec.Data = prev+1, accessed, accessed.Add(time.Hour), data
	return store.Save(ctx, rec, prev)
}

// until waits for what the server does in its own time.
func until(f func() (bool, error)) error {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if done, err := f(); done || err != nil {
			return err
		}
	}
	return errors.New("not within two minutes")
}
