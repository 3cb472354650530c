package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/realm"
)

// maxFailures is how many records may fail before a copy gives up: one that the
// target cannot hold must not stop the others, but a target that is gone must.
const maxFailures = 100

// copyStore copies one store to another, and compares them afterwards.
func copyStore(ctx context.Context, j *job) (err error) {
	c := &copying{job: j, tally: make(map[outcome]int)}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.open(ctx); err != nil {
		return err
	}
	c.began = time.Now()
	err = j.setAside(func() error { return c.carryOut(ctx) })
	j.bar.stop()
	return errors.Join(c.report(time.Since(c.began)), err, c.verdict())
}

// carryOut copies, compares and prunes.
func (c *copying) carryOut(ctx context.Context) error {
	if err := c.pass(ctx, c.copy); err != nil {
		return err
	}
	if !c.dry {
		c.verifying = true
		if err := c.pass(ctx, c.verify); err != nil {
			return err
		}
	}
	if c.del {
		return c.prune(ctx)
	}
	return nil
}

// open opens both stores, and sets up the target.
func (c *copying) open(ctx context.Context) error {
	from, err := c.locate(c.args[0])
	if err != nil {
		return err
	}
	to, err := c.locate(c.args[1])
	if err != nil {
		return err
	}
	if from.url.String() == to.url.String() {
		return usageError("both stores are the same")
	}
	c.where, c.source = to, from
	if c.from, err = from.open(ctx, false); err != nil {
		return err
	}
	if notSetUp(ctx, c.from) {
		return from.absent()
	}
	absent := to.missing()
	if c.dry && absent {
		c.to = session2.NewMemoryStore() // as empty as it would be
		return nil
	}
	if c.to, err = to.open(ctx, !c.dry); err != nil {
		return err
	}
	absent = absent || notSetUp(ctx, c.to)
	switch {
	case c.dry && absent:
		err = session2.Close(c.to)
		c.to = session2.NewMemoryStore()
	case !c.dry:
		err = session2.Setup(ctx, c.to)
	}
	if err == nil && absent && !c.dry {
		c.bar.note("session2: there was no store at " + to.String() + ": made one")
	}
	return err
}

func (c *copying) close() error { return errors.Join(session2.Close(c.from), session2.Close(c.to)) }

// outcome is what became of a record.
type outcome string

const (
	copied   outcome = "copied"   // it was not there
	replaced outcome = "replaced" // it was there, and older
	present  outcome = "present"  // it was there
	newer    outcome = "newer"    // it was there, and newer
	expired  outcome = "expired"
	unread   outcome = "unread" // it was copied, and this program cannot read its data
	failed   outcome = "failed"

	verified outcome = "verified"
	deleted  outcome = "deleted" // it was in the target alone
	gone     outcome = "gone"    // deleted or changed while it was copied
	missing  outcome = "missing"
)

var outcomes = []outcome{copied, replaced, present, newer, expired, unread, failed, verified, gone, missing, deleted}

// copying is a copy under way.
type copying struct {
	*job
	from, to  session2.Store
	source    location // of from; that of to is the job's
	began     time.Time
	verifying bool // it is the second pass

	mu     sync.Mutex
	tally  map[outcome]int
	living int   // records of the source that have not expired
	stuck  error // another process stands still: each record would wait for it anew
}

// pass does something with each record of the source, several at a time.
func (c *copying) pass(ctx context.Context, f func(context.Context, session2.Record) (outcome, error)) error {
	records, err := all(ctx, c.from, c.source)
	if err != nil {
		return err
	}
	work := make(chan session2.Record)
	var wg sync.WaitGroup
	for range c.workers {
		wg.Go(func() {
			for rec := range work {
				c.one(ctx, rec, f)
			}
		})
	}
	err = nil
	for rec, e := range c.bar.over(records) {
		if errors.Is(e, session2.ErrCorrupt) {
			c.found.add(rec.ID, e)
		} else if e != nil {
			err = e
			break
		} else if work <- rec; c.hopeless() != nil {
			break
		}
	}
	close(work)
	wg.Wait()
	return cmp.Or(err, c.hopeless())
}

// one does it with one record. An interruption waits for its end.
func (c *copying) one(
	ctx context.Context, rec session2.Record, f func(context.Context, session2.Record) (outcome, error),
) {
	if !rec.Expires.After(c.began) {
		if !c.verifying {
			c.count(expired, nil)
		}
		return
	}
	c.live()
	content, err := session2.Inspect(rec)
	if err != nil && c.found.add(rec.ID, err) {
		c.count(unread, nil) // a later release may have written it
	}
	if realm.IsMarkers(content.Realm) {
		if c.verifying {
			return
		}
		c.count(failed, fmt.Errorf("%v: NewMigrating moves it to another store, or has: copy that one", rec.ID))
		return
	}
	o, err := f(context.WithoutCancel(ctx), rec)
	switch {
	case errors.Is(err, session2.ErrCorrupt):
		c.found.add(rec.ID, fmt.Errorf("in the target: %w", err))
		return
	case err != nil:
		o = failed
	case o == missing:
		err = fmt.Errorf("%v is not in the target as it should be", rec.ID)
	}
	c.count(o, err)
}

func (c *copying) count(o outcome, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally[o]++
	if err != nil {
		c.bar.note(err.Error())
	}
	if errors.Is(err, lockfile.ErrHeld) {
		c.stuck = err
	}
}

func (c *copying) live() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.living++
}

// hopeless returns why to go on is of no use, or nil.
func (c *copying) hopeless() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tally[failed] >= maxFailures {
		return fmt.Errorf("gave up after %d failures", maxFailures)
	}
	return c.stuck
}

// copy copies one record, over what it saw in the target and nothing else.
func (c *copying) copy(ctx context.Context, rec session2.Record) (outcome, error) {
	for tries := 10; ; tries-- {
		o, prev, err := c.decide(ctx, rec)
		if err != nil || c.dry || o != copied && o != replaced {
			return o, err
		}
		err = c.to.Save(ctx, rec, prev)
		moved := errors.Is(err, session2.ErrConflict) || errors.Is(err, session2.ErrNotFound) ||
			errors.Is(err, session2.ErrUncertain)
		if !moved || tries == 0 {
			return o, err
		}
	}
}

// decide looks into the target and says what is to be done: only what it does
// not have, or what is older there, is written.
func (c *copying) decide(ctx context.Context, rec session2.Record) (outcome, session2.Version, error) {
	there, err := c.there(ctx, rec.ID)
	switch {
	case errors.Is(err, session2.ErrNotFound):
		return copied, 0, nil
	case err != nil:
		return failed, 0, err
	case there.Version == rec.Version:
		return present, 0, c.touch(ctx, rec, there)
	case succeeds(rec, there):
		return replaced, there.Version, nil
	}
	return newer, 0, nil
}

// there returns the target's record. A marker, which a move to another store has left, is
// newer than any session, and none.
func (c *copying) there(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, err := c.to.Load(ctx, id)
	if err != nil {
		return rec, err
	}
	if content, _ := session2.Inspect(rec); realm.IsMarkers(content.Realm) {
		return rec, fmt.Errorf("%v: NewMigrating has moved it out of the target: go back by NewMigrating", id)
	}
	return rec, nil
}

// touch carries an access over that came after the record's last change.
func (c *copying) touch(ctx context.Context, rec, there session2.Record) error {
	t, ok := c.to.(session2.TouchStore)
	if c.dry || !ok || !rec.Accessed.After(there.Accessed) && !rec.Expires.After(there.Expires) {
		return nil
	}
	if err := t.Touch(ctx, rec.ID, rec.Accessed, rec.Expires); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// succeeds reports whether rec is a later version of old. A record remembers its
// latest versions; where these do not tell, the later access does, and where
// that does not, rec is none: what is in the target is left alone.
func succeeds(rec, old session2.Record) bool {
	switch {
	case remembers(rec, old.Version):
		return true
	case remembers(old, rec.Version):
		return false
	}
	return rec.Accessed.After(old.Accessed)
}

func remembers(rec session2.Record, v session2.Version) bool {
	c, err := session2.Inspect(rec)
	return err == nil && slices.Contains(c.Versions, v)
}

// verify finds the record in the target, the same or newer.
func (c *copying) verify(ctx context.Context, rec session2.Record) (outcome, error) {
	if ok, err := c.holds(ctx, rec); ok || err != nil {
		return verified, err
	}
	o, err := c.copy(ctx, rec)
	if err != nil {
		return failed, err
	}
	if o == copied || o == replaced { // it is new, or was changed since
		c.count(o, nil)
	}
	if ok, err := c.holds(ctx, rec); ok || err != nil {
		return verified, err
	}
	switch now, err := c.from.Load(ctx, rec.ID); {
	case errors.Is(err, session2.ErrNotFound), err == nil && now.Version != rec.Version:
		return gone, nil
	case err != nil:
		return failed, err
	case !rec.Expires.After(time.Now()): // while it was copied
		return gone, nil
	}
	return missing, nil
}

// holds reports whether the target has the record, or a later version.
func (c *copying) holds(ctx context.Context, rec session2.Record) (bool, error) {
	there, err := c.there(ctx, rec.ID)
	if errors.Is(err, session2.ErrNotFound) {
		return false, nil
	}
	return err == nil && covers(there, rec), err
}

// prune deletes from the target what the source does not have, or no longer.
// What the source has lost is not ended by that.
func (c *copying) prune(ctx context.Context) error {
	if c.found.lost > 0 {
		return errors.New("nothing was deleted: a store is damaged where records may be lost")
	}
	if c.living == 0 && !c.force { // the arguments are swapped, or FROM is a new volume
		return fmt.Errorf("nothing was deleted: no session of %s is left, so all of %s would go; with -force they do",
			c.source, c.where)
	}
	records, ok := c.to.(session2.IterStore)
	if !ok {
		return errors.New("the store does not list its sessions")
	}
	for rec, err := range c.bar.over(records.Iter(ctx)) {
		if err != nil && !errors.Is(err, session2.ErrCorrupt) {
			return err
		}
		if err := c.pruneOne(ctx, rec.ID, err); err != nil {
			return err
		}
	}
	return nil
}

// pruneOne deletes a record of the target if the source does not have it. It may
// be corrupt, which is said unless it goes.
func (c *copying) pruneOne(ctx context.Context, id session2.ID, damage error) error {
	found, err := c.from.Has(ctx, id)
	if err != nil {
		return err
	}
	if found || c.found.has(id) || damage != nil && id == (session2.ID{}) {
		if damage != nil {
			c.found.add(id, fmt.Errorf("in the target: %w", damage))
		}
		return nil
	}
	if !c.dry {
		if err := c.to.Delete(context.WithoutCancel(ctx), id); err != nil { // an interruption waits for its end
			return err
		}
	}
	c.count(deleted, nil)
	return nil
}

// covers reports whether what is there is rec, or came after it.
func covers(there, rec session2.Record) bool {
	if there.Version != rec.Version {
		return !succeeds(rec, there)
	}
	return there.User == rec.User && slices.Equal(there.Data, rec.Data) &&
		there.Created.Equal(rec.Created) && !there.Accessed.Before(rec.Accessed) && !there.Expires.Before(rec.Expires)
}

// report prints how many records came to what.
func (c *copying) report(took time.Duration) error {
	f := fields{"dry_run": c.dry, "seconds": took.Seconds(),
		"corrupt": len(c.found.corrupt), "set_aside": c.found.aside, "damaged": c.found.lost}
	for _, o := range outcomes {
		f[string(o)] = c.tally[o]
	}
	t := c.tally
	return c.out.result(f, "%s %d, replaced %d; already there %d, newer there %d; "+
		"left out: expired %d, corrupt %d, failed %d; copied and corrupt %d; "+
		"verified %d, changed meanwhile %d, missing %d; deleted %d; %v",
		c.did("copied"), t[copied], t[replaced], t[present], t[newer],
		t[expired], len(c.found.corrupt)-t[unread], t[failed], t[unread],
		t[verified], t[gone], t[missing], t[deleted], took.Round(time.Millisecond))
}

// verdict is the error of a copy that is not complete.
func (c *copying) verdict() error {
	err := c.found.verdict()
	if n := c.tally[missing]; n > 0 {
		incomplete := fmt.Errorf("%d records are not in the target as they should be", n)
		err = errors.Join(&exitError{exitCorrupt, incomplete}, err)
	}
	if n := c.tally[failed]; n > 0 {
		err = errors.Join(err, fmt.Errorf("%d records failed", n))
	}
	return err
}
