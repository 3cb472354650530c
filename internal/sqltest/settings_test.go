package sqltest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// sqlSetting is a server and connections to it, set up as other programs
// stumble over.
type sqlSetting struct {
	name      string
	system    int // of sqlSystems
	ahead     time.Duration
	conf      []string // of the server
	encoding  string   // of the database
	client    string   // of each connection
	noPrepare bool
	shows     []string // queries that answer true if the setting is in force
}

const farEast = "Asia/Tokyo"

var sqlSettings = []sqlSetting{{
	name: "PG_AHEAD", ahead: time.Hour, conf: []string{"timezone = 'Asia/Tokyo'"},
	client: "binary_parameters=yes&bytea_output=escape",
	shows: []string{
		"SELECT current_setting('TimeZone') = 'Asia/Tokyo'",
		"SELECT current_setting('bytea_output') = 'escape'",
	},
}, {
	name: "PG_BEHIND", ahead: -time.Hour, noPrepare: true,
	encoding: "LATIN1",
	client: "timezone=Asia%2FTokyo&default_transaction_isolation=serializable" +
		"&standard_conforming_strings=off&backslash_quote=on",
	shows: []string{
		"SELECT current_setting('server_encoding') = 'LATIN1'",
		"SELECT current_setting('transaction_isolation') = 'serializable'",
		"SELECT current_setting('standard_conforming_strings') = 'off'",
	},
}, {
	name: "MY_AHEAD", system: 1, ahead: time.Hour,
	conf:   []string{"character-set-server = latin1", "collation-server = latin1_swedish_ci", "sql-mode = ANSI"},
	client: "parseTime=true&loc=Asia%2FTokyo&clientFoundRows=true",
	shows: []string{
		"SELECT @@collation_database = 'latin1_swedish_ci'",
		"SELECT @@sql_mode LIKE '%ANSI%'",
		"SELECT @@system_time_zone = 'JST'",
	},
}, {
	name: "MY_BEHIND", system: 1, ahead: -time.Hour, noPrepare: true,
	conf: []string{
		"character-set-server = utf8mb4", "collation-server = utf8mb4_general_ci",
		"default-time-zone = '-11:00'",
	},
	client: "interpolateParams=true&charset=latin1&sql_mode=%27STRICT_ALL_TABLES%27",
	shows: []string{
		"SELECT @@character_set_client = 'latin1'",
		"SELECT 'A' = 'a'",
		"SELECT @@time_zone = '-11:00'",
	},
}, {
	name: "MY_LAX", system: 1, noPrepare: true,
	conf: []string{"innodb-strict-mode = OFF"},
	client: "interpolateParams=true&parseTime=true&loc=Local&time_zone=%27%2B09%3A00%27" +
		"&sql_mode=%27NO_BACKSLASH_ESCAPES%27&tx_isolation=%27SERIALIZABLE%27&timestamp=1000000000",
	shows: []string{
		"SELECT @@sql_mode = 'NO_BACKSLASH_ESCAPES'",
		"SELECT @@tx_isolation = 'SERIALIZABLE'",
	},
}}

// TestSQLSettings runs the conformance suite under each setting.
func TestSQLSettings(t *testing.T) {
	t.Parallel()
	for _, set := range sqlSettings {
		t.Run(set.name, func(t *testing.T) {
			t.Parallel()
			sys := sqlSystems[set.system]
			dsn := withSettings(testdb.Inherited(t, set.name, func() string { return set.server(t) }), set.client)
			set.inForce(t, dsn)
			storetest.Run(t, func(t testing.TB, dir string) session2.Store {
				opts := session2.SQLOptions{Table: sqlTable(dir), NoPrepare: set.noPrepare}
				store := sys.store(t, openSQL(t, sys.driver, dsn), opts)
				testsite.Must(t, store.Setup(t.Context()))
				return store
			}, nil)
		})
	}
}

// server starts the server, and finds that its clock is off.
func (set sqlSetting) server(t *testing.T) string {
	t.Helper()
	start, now := testdb.NewPostgresElsewhere, "SELECT extract(epoch FROM now())"
	if set.system == 1 {
		start, now = testdb.NewMySQLElsewhere, "SELECT unix_timestamp()"
	}
	dsn := start(t, farEast, set.ahead, set.conf...).DSN()
	db := openSQL(t, sqlSystems[set.system].driver, dsn)
	var seconds float64
	testsite.Must(t, db.QueryRow(now).Scan(&seconds))
	if off := time.Until(time.Unix(int64(seconds), 0)); (off - set.ahead).Abs() > time.Minute {
		t.Errorf("the server's clock is off by %v, want %v", off, set.ahead)
	}
	if set.encoding == "" {
		return dsn
	}
	_, err := db.Exec(fmt.Sprintf("CREATE DATABASE other ENCODING '%s' TEMPLATE template0", set.encoding))
	testsite.Must(t, err)
	return strings.Replace(dsn, "/postgres?", "/other?", 1)
}

// inForce finds that connections are set up as they are meant to be.
func (set sqlSetting) inForce(t *testing.T, dsn string) {
	t.Helper()
	db := openSQL(t, sqlSystems[set.system].driver, dsn)
	for _, query := range set.shows {
		var yes bool
		if err := db.QueryRow(query).Scan(&yes); err != nil || !yes {
			t.Errorf("%s: got %v, %v, want true", query, yes, err)
		}
	}
}
