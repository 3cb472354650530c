package sqltest

import (
	"context"
	"database/sql"
	"net/http"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// A primary without its synchronous standby commits what it cannot acknowledge, and shows it
// once its client has given up. A request is not told of a success by what was seen so, nor
// by a Delete that finds nothing left to delete.
func TestPostgresWithoutItsStandby(t *testing.T) {
	t.Parallel()
	server := testdb.NewPostgres(t)
	admin, probe := openSQL(t, "postgres", server.DSN()), openSQL(t, "postgres", server.DSN())
	set := func(names string) {
		t.Helper()
		_, err := admin.Exec("SET synchronous_commit = local")
		testsite.Must(t, err)
		_, err = admin.Exec("ALTER SYSTEM SET synchronous_standby_names = '" + names + "'")
		testsite.Must(t, err)
		_, err = admin.Exec("SELECT pg_reload_conf()")
		testsite.Must(t, err)
		eventually(t, "the server goes by the setting", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			probe.ExecContext(ctx, "SELECT pg_logical_emit_message(true, 'probe', '')")
			return (ctx.Err() != nil) == (names != "") // for a wait that is given up is a success
		})
	}
	for _, c := range []struct {
		how     string
		timeout time.Duration // of a call
		ends    bool          // the waiting connection is ended
	}{
		{"calls that end before the commit does", 300 * time.Millisecond, false},
		{"connections that end", time.Minute, true},
	} {
		table := sqlTable(t.TempDir())
		store := openPostgres(t, server.DSN(), session2.SQLOptions{Table: table, Timeout: c.timeout})
		testsite.Must(t, store.Setup(t.Context()))
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Second})
		b := &testsite.Browser{}
		st.Begin(b)
		set("nobody")
		stop := make(chan struct{})
		if c.ends {
			go endWaits(admin, stop)
		}
		for what, f := range map[string]func(*session2.Session){
			"a login":  func(s *session2.Session) { s.SetUser("bob"); s.Set("k", 1) },
			"a change": func(s *session2.Session) { s.Set("color", time.Now().String()) },
			"a logout": (*session2.Session).Destroy,
		} {
			visitor := b.Clone()
			if what == "a login" {
				visitor = &testsite.Browser{}
			}
			if res := st.Do(visitor, f); res.StatusCode != http.StatusServiceUnavailable || len(res.Cookies()) > 0 {
				t.Errorf("%s: %s is answered with %d, %v", c.how, what, res.StatusCode, res.Cookies())
			}
		}
		close(stop)
		set("")
	}
}

// endWaits ends the connections whose commits wait, until stop is closed.
func endWaits(db *sql.DB, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
			db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
		}
	}
}
