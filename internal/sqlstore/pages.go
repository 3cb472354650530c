package sqlstore

import (
	"context"
	"database/sql"
	"iter"
	"slices"

	"github.com/session2/session2/internal/record"
)

const (
	// PageRows is the number of rows that the narrow query of a list returns at
	// most, and WideRows that of the wide one. A page is held in memory, each
	// record with its data, so the wide one is for small records.
	PageRows = 32
	WideRows = 1000

	// wideBytes is how much a page of the wide query may hold, of what that query
	// answers and of what is to be expected of it.
	wideBytes = 4 << 20
)

// List is the two queries of a list, in the order of IDs.
type List struct{ Narrow, Wide string }

// pages reads records a page at a time. It belongs to one goroutine.
type pages struct {
	s          *Store
	list       List
	first      []any // arguments before the ID to go on from
	from       [16]byte
	wide, done bool
}

// Iter lists all records, in the order of their IDs. It reads some at a time, more
// of small ones, and holds neither a row nor a connection while the loop's body
// runs.
func (s *Store) Iter(ctx context.Context) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		p := &pages{s: s, list: s.q.Page}
		p.each(ctx, yield)
	}
}

// IterUser lists the user's records likewise.
func (s *Store) IterUser(ctx context.Context, user string) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		p := &pages{s: s, list: s.q.UserPage, first: []any{[]byte(user)}, done: user == ""}
		p.each(ctx, yield)
	}
}

// each yields the records of one page after the other.
func (p *pages) each(ctx context.Context, yield func(record.Record, error) bool) {
	for {
		page, err := p.next(ctx)
		if err != nil {
			yield(record.Record{}, err)
		}
		if len(page) == 0 {
			return
		}
		for _, r := range page {
			if !yield(r, checkRow(&r)) {
				return
			}
		}
	}
}

// next returns the next page, and none after the last.
func (p *pages) next(ctx context.Context) ([]record.Record, error) {
	if p.done {
		return nil, p.s.check(ctx)
	}
	limit, q := PageRows, p.list.Narrow
	if p.wide {
		limit, q = WideRows, p.list.Wide
	}
	page, err := p.read(ctx, q)
	if err != nil || len(page) == 0 {
		p.done = true
		return nil, err
	}
	size := 0
	for _, r := range page {
		size += sizeOf(&r)
	}
	var more bool
	p.from, more = Next(page[len(page)-1].ID)
	p.done = !more || len(page) < limit && size < wideBytes
	p.wide = size/len(page)*WideRows < wideBytes
	return page, nil
}

// read reads one page, and leaves the rest of it unread where that is too much.
func (p *pages) read(ctx context.Context, q string) ([]record.Record, error) {
	from := p.from
	args := p.s.args(append(slices.Clone(p.first), from[:])...)
	return call(ctx, p.s, func(ctx context.Context) ([]record.Record, error) {
		size := 0
		return queryOnce(ctx, p.s, q, args, func(rows *sql.Rows, r *record.Record) error {
			err := rows.Scan(idOf(&r.ID), versionOf(&r.Version), bytesOf(&r.User),
				&r.Created, &r.Accessed, &r.Expires, &r.Data)
			if size += sizeOf(r); err == nil && size >= wideBytes && p.wide {
				return errEnough
			}
			return err
		})
	})
}

// sizeOf is about what a record takes in memory.
func sizeOf(r *record.Record) int { return 128 + len(r.User) + len(r.Data) }

// Next returns the ID after id, and false after the last.
func Next(id [16]byte) ([16]byte, bool) {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			return id, true
		}
	}
	return id, false
}
