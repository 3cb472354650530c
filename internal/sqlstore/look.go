package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"

	"github.com/session2/session2/internal/record"
)

// found is what a look at one ID found.
type found struct {
	ok bool
	r  record.Record // without its ID; of Has and Version, with its version alone
}

// look is a query for what there is under one ID: Load's, or one of a single
// number. It is one piece of memory.
type look struct {
	s       *Store
	query   string
	id      [16]byte
	args    [1]driver.NamedValue
	columns []driver.Value
	room    [6]driver.Value
}

func (s *Store) look(query string, id [16]byte, columns int) *look {
	l := &look{s: s, query: query, id: id}
	l.args[0] = driver.NamedValue{Ordinal: 1, Value: s.arg(l.id[:])}
	l.columns = l.room[:columns]
	return l
}

// once makes one attempt.
func (l *look) once(ctx context.Context, here bool) (f found, err error) {
	err = l.s.on(ctx, l.query, here, func(ctx context.Context, stmt driver.Stmt) error {
		q, ok := stmt.(driver.StmtQueryContext)
		if !ok {
			return errIndirect
		}
		rows, err := q.QueryContext(ctx, l.args[:])
		if err != nil {
			return err
		}
		defer rows.Close()
		for {
			if err := rows.Next(l.columns); err != nil {
				return end(err)
			}
			if f, err = l.scan(); err != nil {
				return err
			}
		}
	})
	if err == errIndirect || errors.Is(err, driver.ErrBadConn) || l.s.inlines(err) {
		if here {
			return f, errElsewhere
		}
		return l.indirect(ctx)
	}
	return f, err
}

// end is the error at the end of the rows.
func end(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// indirect makes the attempt by database/sql, which asks again on another
// connection where one broke.
func (l *look) indirect(ctx context.Context) (found, error) {
	list, err := queryOnce(ctx, l.s, l.query, []any{l.args[0].Value}, func(rows *sql.Rows, f *found) error {
		into := make([]any, len(l.columns))
		for i := range into {
			into[i] = &l.columns[i]
		}
		err := rows.Scan(into...)
		if err == nil {
			*f, err = l.scan()
		}
		return err
	})
	if len(list) == 0 {
		return found{}, err
	}
	return list[0], err
}

// scan returns what the columns hold. Their bytes are the driver's.
func (l *look) scan() (f found, err error) {
	f.ok = true
	if err := (*versionColumn)(&f.r.Version).Scan(l.columns[0]); err != nil || len(l.columns) == 1 {
		return f, err
	}
	data, ok := l.columns[5].([]byte)
	if !ok {
		return f, errors.New("the data in the table are not bytes")
	}
	f.r.Data = append([]byte{}, data...)
	err = (*bytesColumn)(&f.r.User).Scan(l.columns[1])
	for i, to := range []*int64{&f.r.Created, &f.r.Accessed, &f.r.Expires} {
		var n versionColumn
		if err == nil {
			err = n.Scan(l.columns[2+i])
		}
		*to = int64(n)
	}
	return f, err
}
