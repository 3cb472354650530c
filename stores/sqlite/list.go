package sqlite

import (
	"context"
	"errors"
	"iter"

	"github.com/session2/session2"
)

// What a page of a list holds at most. Its last record may exceed the number of bytes.
const (
	pageRows  = 100
	pageBytes = 4 << 20
)

// Iter lists all records, in the order of their IDs, as [session2.IterStore] says.
func (s *Store) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	return s.list(ctx, "iter", s.q.page)
}

// IterUser lists the user's records likewise. For the empty user there are none.
func (s *Store) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return s.list(ctx, "iter user", s.q.userPage, []byte(user))
}

// list runs a query with the arguments and the ID to go on behind, again and again.
func (s *Store) list(ctx context.Context, op, query string, args ...any) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		from := []byte{} // before all IDs
		for {
			page, err := s.page(ctx, query, append(args[:len(args):len(args)], from)...)
			if err != nil {
				yield(session2.Record{}, failed(op, err))
				return
			}
			if len(page) == 0 {
				return
			}
			for _, rec := range page {
				if ended := ctx.Err(); ended != nil {
					yield(session2.Record{}, failed(op, ended))
					return
				}
				if !yield(rec, corrupt(op, rec)) {
					return
				}
			}
			last := page[len(page)-1].ID
			from = last[:]
		}
	}
}

// page reads one page.
func (s *Store) page(ctx context.Context, query string, args ...any) ([]session2.Record, error) {
	return call(ctx, s, func(ctx context.Context) (list []session2.Record, err error) {
		rows, err := s.db.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for size := 0; size < pageBytes && rows.Next(); {
			rec, err := scan(rows)
			if err != nil && !errors.Is(err, session2.ErrCorrupt) {
				return nil, err
			}
			size += len(rec.Data)
			list = append(list, rec)
		}
		return list, rows.Err()
	})
}

// corrupt is the error of a record that scan could not read.
func corrupt(op string, rec session2.Record) error {
	if rec.Version != 0 {
		return nil
	}
	return failedFor(op, rec.ID, errVersion)
}
