package storetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

// A plainStore is the least that a store has to be: four methods, no promises.
type plainStore map[session2.ID]session2.Record

func (s plainStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, found := s[id]
	if err := ctx.Err(); err != nil || found {
		return copied(rec), err
	}
	return session2.Record{}, session2.ErrNotFound
}

func (s plainStore) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	old, found := s[rec.ID]
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case rec.Version == 0:
		return errors.New("version zero")
	case found && old.Version == rec.Version:
		return nil
	case found && old.Version != prev:
		return session2.ErrConflict
	case !found && prev != 0:
		return session2.ErrNotFound
	}
	s[rec.ID] = copied(rec)
	return nil
}

func (s plainStore) Delete(ctx context.Context, id session2.ID) error {
	if ctx.Err() == nil {
		delete(s, id)
	}
	return ctx.Err()
}

func (s plainStore) Has(ctx context.Context, id session2.ID) (bool, error) {
	_, found := s[id]
	return found, ctx.Err()
}

// copied returns the record as the contract wants it to be kept.
func copied(rec session2.Record) session2.Record {
	rec.Data = append([]byte(nil), rec.Data...)
	rec.Created = rec.Created.UTC().Truncate(time.Microsecond)
	rec.Accessed = rec.Accessed.UTC().Truncate(time.Microsecond)
	rec.Expires = rec.Expires.UTC().Truncate(time.Microsecond)
	return rec
}

// The suite passes a store that does no more than the contract asks for.
func TestPlainStore(t *testing.T) {
	storetest.Run(t, func(testing.TB, string) session2.Store { return plainStore{} }, nil)
}
