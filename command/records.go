package command

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/session2/session2"
)

// list prints one line a session, as they come from the store.
func list(ctx context.Context, j *job) error {
	records, err := j.records(ctx)
	if err != nil {
		return err
	}
	for rec, err := range records {
		if err == nil {
			err = j.listOne(rec)
		}
		if errors.Is(err, session2.ErrCorrupt) { // the others are to be seen all the same
			j.found.add(rec.ID, err)
		} else if err != nil {
			return err
		}
	}
	if j.user != "" {
		j.hint(ctx, j.user)
	}
	return nil
}

// listOne prints a record, also one whose data cannot be read.
func (j *job) listOne(rec session2.Record) error {
	e, unread := newEntry(rec, j.values)
	if j.user == "" && !j.chosen(e.Realm) {
		return unread
	}
	if !j.values {
		e.details = nil
	}
	if err := j.out.row(e); err != nil {
		return err
	}
	return unread
}

// records returns all sessions, or those of the user that -user names.
func (j *job) records(ctx context.Context) (iter.Seq2[session2.Record, error], error) {
	if j.user != "" {
		return j.ofUser(ctx, j.user)
	}
	return all(ctx, j.store, j.where)
}

// ofUser returns a user's sessions: by the store's index, or else out of all, as a manager
// does.
func (j *job) ofUser(ctx context.Context, user string) (iter.Seq2[session2.Record, error], error) {
	key := j.userKey(user)
	if s, ok := j.store.(session2.UserStore); ok {
		return s.IterUser(ctx, key), nil
	}
	records, err := all(ctx, j.store, j.where)
	if err != nil {
		return nil, err
	}
	return func(yield func(session2.Record, error) bool) {
		for rec, err := range records {
			if (err != nil || rec.User == key) && !yield(rec, err) {
				return
			}
		}
	}, nil
}

// show prints one session, or what can be told of one whose data cannot be read.
func show(ctx context.Context, j *job) error {
	id, err := parseID(j.args[0])
	if err != nil {
		return err
	}
	rec, err := j.store.Load(ctx, id)
	if err != nil {
		return err
	}
	e, unread := newEntry(rec, j.values)
	return errors.Join(j.out.page(e), unread)
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
	var failed error
	for i := 0; i < len(ids) && failed == nil; i++ {
		var found bool
		found, failed = j.removeOne(ctx, ids[i])
		switch {
		case failed != nil:
		case found:
			deleted++
		default:
			absent = append(absent, ids[i].String())
		}
	}
	unsure := errors.Is(failed, session2.ErrUncertain)
	f := fields{"deleted": deleted, "absent": absent, "dry_run": j.dry, "uncertain": unsure}
	err := errors.Join(failed, j.out.result(f, "%s %s", j.did("deleted"), atLeast(deleted, unsure)))
	if len(absent) == 0 {
		return err
	}
	missed := fmt.Errorf("there is no session %s", strings.Join(absent, ", "))
	if err == nil {
		return &exitError{exitNotFound, missed}
	}
	return errors.Join(err, missed)
}

func (j *job) removeOne(ctx context.Context, id session2.ID) (found bool, err error) {
	found, err = j.store.Has(ctx, id)
	if err != nil || !found || j.dry {
		return found, err
	}
	return true, j.store.Delete(context.WithoutCancel(ctx), id) // an interruption waits for its end
}

// atLeast is a number that may be too small.
func atLeast(n int, unsure bool) string {
	if unsure {
		return fmt.Sprintf("%d or more", n)
	}
	return strconv.Itoa(n)
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
	if user == "" {
		return usageError("the user is empty")
	}
	n, err := j.endUser(ctx, user)
	if err == nil {
		j.hint(ctx, user)
	}
	return j.deleted(n, err, fields{"realm": j.realm, "user": user})
}

func (j *job) endUser(ctx context.Context, user string) (int, error) {
	if s, ok := j.store.(session2.UserStore); ok && !j.dry {
		return s.DeleteUser(j.bar.deleting(ctx), j.userKey(user))
	}
	records, err := j.ofUser(ctx, user)
	if err != nil {
		return 0, err
	}
	var failed error
	n, err := j.count(records, func(rec session2.Record, err error) bool {
		if err == nil && !j.dry && failed == nil {
			failed = j.store.Delete(ctx, rec.ID)
		}
		return j.dry || err == nil && failed == nil
	})
	return n, errors.Join(failed, err)
}

// removeOld deletes what was not accessed for -age, and what has expired.
func removeOld(ctx context.Context, j *job) error {
	n, err := j.sweep(ctx)
	return j.deleted(n, err, fields{})
}

// deleted prints how many were deleted, also before an error.
func (j *job) deleted(n int, err error, f fields) error {
	unsure := errors.Is(err, session2.ErrUncertain)
	if err != nil && n == 0 && !unsure {
		return err
	}
	f["deleted"], f["dry_run"], f["uncertain"] = n, j.dry, unsure
	return errors.Join(err, j.out.result(f, "%s %s", j.did("deleted"), atLeast(n, unsure)))
}

func (j *job) sweep(ctx context.Context) (int, error) {
	if j.dry {
		it, ok := j.store.(session2.IterStore)
		if !ok {
			return 0, errors.New("the store does not list its sessions")
		}
		now := time.Now()
		return j.count(j.bar.over(it.Iter(ctx)), func(rec session2.Record, err error) bool {
			return err == nil && (!rec.Accessed.After(now.Add(-j.age)) || !rec.Expires.After(now))
		})
	}
	s, ok := j.store.(session2.DeleteOldStore)
	if !ok {
		return 0, errors.New("the store has no DeleteOld")
	}
	return s.DeleteOld(j.bar.deleting(ctx), j.age)
}

// count counts the records that are meant. Of a corrupt one, which comes with
// its error, the times are not known.
func (j *job) count(
	records iter.Seq2[session2.Record, error], meant func(session2.Record, error) bool,
) (n int, err error) {
	for rec, err := range records {
		if errors.Is(err, session2.ErrCorrupt) {
			j.found.add(rec.ID, err)
		} else if err != nil {
			return n, err
		}
		if meant(rec, err) {
			n++
		}
	}
	return n, nil
}
