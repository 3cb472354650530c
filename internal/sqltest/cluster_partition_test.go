//go:build cluster

package sqltest

import (
	"regexp"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// TestClusterPartitions keeps the contract over a table that was made in
// partitions before Setup, as docs/SCALING.md shows.
func TestClusterPartitions(t *testing.T) {
	t.Parallel()
	for _, p := range []struct {
		sys       sqlSystem
		options   *regexp.Regexp // of the table, in the store's Schema
		partition []string       // what takes their place, and what follows
	}{
		{sqlSystems[0], regexp.MustCompile(`\) WITH \(fillfactor = \d+\)$`), []string{`) PARTITION BY HASH (id)`,
			`CREATE TABLE IF NOT EXISTS "{t}_0" PARTITION OF "{t}"` +
				` FOR VALUES WITH (MODULUS 2, REMAINDER 0) WITH (fillfactor = 75)`,
			`CREATE TABLE IF NOT EXISTS "{t}_1" PARTITION OF "{t}"` +
				` FOR VALUES WITH (MODULUS 2, REMAINDER 1) WITH (fillfactor = 75)`}},
		{sqlSystems[1], regexp.MustCompile(`$`), []string{` PARTITION BY KEY (id) PARTITIONS 2`}},
	} {
		t.Run(p.sys.name, func(t *testing.T) {
			t.Parallel()
			dsn := p.sys.server(t)
			storetest.Run(t, func(t testing.TB, dir string) session2.Store {
				return partitioned(t, p.sys, dsn, sqlTable(dir), p.options, p.partition)
			}, nil)
		})
	}
}

func partitioned(
	t testing.TB, sys sqlSystem, dsn, table string, options *regexp.Regexp, partition []string,
) session2.Store {
	t.Helper()
	db := openSQL(t, sys.driver, dsn)
	store := sys.store(t, db, session2.SQLOptions{Table: table})
	list := []string{options.ReplaceAllString(store.Schema()[0], partition[0])}
	for _, ddl := range append(list, partition[1:]...) {
		_, err := db.ExecContext(t.Context(), regexp.MustCompile(`\{t\}`).ReplaceAllString(ddl, table))
		testsite.Must(t, err)
	}
	testsite.Must(t, store.Setup(t.Context()))
	return store
}
