package sqlstore

import "strings"

func mysqlSchema(r *strings.Replacer, names []string) Schema {
	return Schema{
		DDL:     replaceAll(r, mysqlDDL),
		Current: r.Replace(mysqlCurrent),
		Note:    r.Replace(mysqlNote),
		Table:   strings.Join(names, "."),
		Key:     r.Replace("ALTER TABLE {t} ADD PRIMARY KEY (id)"),
		Writes:  writes(r, ""),
		Facts:   r.Replace(strings.ReplaceAll(mysqlFacts, "{of}", "table_schema = {db} AND table_name = '{name}'")),
		Unique:  true,
		Indexes: []Index{
			{"username_idx", "username", r.Replace("CREATE INDEX username_idx ON {t} (username)")},
			{"accessed_idx", "by_accessed", r.Replace("CREATE INDEX accessed_idx ON {t} (by_accessed)")},
			{"expires_idx", "by_expires", r.Replace("CREATE INDEX expires_idx ON {t} (by_expires)")},
		},
		Many: many(r),

		Autocommit: "SELECT @@autocommit",
	}
}

// The columns by_accessed and by_expires are lazy index keys: see
// [Sweep]. InnoDB adds the primary key to each index by itself.
var mysqlDDL = []string{`CREATE TABLE IF NOT EXISTS {t} (
	id binary(16) NOT NULL PRIMARY KEY,
	version bigint NOT NULL,
	username varbinary(1024) NOT NULL,
	created bigint NOT NULL,
	accessed bigint NOT NULL,
	expires bigint NOT NULL,
	by_accessed bigint NOT NULL,
	by_expires bigint NOT NULL,
	data longblob NOT NULL,
	INDEX username_idx (username),
	INDEX accessed_idx (by_accessed),
	INDEX expires_idx (by_expires)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC`,
	`CREATE TABLE IF NOT EXISTS {m} (version bigint NOT NULL PRIMARY KEY) ENGINE=InnoDB`,
}

const (
	mysqlCurrent = `SELECT max(version) FROM {m}`
	mysqlNote    = `INSERT IGNORE INTO {m} (version) VALUES (?)`

	mysqlFacts = `SELECT 'table', table_name FROM information_schema.tables WHERE {of} AND table_type = 'BASE TABLE'
UNION ALL SELECT 'index', index_name FROM information_schema.statistics WHERE {of}
UNION ALL SELECT 'first', COALESCE(column_name, '') FROM information_schema.statistics WHERE {of} AND seq_in_index = 1
UNION ALL SELECT 'key', COALESCE(MAX(column_name), '') FROM information_schema.statistics
WHERE {of} AND non_unique = 0 GROUP BY index_name HAVING COUNT(*) = 1
UNION ALL SELECT 'engine', e.engine FROM information_schema.tables t
JOIN information_schema.engines e ON e.engine = t.engine WHERE {of} AND e.transactions = 'NO'`
)
