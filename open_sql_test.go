package session2_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/session2/session2"
)

// sqlURL returns the server's URL, as Open takes it.
func sqlURL(t testing.TB, system, dsn string) *url.URL {
	t.Helper()
	if system == "mysql" {
		cfg, err := mysql.ParseDSN(dsn)
		must(t, err)
		return &url.URL{Scheme: "mysql", User: url.UserPassword(cfg.User, cfg.Passwd), Host: cfg.Addr, Path: "/" + cfg.DBName}
	}
	u, err := url.Parse(dsn)
	must(t, err)
	return u
}

func TestOpenSQL(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for _, options := range []string{"", "&noprepare=true", "&timeout=10s&conns=2"} {
			u := sqlURL(t, sys.name, dsn)
			u.RawQuery += "&table=" + sqlTable(t.TempDir()) + options
			store, err := session2.Open(t.Context(), u.String())
			must(t, err)
			useSQL(t, store.(sqlStore))
			must(t, store.(sqlStore).Close())
			must(t, store.(sqlStore).Close())
		}
	})
}

func TestOpenSQLRefusals(t *testing.T) {
	for _, rawURL := range []string{
		"postgres://u:hunter2@h/db?table=a%20b",
		"postgres://u:hunter2@h/db?noprepare=perhaps",
		"postgres://u:hunter2@h/db?timeout=1",
		"postgres://u:hunter2@h/db?sslmode=hunter2",
		"postgres://u:hunter2@h:port/db",
		"mysql://u:hunter2@h/db?table=a%20b",
		"mysql://u:hunter2@h/db?parseTime=hunter2",
		"mysql://u:hunter2@h/db?conns=many",
	} {
		_, err := session2.Open(t.Context(), rawURL)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q): got %v, want an error without the password", rawURL, err)
		}
	}
}
