package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/session2/session2"
)

// store is what each store on files can do.
type store interface {
	session2.Store
	session2.IterStore
	session2.UserStore
	session2.DeleteOldStore
	session2.TouchStore
}

// A record belongs to one writer, so that what it is follows from what that one did.
const (
	writers = 4 // of a process
	own     = 5 // records of a writer
)

var users = []string{"", "ann", "bob", "eve"}

// step is a line on the pipe: a change that begins, or one that has ended.
type step struct {
	Key     int // the record
	Op      string
	Prev    session2.Version // what there was before it; 0: nothing
	Version session2.Version
	User    string
	Size    int
	Dead    bool   // it expires in the past
	Result  string // "" for a beginning
}

// job is what a process does until it is killed.
type job struct {
	URL   string
	First int // of its records
	Seed  uint64
	Late  bool // break the store
}

const jobEnv = "SESSION2_TORTURE_KILL"

// write does a job. It returns only if something fails.
func write(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	opened, err := session2.Open(context.Background(), j.URL)
	if err != nil {
		return err
	}
	s := opened.(store)
	if j.Late {
		s = &late{store: s}
	}
	failed := make(chan error)
	for i := range writers {
		w := &writer{store: s, rng: rand.New(rand.NewPCG(j.Seed, uint64(i)))}
		go func() { failed <- w.forever(j.First + i*own) }()
	}
	return <-failed
}

// late is a broken store: it makes a deletion when the record or another deletion comes,
// which nobody sees but who kills it in between.
type late struct {
	store
	mu   sync.Mutex
	left session2.ID
}

func (l *late) settle(ctx context.Context, id, next session2.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left != id {
		return nil
	}
	err := l.store.Delete(ctx, l.left)
	l.left = next
	return err
}

func (l *late) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if err := l.settle(ctx, id, session2.ID{}); err != nil {
		return session2.Record{}, err
	}
	return l.store.Load(ctx, id)
}

func (l *late) Delete(ctx context.Context, id session2.ID) error {
	l.mu.Lock()
	left := l.left
	l.mu.Unlock()
	return l.settle(ctx, left, id)
}

type writer struct {
	store
	rng *rand.Rand
}

// forever changes the records from first on.
func (w *writer) forever(first int) error {
	for {
		if err := w.change(first + w.rng.IntN(own)); err != nil {
			return err
		}
	}
}

func (w *writer) change(key int) error {
	ctx := context.Background()
	old, err := w.Load(ctx, id(key))
	if err != nil && !errors.Is(err, session2.ErrNotFound) {
		return err
	}
	s := step{Key: key, Op: "save", Prev: old.Version, Version: session2.Version(w.rng.Uint64() | 1),
		User: users[w.rng.IntN(len(users))], Size: w.rng.IntN(300), Dead: w.rng.IntN(4) == 0}
	if w.rng.IntN(4) == 0 {
		s.Size = w.rng.IntN(30_000)
	}
	do := func() error { return w.Save(ctx, s.record(), old.Version) }
	switch w.rng.IntN(10) {
	case 0, 1:
		s.Op = "delete"
		do = func() error { return w.Delete(ctx, id(key)) }
	case 2:
		s.Op, s.Version, s.Dead = "touch", old.Version, false
		do = func() error { return w.Touch(ctx, id(key), time.Now(), s.expires()) }
	case 3:
		s.Op = "sweep"
		do = func() error { _, err := w.DeleteOld(ctx, age); return err }
	}
	tell(s)
	s.Result = "done"
	if err := do(); errors.Is(err, session2.ErrNotFound) { // it was swept
		s.Result = "absent"
	} else if err != nil {
		return fmt.Errorf("%s: %w", s.Op, err)
	}
	tell(s)
	return nil
}

var pipe sync.Mutex

// tell writes a line, whole: it is on the pipe when this returns.
func tell(s step) {
	line, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	pipe.Lock()
	defer pipe.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func id(key int) session2.ID { return session2.ID{byte(key), 7: byte(key), 15: 1} }

// age is that of no record: a sweep removes those that have expired.
const age = 1000 * time.Hour

// epoch is when dead records have expired, and from when on others will.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (s step) expires() time.Time {
	if s.Dead {
		return epoch
	}
	return epoch.AddDate(100, 0, 0)
}

// record returns what a step saves. The data follow from the version.
func (s step) record() session2.Record {
	now := time.Now()
	rec := session2.Record{ID: id(s.Key), Version: s.Version, User: s.User, Created: now, Accessed: now,
		Expires: s.expires(), Data: make([]byte, s.Size)}
	rng := rand.New(rand.NewPCG(uint64(s.Version), 1))
	for i := range rec.Data {
		rec.Data[i] = byte(rng.Uint32())
	}
	return rec
}
