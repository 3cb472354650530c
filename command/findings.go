package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"

	"github.com/session2/session2"
)

// findings are what a command met that is no record, or none that this program
// can read. Each is named when it is met, and counts in the exit status.
type findings struct {
	bar *progress

	mu      sync.Mutex
	seen    map[session2.ID]bool // the corrupt ones
	corrupt []string             // IDs, each once
	aside   int                  // of these, how many a file store had set aside before
	missing []session2.ID        // records that an index of a file store lacks
	lost    int                  // damaged places in a gob store's file that do not tell whose record was there
}

func newFindings(bar *progress) *findings {
	return &findings{bar: bar, seen: make(map[session2.ID]bool)}
}

// add notes a corrupt record, and reports whether it is a new one.
func (f *findings) add(id session2.ID, err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[id] && id != (session2.ID{}) { // who has no ID is another one each time
		return false
	}
	f.seen[id] = true
	f.corrupt = append(f.corrupt, id.String())
	if errors.As(err, new(*asideError)) {
		f.aside++
	}
	f.bar.note(err.Error())
	return true
}

func (f *findings) has(id session2.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[id]
}

// verdict is the error of a command that met something.
func (f *findings) verdict() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []string
	if n := len(f.corrupt); n > 0 {
		parts = append(parts, fmt.Sprintf("corrupt records: %d", n))
	}
	if n := len(f.missing); n > 0 {
		parts = append(parts, fmt.Sprintf("records missing from an index, which session2 setup rebuilds: %d", n))
	}
	if f.lost > 0 {
		parts = append(parts, fmt.Sprintf("damaged places where records may be lost: %d", f.lost))
	}
	if parts == nil {
		return nil
	}
	return &exitError{exitCorrupt, errors.New(strings.Join(parts, "; "))}
}

// asideError names a record that a file store has set aside.
type asideError struct {
	id    session2.ID
	where location
}

func (e *asideError) Error() string {
	return fmt.Sprintf("session2: %v: corrupt record, set aside in %s/corrupt", e.id, e.where.path())
}

func (e *asideError) Unwrap() error { return session2.ErrCorrupt }

// all lists the records of a store, and the corrupt ones that it has set aside
// before: to the store these are gone, and to whoever counts they are not.
func all(ctx context.Context, store session2.Store, where location) (iter.Seq2[session2.Record, error], error) {
	s, ok := store.(session2.IterStore)
	if !ok {
		return nil, errors.New("the store does not list its sessions")
	}
	return func(yield func(session2.Record, error) bool) {
		met := make(map[session2.ID]bool) // what it sets aside under our eyes
		for rec, err := range s.Iter(ctx) {
			if err != nil {
				met[rec.ID] = true
			}
			if !yield(rec, err) {
				return
			}
		}
		ids, err := where.aside()
		if err != nil {
			yield(session2.Record{}, err)
			return
		}
		for _, id := range ids {
			if met[id] {
				continue
			}
			found, err := store.Has(ctx, id)
			if found { // a whole one has taken its place
				continue
			}
			if !yield(session2.Record{ID: id}, cmp.Or[error](err, &asideError{id, where})) {
				return
			}
		}
	}, nil
}

// setAside calls do, and notes what the store sets aside meanwhile.
func (j *job) setAside(do func() error) error {
	before, err := j.where.aside()
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	old := make(map[session2.ID]bool)
	for _, id := range before {
		old[id] = true
	}
	after, err := j.where.aside()
	for _, id := range after {
		if !old[id] {
			j.found.add(id, &asideError{id, j.where})
		}
	}
	return err
}

// storeLog passes on what a store logs, and counts what it says is lost.
type storeLog struct {
	slog.Handler
	found *findings
}

func newStoreLog(f *findings) storeLog {
	text := slog.NewTextHandler(noteWriter{f.bar}, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	return storeLog{text, f}
}

// Handle implements [slog.Handler]. A gob store names the record if it can; of
// one that it cannot name, nobody else will say that it is gone.
func (l storeLog) Handle(ctx context.Context, r slog.Record) error {
	unknown, recovered := false, false
	r.Attrs(func(a slog.Attr) bool {
		unknown = unknown || a.Key == "id" && a.Value.String() == "unknown"
		recovered = recovered || a.Key == "recovered" && a.Value.Kind() == slog.KindBool && a.Value.Bool()
		return true
	})
	if unknown && !recovered {
		l.found.mu.Lock()
		l.found.lost++
		l.found.mu.Unlock()
	}
	return l.Handler.Handle(ctx, r)
}

// noteWriter makes each line a note beside the progress.
type noteWriter struct{ bar *progress }

func (w noteWriter) Write(line []byte) (int, error) {
	w.bar.note(strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}
