package sqlite

import (
	"context"
	"database/sql"
	"strings"

	"github.com/session2/session2"
)

// settings returns what the database's settings let the store promise. It asks two
// connections where the pool may have two: what a PRAGMA has set by db.Exec holds for
// one of them only.
func (s *Store) settings(ctx context.Context) (session2.Capabilities, error) {
	first, err := s.db.Conn(ctx)
	if err != nil {
		return session2.Capabilities{}, err
	}
	defer first.Close()
	caps, err := settingsOf(ctx, first)
	if err != nil || s.db.Stats().MaxOpenConnections == 1 {
		return caps, err
	}
	second, err := s.db.Conn(ctx)
	if err != nil {
		return session2.Capabilities{}, err
	}
	defer second.Close()
	also, err := settingsOf(ctx, second)
	caps.MultiprocessSafe = caps.MultiprocessSafe && also.MultiprocessSafe
	caps.Durable = caps.Durable && also.Durable
	return caps, err
}

func settingsOf(ctx context.Context, c *sql.Conn) (session2.Capabilities, error) {
	var synchronous int
	var journal, locking, path string
	for query, value := range map[string]any{
		`PRAGMA synchronous`:  &synchronous,
		`PRAGMA journal_mode`: &journal,
		`PRAGMA locking_mode`: &locking,
		`SELECT coalesce(file, '') FROM pragma_database_list WHERE name = 'main'`: &path,
	} {
		if err := c.QueryRowContext(ctx, query).Scan(value); err != nil {
			return session2.Capabilities{}, err
		}
	}
	return session2.Capabilities{
		ThreadSafe:       true,
		MultiprocessSafe: path != "" && strings.EqualFold(locking, "normal"),
		Durable:          path != "" && durable(strings.ToLower(journal), synchronous),
	}, nil
}

// The values of PRAGMA synchronous.
const (
	full  = 2
	extra = 3
)

// durable reports whether a commit is on the disk when it returns. In the mode delete a
// journal whose removal a power cut undoes takes the latest commit back, unless the
// directory is synced too.
func durable(journal string, synchronous int) bool {
	switch journal {
	case "wal", "truncate", "persist":
		return synchronous >= full
	case "delete":
		return synchronous >= extra
	}
	return false // off, memory
}
