package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/session2/session2"
)

// schemaVersion is that of the schema that this release makes and uses.
const schemaVersion = 1

// columns are those of a record, in the order of scan and of the arguments of Save.
const (
	columns = `id, version, username, created, accessed, expires, data`
	set     = `version = ?2, username = ?3, created = ?4, accessed = ?5, expires = ?6, data = ?7`
)

// queries are the statements of one store.
type queries struct {
	ddl     []string // each does nothing if its object is there
	note    string   // notes that everything is there
	current string   // the version that is there

	load, has, version         string
	insert, update, updateBack string
	remove, touch              string
	page, userPage             string
	userIDs, deleteUser        string
	refile, sweep              [2]string // by accessed, and by expires
}

// queriesOf fills in the table's name. It needs no quotes but where it is a keyword.
func queriesOf(table string) queries {
	r := strings.NewReplacer("{t}", `"`+table+`"`, "{m}", `"`+table+`_meta"`, "{n}", table,
		"{columns}", columns, "{set}", set, "{schema}", strconv.Itoa(schemaVersion),
		"{batch}", strconv.Itoa(batch), "{page}", strconv.Itoa(pageRows))
	by := func(query string) (pair [2]string) {
		for i, col := range []string{"accessed", "expires"} {
			pair[i] = r.Replace(strings.ReplaceAll(query, "{c}", col))
		}
		return pair
	}
	return queries{
		ddl:  []string{r.Replace(tableDDL), r.Replace(userDDL), by(timeDDL)[0], by(timeDDL)[1], r.Replace(metaDDL)},
		note: r.Replace(`INSERT INTO {m} (version) VALUES ({schema}) ON CONFLICT DO NOTHING`),

		current: r.Replace(`SELECT max(version) FROM {m}`),
		load:    r.Replace(`SELECT {columns} FROM {t} WHERE id = ?`),
		has:     r.Replace(`SELECT 1 FROM {t} WHERE id = ?`),
		version: r.Replace(`SELECT version FROM {t} WHERE id = ?`),

		insert: r.Replace(`INSERT INTO {t} ({columns}, by_accessed, by_expires)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?5, ?6) ON CONFLICT (id) DO NOTHING`),
		update: r.Replace(`UPDATE {t} SET {set} WHERE id = ?1 AND version = ?8 AND by_accessed <= ?5 AND by_expires <= ?6`),
		updateBack: r.Replace(`UPDATE {t} SET {set}, by_accessed = min(by_accessed, ?5), by_expires = min(by_expires, ?6)
WHERE id = ?1 AND version = ?8`),
		remove: r.Replace(`DELETE FROM {t} WHERE id = ?`),
		touch: r.Replace(`UPDATE {t} SET accessed = max(accessed, ?2), expires = max(expires, ?3)
WHERE id = ?1 AND (accessed < ?2 OR expires < ?3)`),

		page: r.Replace(`SELECT {columns} FROM {t} WHERE id > ? ORDER BY id LIMIT {page}`),
		userPage: r.Replace(`SELECT {columns} FROM {t} WHERE username = ? AND username <> x'' AND id > ?
ORDER BY id LIMIT {page}`),
		userIDs: r.Replace(`SELECT id FROM {t} WHERE username = ? AND username <> x'' AND id > ?
ORDER BY id LIMIT {batch}`),
		deleteUser: r.Replace(`DELETE FROM {t} WHERE username = ? AND id IN ({ids})`),

		refile: by(`UPDATE {t} SET by_accessed = accessed, by_expires = expires
WHERE {c} > ?1 AND rowid IN (SELECT rowid FROM {t} WHERE by_{c} <= ?1 ORDER BY by_{c} LIMIT {batch})`),
		sweep: by(`DELETE FROM {t}
WHERE {c} <= ?1 AND rowid IN (SELECT rowid FROM {t} WHERE by_{c} <= ?1 ORDER BY by_{c} LIMIT {batch})`),
	}
}

// The columns by_accessed and by_expires are what the indexes by time go by. They are
// lazy: each is the time beside it or an earlier one, so that a Save or a Touch that
// moves the times forward writes one page of the table, and none of an index.
const (
	tableDDL = `CREATE TABLE IF NOT EXISTS {t} (
	id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
	version INTEGER NOT NULL,
	username BLOB NOT NULL,
	created INTEGER NOT NULL,
	accessed INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	data BLOB NOT NULL,
	by_accessed INTEGER NOT NULL,
	by_expires INTEGER NOT NULL
) STRICT`
	userDDL = `CREATE INDEX IF NOT EXISTS "{n}_user_idx" ON {t} (username, id) WHERE username <> x''`
	timeDDL = `CREATE INDEX IF NOT EXISTS "{n}_{c}_idx" ON {t} (by_{c})`
	metaDDL = `CREATE TABLE IF NOT EXISTS {m} (version INTEGER PRIMARY KEY) STRICT`
)

// Schema returns the statements that Setup runs, for those who do not let applications
// create tables. They may be run again.
func (s *Store) Schema() []string { return append(slices.Clone(s.q.ddl), s.q.note) }

// Setup creates the tables with their indexes if they are not there, and for a store of
// [Open] the file. It may be called any number of times, by several processes at once,
// and never drops data. Where all is there it writes nothing.
func (s *Store) Setup(ctx context.Context) error { return failed("set up", s.setup(ctx)) }

func (s *Store) setup(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := s.file.make(ctx); err != nil {
		return err
	}
	if done, err := s.current(ctx); err != nil || done {
		return err
	}
	for i, statement := range s.Schema() {
		if _, err := s.change(ctx, statement); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if _, err := s.ours(ctx); err != nil { // before an index is made on somebody else's
			return err
		}
	}
	return nil
}

// ours reports whether the table is there. It returns an error where its columns are not.
func (s *Store) ours(ctx context.Context) (bool, error) {
	_, err := s.load(ctx, session2.ID{})
	switch {
	case errors.Is(err, session2.ErrNotSetUp):
		return false, nil
	case isRecord(err): // there may be one or not
		return true, nil
	}
	return err == nil, err
}

// current reports whether all is there, and refuses what a later release made.
func (s *Store) current(ctx context.Context) (bool, error) {
	version, err := s.noted(ctx)
	if err != nil || version != schemaVersion {
		return false, err
	}
	return s.ours(ctx) // else it was dropped, and its note was not
}

// noted returns the version that is noted, zero if none is, and refuses a later one.
func (s *Store) noted(ctx context.Context) (int64, error) {
	version, err := call(ctx, s, func(ctx context.Context) (v sql.NullInt64, err error) {
		err = s.db.QueryRowContext(ctx, s.q.current).Scan(&v)
		return v, err
	})
	switch {
	case errors.Is(err, session2.ErrNotSetUp):
		return 0, nil
	case err == nil && version.Int64 > schemaVersion:
		err = fmt.Errorf("the tables have version %d, of a later release: this one knows %d",
			version.Int64, schemaVersion)
	}
	return version.Int64, err
}

// CheckSchema returns an error if a later release has made the tables, as Setup does, but
// makes nothing. Tables that are not there are no error. Each command of session2 calls it.
func (s *Store) CheckSchema(ctx context.Context) error {
	_, err := s.noted(ctx)
	return failed("check schema", err)
}
