package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/session2/session2"
)

// list prints one line a session, as they come from the store.
func list(ctx context.Context, j *job) error {
	records, err := j.records(ctx)
	if err != nil {
		return err
	}
	corrupt := 0
	for rec, err := range records {
		if err == nil {
			err = j.listOne(rec)
		}
		switch {
		case errors.Is(err, session2.ErrCorrupt): // the others are to be seen all the same
			if corrupt++; corrupt <= maxNotes {
				j.bar.note(err.Error())
			}
		case err != nil:
			return err
		}
	}
	if corrupt > 0 {
		return fmt.Errorf("%d records: %w: session2 check names them", corrupt, session2.ErrCorrupt)
	}
	return nil
}

func (j *job) listOne(rec session2.Record) error {
	if !j.values {
		return j.out.row(newEntry(rec))
	}
	e, err := detailed(rec, true)
	if err != nil {
		return err
	}
	return j.out.row(e)
}

// records returns all sessions, or those of the user that -user names.
func (j *job) records(ctx context.Context) (iter.Seq2[session2.Record, error], error) {
	if j.user != "" {
		if s, ok := j.store.(session2.UserStore); ok {
			return s.IterUser(ctx, j.user), nil
		}
		return nil, errors.New("the store does not list sessions by user")
	}
	return all(ctx, j.store)
}

func all(ctx context.Context, store session2.Store) (iter.Seq2[session2.Record, error], error) {
	if s, ok := store.(session2.IterStore); ok {
		return s.Iter(ctx), nil
	}
	return nil, errors.New("the store does not list its sessions")
}

// show prints one session.
func show(ctx context.Context, j *job) error {
	id, err := parseID(j.args[0])
	if err != nil {
		return err
	}
	rec, err := j.store.Load(ctx, id)
	if err != nil {
		return err
	}
	e, err := detailed(rec, j.values)
	if err != nil {
		return err
	}
	return j.out.page(e)
}

// parseID repeats nothing of what it was given: it may be a cookie.
func parseID(s string) (session2.ID, error) {
	id, err := session2.ParseID(s)
	if err != nil {
		return id, usageError("a session ID is 32 hexadecimal digits")
	}
	return id, nil
}

// remove ends sessions. One that is not there is reported, and the others are
// ended all the same.
func remove(ctx context.Context, j *job) error {
	ids := make([]session2.ID, len(j.args))
	for i, arg := range j.args {
		var err error
		if ids[i], err = parseID(arg); err != nil {
			return err
		}
	}
	deleted, absent := 0, []string{}
	for _, id := range ids {
		found, err := j.removeOne(ctx, id)
		if err != nil {
			return err
		}
		if found {
			deleted++
		} else {
			absent = append(absent, id.String())
		}
	}
	if err := j.out.result(fields{"deleted": deleted, "absent": absent, "dry_run": j.dry}, "%s %d", j.did("deleted"), deleted); err != nil {
		return err
	}
	if len(absent) > 0 {
		return &exitError{exitNotFound, fmt.Errorf("there is no session %s", absent[0])}
	}
	return nil
}

func (j *job) removeOne(ctx context.Context, id session2.ID) (found bool, err error) {
	found, err = j.store.Has(ctx, id)
	if err != nil || !found || j.dry {
		return found, err
	}
	return true, j.store.Delete(ctx, id)
}

// did is the word for what was done, or would have been.
func (j *job) did(word string) string {
	if j.dry {
		return "would have " + word
	}
	return word
}

// removeUser ends a user's sessions.
func removeUser(ctx context.Context, j *job) error {
	user := j.args[0]
	s, ok := j.store.(session2.UserStore)
	switch {
	case user == "":
		return usageError("the user is empty")
	case !ok:
		return errors.New("the store does not list sessions by user")
	}
	var n int
	var err error
	if j.dry {
		n, err = count(s.IterUser(ctx, user), func(session2.Record) bool { return true })
	} else {
		n, err = s.DeleteUser(j.bar.deleting(ctx), user)
	}
	if err != nil {
		return err
	}
	return j.out.result(fields{"deleted": n, "user": user, "dry_run": j.dry}, "%s %d", j.did("deleted"), n)
}

// removeOld deletes what was not accessed for -age, and what has expired.
func removeOld(ctx context.Context, j *job) error {
	n, err := j.sweep(ctx)
	if err != nil {
		return err
	}
	return j.out.result(fields{"deleted": n, "dry_run": j.dry}, "%s %d", j.did("deleted"), n)
}

func (j *job) sweep(ctx context.Context) (int, error) {
	if j.dry {
		records, err := all(ctx, j.store)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		return count(j.bar.over(records), func(rec session2.Record) bool {
			return !rec.Accessed.After(now.Add(-j.age)) || !rec.Expires.After(now)
		})
	}
	s, ok := j.store.(session2.DeleteOldStore)
	if !ok {
		return 0, errors.New("the store has no DeleteOld")
	}
	return s.DeleteOld(j.bar.deleting(ctx), j.age)
}

// count counts the records that are meant. Corrupt ones are not.
func count(records iter.Seq2[session2.Record, error], meant func(session2.Record) bool) (n int, err error) {
	for rec, err := range records {
		switch {
		case errors.Is(err, session2.ErrCorrupt):
		case err != nil:
			return n, err
		case meant(rec):
			n++
		}
	}
	return n, nil
}
