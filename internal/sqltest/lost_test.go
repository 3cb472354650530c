package sqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io/fs"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/faultproxy"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// TestSQLAnswerLostOnTheWire loses the real answer to a Save that the server has
// carried out.
func TestSQLAnswerLostOnTheWire(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		p, dsn := viaProxy(t, dsn)
		store, db := sys.warm(t, dsn, sqlTable(t.TempDir()))
		ctx, rec := t.Context(), sqlRecord(1)
		db.SetMaxOpenConns(1)

		dropped := p.DropAnswer()
		testsite.Must(t, store.Save(ctx, rec, 0))
		<-dropped
		next := rec
		for range 5 {
			prev := next.Version
			next.Version++
			dropped := p.DropAnswer()
			testsite.Must(t, store.Save(ctx, next, prev))
			<-dropped
			if got, err := store.Load(ctx, rec.ID); err != nil || got.Version != next.Version {
				t.Errorf("got version %v, %v, want %v", got.Version, err, next.Version)
			}
		}
		dropped = p.DropAnswer()
		testsite.Must(t, store.Delete(ctx, rec.ID))
		<-dropped
		if _, err := store.Load(ctx, rec.ID); !errors.Is(err, session2.ErrNotFound) {
			t.Errorf("got %v, want %v", err, session2.ErrNotFound)
		}
	})
}

// warm returns a store that is set up and has prepared its statements on the one
// connection that its pool keeps, so that the next thing it sends is what is
// asked of it.
func (sys sqlSystem) warm(t testing.TB, dsn, table string) (sqlStore, *sql.DB) {
	t.Helper()
	db := openSQL(t, sys.driver, dsn)
	store := sys.store(t, db, session2.SQLOptions{Table: table})
	ctx, rec := t.Context(), sqlRecord(255)
	next := rec
	next.Version++
	testsite.Must(t, store.Setup(ctx))
	testsite.Must(t, store.Save(ctx, rec, 0))
	testsite.Must(t, store.Save(ctx, next, rec.Version))
	testsite.Must(t, store.Delete(ctx, rec.ID))
	return store, db
}

// TestSQLAnswerLostAndOthersWroteOnTheWire lets another store write between the
// lost answer and the second attempt: the one cannot tell, and says so.
func TestSQLAnswerLostAndOthersWroteOnTheWire(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		p, proxied := viaProxy(t, dsn)
		table := sqlTable(t.TempDir())
		store, _ := sys.warm(t, proxied, table)
		other, _ := sys.warm(t, dsn, table)
		ctx, rec := t.Context(), sqlRecord(1)
		testsite.Must(t, store.Save(ctx, rec, 0))

		mine, theirs := rec, rec
		mine.Version, theirs.Version = 5, 6
		dropped := p.DropAnswer()
		p.Refuse(true) // until the other has written
		saved := make(chan error, 1)
		go func() { saved <- store.Save(ctx, mine, rec.Version) }()
		<-dropped
		testsite.Must(t, other.Save(ctx, theirs, mine.Version))
		p.Refuse(false)
		if err := <-saved; !errors.Is(err, session2.ErrUncertain) {
			t.Errorf("got %v, want %v", err, session2.ErrUncertain)
		}

		mine.Version = 7
		dropped = p.DropAnswer()
		p.Refuse(true)
		go func() { saved <- store.Save(ctx, mine, theirs.Version) }()
		<-dropped
		testsite.Must(t, other.Delete(ctx, rec.ID))
		p.Refuse(false)
		if err := <-saved; !errors.Is(err, session2.ErrUncertain) || !errors.Is(err, session2.ErrNotFound) {
			t.Errorf("got %v, want %v and %v", err, session2.ErrUncertain, session2.ErrNotFound)
		}
	})
}

// TestSQLAnswerLostAndNobodyThere loses an answer, and then nobody can be connected to for
// longer than a call tries: that does not say that nothing was changed. Where nobody was there
// from the start, nothing was.
func TestSQLAnswerLostAndNobodyThere(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		p, proxied := viaProxy(t, dsn)
		table := sqlTable(t.TempDir())
		other, _ := sys.warm(t, dsn, table)
		rec := sqlRecord(1)
		next := rec
		next.Version++
		for name, call := range map[string]func(ctx context.Context, s sqlStore) error{
			"create":  func(ctx context.Context, s sqlStore) error { return s.Save(ctx, sqlRecord(2), 0) },
			"replace": func(ctx context.Context, s sqlStore) error { return s.Save(ctx, next, rec.Version) },
			"touch": func(ctx context.Context, s sqlStore) error {
				return s.Touch(ctx, rec.ID, rec.Accessed.Add(time.Hour), rec.Expires)
			},
			"delete": func(ctx context.Context, s sqlStore) error { return s.Delete(ctx, rec.ID) },
		} {
			for _, sent := range []bool{true, false} {
				testsite.Must(t, other.Delete(t.Context(), rec.ID))
				testsite.Must(t, other.Delete(t.Context(), sqlRecord(2).ID))
				testsite.Must(t, other.Save(t.Context(), rec, 0))
				store := sys.store(t, openSQL(t, sys.driver, proxied), session2.SQLOptions{Table: table})
				if sent {
					store, _ = sys.warm(t, proxied, table)
					testsite.Must(t, store.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires)) // prepares it
					p.DropAnswer()
				}
				p.Refuse(true)
				err := call(t.Context(), store)
				p.Refuse(false)
				if err == nil || errors.Is(err, session2.ErrUncertain) != sent {
					t.Errorf("%s, sent before %t: got %v, want it to match %v: %t", name, sent, err, session2.ErrUncertain, sent)
				}
			}
		}
	})
}

// TestSQLIncrementsAroundARefusal is about two requests whose answers are lost, a third that
// writes meanwhile, and a server that nobody can be connected to for longer than a call tries.
// Each is counted once.
func TestSQLIncrementsAroundARefusal(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table := sqlTable(t.TempDir())
		other, _ := sys.warm(t, dsn, table)
		direct := testsite.NewSite(t, other, session2.Config{})
		b := &testsite.Browser{}
		direct.Do(b, increment)
		answered := make(chan int, 2)
		var proxies []*faultproxy.Proxy
		for range 2 {
			p, proxied := viaProxy(t, dsn)
			store, _ := sys.warm(t, proxied, table)
			st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
			incrementCutOff(st, b, p, answered)
			proxies = append(proxies, p)
		}
		if res := direct.Do(b, increment); res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
		time.Sleep(time.Second) // the stores give up, and are asked again
		for _, p := range proxies {
			p.Refuse(false)
		}
		for range proxies {
			if status := <-answered; status != 200 {
				t.Errorf("status %d", status)
			}
		}
		if n, _ := counted(direct, b); n != 4 {
			t.Errorf("4 requests counted to %v", n)
		}
	})
}

func increment(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) }

// incrementCutOff begins a request whose Save lands, and returns when its answer is lost and
// nobody can be connected to any more. The status is sent when the request ends.
func incrementCutOff(st *testsite.Site, b *testsite.Browser, p *faultproxy.Proxy, answered chan<- int) {
	armed := make(chan (<-chan struct{}), 1)
	go func() {
		answered <- st.Do(b.Clone(), func(s *session2.Session) {
			increment(s)
			p.Refuse(true)
			armed <- p.DropAnswer()
		}).StatusCode
	}()
	<-(<-armed)
}

// TestSQLIncrementWhoseAnswerIsLost finds that a request is counted once, be it
// that nobody else writes meanwhile or that somebody does, so that the manager
// has to find out.
func TestSQLIncrementWhoseAnswerIsLost(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		p, proxied := viaProxy(t, dsn)
		table := sqlTable(t.TempDir())
		store, _ := sys.warm(t, proxied, table)
		other, _ := sys.warm(t, dsn, table)
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: 30 * time.Second})
		direct := testsite.NewSite(t, other, session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, increment)
		for i := range 8 {
			answered := make(chan int, 1)
			incrementCutOff(st, b, p, answered)
			if i%2 == 1 {
				direct.Do(b.Clone(), increment)
			}
			p.Refuse(false)
			if status := <-answered; status != 200 {
				t.Errorf("request %d: status %d", i, status)
			}
		}
		if got, _ := counted(direct, b); got != 1+8+4 {
			t.Errorf("counted %d, want %d", got, 1+8+4)
		}
	})
}

// flakyConnector fails to connect once, after what a test does meanwhile.
type flakyConnector struct {
	driver.Connector
	once      sync.Once
	meanwhile func()
}

func (c *flakyConnector) Connect(ctx context.Context) (conn driver.Conn, err error) {
	c.once.Do(func() {
		c.meanwhile()
		err = &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	})
	if err != nil {
		return nil, err
	}
	return c.Connector.Connect(ctx)
}

// TestSQLNothingSentIsNothingLost finds that a Save that could not connect at
// first is certain of what it says: the statement had not gone out.
func TestSQLNothingSentIsNothingLost(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table := sqlTable(t.TempDir())
		other, pool := sys.warm(t, dsn, table)
		ctx, rec := t.Context(), sqlRecord(1)
		testsite.Must(t, other.Save(ctx, rec, 0))
		mine, theirs := rec, rec
		mine.Version, theirs.Version = 5, 6
		db := sql.OpenDB(&flakyConnector{
			Connector: dsnConnector{dsn, pool.Driver()},
			meanwhile: func() { testsite.Must(t, other.Save(ctx, theirs, rec.Version)) },
		})
		defer db.Close()
		store := sys.store(t, db, session2.SQLOptions{Table: table})
		if err := store.Save(ctx, mine, rec.Version); !errors.Is(err, session2.ErrConflict) {
			t.Errorf("got %v, want %v", err, session2.ErrConflict)
		}
	})
}

// TestSQLCheckSchemaAsksAgain is about what each command of the command line begins with.
func TestSQLCheckSchemaAsksAgain(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table := sqlTable(t.TempDir())
		_, pool := sys.warm(t, dsn, table)
		db := sql.OpenDB(&flakyConnector{Connector: dsnConnector{dsn, pool.Driver()}, meanwhile: func() {}})
		defer db.Close()
		store := sys.store(t, db, session2.SQLOptions{Table: table})
		testsite.Must(t, store.(interface{ CheckSchema(context.Context) error }).CheckSchema(t.Context()))
	})
}

type dsnConnector struct {
	dsn    string
	driver driver.Driver
}

func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c dsnConnector) Driver() driver.Driver                        { return c.driver }

// brokenDialer makes connections that break at the second thing that a client
// says, the password, a few times.
type brokenDialer struct{ left atomic.Int64 }

func (d *brokenDialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialTimeout(network, addr, time.Minute)
}

func (d *brokenDialer) DialTimeout(network, addr string, timeout time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, timeout)
	if err == nil && d.left.Add(-1) >= 0 {
		c = &brokenConn{Conn: c}
	}
	return c, err
}

type brokenConn struct {
	net.Conn
	writes int
}

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		c.Close()
	}
	return c.Conn.Write(p)
}

// TestPostgresHandshakeThatBreaks finds that the store tries again where lib/pq
// answers an error of its own kind.
func TestPostgresHandshakeThatBreaks(t *testing.T) {
	connector, err := pq.NewConnector(testdb.Postgres(t))
	testsite.Must(t, err)
	dialer := &brokenDialer{}
	connector.Dialer(dialer)
	db := sql.OpenDB(connector)
	defer db.Close()
	store := sqlSystems[0].store(t, db, session2.SQLOptions{})
	testsite.Must(t, store.Setup(t.Context()))
	db.SetMaxIdleConns(-1)
	dialer.left.Store(3)
	testsite.Must(t, store.Save(t.Context(), sqlRecord(1), 0))
	if left := dialer.left.Load(); left >= 0 {
		t.Errorf("%d connections were to break yet", left)
	}
}

// TestSQLCloseBesideALostAnswer finds that a call whose answer is lost says so, although the
// store was closed while it waited: it may have been carried out.
func TestSQLCloseBesideALostAnswer(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, direct string) {
		p, dsn := viaProxy(t, direct)
		for i, c := range sqlCalls(t.Context(), nil) {
			store := sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{Table: sqlTable(t.TempDir())})
			calls := sqlCalls(t.Context(), store)
			testsite.Must(t, store.Setup(t.Context()))
			for _, c := range slices.Concat(calls, calls, calls[:i]) { // so that each statement is prepared
				testsite.Must(t, c.make())
			}
			closed := make(chan error, 1)
			held := p.HoldAnswer()
			go func() {
				<-held
				go func() { closed <- store.Close() }()
				for {
					if _, err := store.Has(t.Context(), session2.ID{}); errors.Is(err, fs.ErrClosed) {
						break
					}
				}
				p.Cut()
			}()
			if err := calls[i].make(); errors.Is(err, record.ErrNotDone) {
				t.Errorf("%s: got %v, which is certain", c.name, err)
			}
			<-closed
		}
	})
}
