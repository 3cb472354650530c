package sqlstore

import (
	"slices"
	"strings"
)

func postgresSchema(r *strings.Replacer, names []string) Schema {
	indexes := []Index{
		{`{n}_username_idx`, "username",
			`CREATE INDEX IF NOT EXISTS "{n}_username_idx" ON {t} (username, id) WHERE username <> ''`},
		{`{n}_accessed_idx`, "by_accessed", `CREATE INDEX IF NOT EXISTS "{n}_accessed_idx" ON {t} (by_accessed, id)`},
		{`{n}_expires_idx`, "by_expires", `CREATE INDEX IF NOT EXISTS "{n}_expires_idx" ON {t} (by_expires, id)`},
	}
	ddl := []string{r.Replace(postgresTable)}
	for i := range indexes {
		ix := &indexes[i]
		ix.Name, ix.DDL = r.Replace(ix.Name), r.Replace(ix.DDL)
		ddl = append(ddl, ix.DDL)
	}
	return Schema{
		DDL:     slices.Concat(ddl, []string{r.Replace(postgresMeta)}),
		Current: r.Replace(postgresCurrent),
		Note:    r.Replace(postgresNote),
		Table:   strings.Join(names, "."),
		Key:     r.Replace("ALTER TABLE {t} ADD PRIMARY KEY (id)"),
		Writes:  writes(r, ` ON CONFLICT (id) DO NOTHING`),
		Facts:   r.Replace(postgresFacts),
		Indexes: indexes,
		Many:    many(r),
	}
}

// The columns by_accessed and by_expires are lazy index keys: see
// [Sweep]. The fill factor leaves room on each page for the new
// versions of rows that touches make.
const postgresTable = `CREATE TABLE IF NOT EXISTS {t} (
	id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
	version bigint NOT NULL,
	username bytea NOT NULL,
	created bigint NOT NULL,
	accessed bigint NOT NULL,
	expires bigint NOT NULL,
	by_accessed bigint NOT NULL,
	by_expires bigint NOT NULL,
	data bytea NOT NULL
) WITH (fillfactor = 75)`

const (
	postgresMeta = `CREATE TABLE IF NOT EXISTS {m} (version bigint PRIMARY KEY)`

	postgresCurrent = `SELECT max(version) FROM {m}`
	postgresNote    = `INSERT INTO {m} (version) VALUES ($1) ON CONFLICT DO NOTHING`

	// An index that could not be finished is there, and not valid.
	postgresFacts = `SELECT 'table', relname FROM pg_catalog.pg_class
WHERE oid = '{t}'::regclass AND relkind IN ('r', 'p')
UNION ALL SELECT 'index', c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = '{t}'::regclass AND i.indisvalid
UNION ALL SELECT 'first', a.attname FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = '{t}'::regclass AND i.indisvalid`
)
