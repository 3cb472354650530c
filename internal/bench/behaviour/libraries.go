package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/gorilla/sessions"

	"github.com/session2/session2"
)

// library is one way to keep sessions, with its defaults.
type library struct {
	name string
	open func() (*pages, error)
}

// pages are an application: /login and /logout, /user and /count and /value, which tell,
// /add, /slow and /stream, which change something.
type pages struct {
	handler http.Handler
	writes  func() int64           // to the store, so far
	dump    func() ([]byte, error) // all that the store holds
	done    func()

	gate           sync.WaitGroup // /add waits until all are there
	inside, finish chan struct{}  // /slow says that it runs, and waits for its end
}

func newPages() *pages {
	return &pages{done: func() {}, inside: make(chan struct{}, 1), finish: make(chan struct{})}
}

func (p *pages) wait() {
	p.gate.Done()
	p.gate.Wait()
}

func (p *pages) linger() {
	p.inside <- struct{}{}
	<-p.finish
}

func flush(w http.ResponseWriter) {
	http.NewResponseController(w).Flush()
	fmt.Fprint(w, "streamed")
}

func libraries() []library {
	return []library{{"session2", ours}, {"alexedwards/scs", scsPages}, {"gorilla/sessions, files", gorilla}}
}

// counted counts a store's writes.
type counted struct {
	*session2.MemoryStore
	n atomic.Int64
}

func (c *counted) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	c.n.Add(1)
	return c.MemoryStore.Save(ctx, rec, prev)
}

func (c *counted) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	c.n.Add(1)
	return c.MemoryStore.Touch(ctx, id, accessed, expires)
}

func ours() (*pages, error) {
	store := &counted{MemoryStore: session2.NewMemoryStore()}
	m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	p, mux := newPages(), http.NewServeMux()
	count, value := session2.NewKey[int]("count"), session2.NewKey[string]("value")
	page := func(path string, f func(w http.ResponseWriter, s *session2.Session)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { f(w, m.Session(r)) })
	}
	page("/login", func(_ http.ResponseWriter, s *session2.Session) { s.SetUser("alice") })
	page("/logout", func(_ http.ResponseWriter, s *session2.Session) { s.Destroy() })
	page("/user", func(w http.ResponseWriter, s *session2.Session) { fmt.Fprint(w, s.User()) })
	page("/count", func(w http.ResponseWriter, s *session2.Session) { n, _ := count.Get(s); fmt.Fprint(w, n) })
	page("/value", func(w http.ResponseWriter, s *session2.Session) { v, _ := value.Get(s); fmt.Fprint(w, v) })
	page("/add", func(_ http.ResponseWriter, s *session2.Session) {
		s.User() // the session is loaded, as the others' are by now
		p.wait()
		count.Update(s, func(n int) int { return n + 1 })
	})
	page("/slow", func(_ http.ResponseWriter, s *session2.Session) {
		s.User()
		p.linger()
		value.Set(s, "late")
	})
	page("/stream", func(w http.ResponseWriter, s *session2.Session) { value.Set(s, "kept"); flush(w) })
	p.handler, p.writes, p.dump = m.Wrap(mux), store.n.Load, store.dump
	return p, nil
}

// dump returns the IDs and the data of all records.
func (c *counted) dump() (all []byte, err error) {
	for rec, err := range c.Iter(context.Background()) {
		if err != nil {
			return nil, err
		}
		all = append(append(append(all, rec.ID.String()...), rec.ID[:]...), rec.Data...)
	}
	return all, nil
}

// scsCounted counts a store's writes.
type scsCounted struct {
	*memstore.MemStore
	n atomic.Int64
}

func (c *scsCounted) Commit(token string, b []byte, expiry time.Time) error {
	c.n.Add(1)
	return c.MemStore.Commit(token, b, expiry)
}

func (c *scsCounted) dump() (all []byte, err error) {
	found, err := c.All()
	for token, b := range found {
		all = append(append(all, token...), b...)
	}
	return all, err
}

func scsPages() (*pages, error) {
	store := &scsCounted{MemStore: memstore.NewWithCleanupInterval(0)}
	m := scs.New()
	m.Store, m.IdleTimeout, m.Cookie.Secure = store, 30*time.Minute, true
	p, mux := newPages(), http.NewServeMux()
	page := func(path string, f func(w http.ResponseWriter, ctx context.Context)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { f(w, r.Context()) })
	}
	page("/login", func(_ http.ResponseWriter, ctx context.Context) {
		m.RenewToken(ctx)
		m.Put(ctx, "user", "alice")
	})
	page("/logout", func(_ http.ResponseWriter, ctx context.Context) { m.Destroy(ctx) })
	page("/user", func(w http.ResponseWriter, ctx context.Context) { fmt.Fprint(w, m.GetString(ctx, "user")) })
	page("/count", func(w http.ResponseWriter, ctx context.Context) { fmt.Fprint(w, m.GetInt(ctx, "count")) })
	page("/value", func(w http.ResponseWriter, ctx context.Context) { fmt.Fprint(w, m.GetString(ctx, "value")) })
	page("/add", func(_ http.ResponseWriter, ctx context.Context) {
		p.wait()
		m.Put(ctx, "count", m.GetInt(ctx, "count")+1)
	})
	page("/slow", func(_ http.ResponseWriter, ctx context.Context) {
		p.linger()
		m.Put(ctx, "value", "late")
	})
	page("/stream", func(w http.ResponseWriter, ctx context.Context) { m.Put(ctx, "value", "kept"); flush(w) })
	p.handler, p.writes, p.dump = m.LoadAndSave(mux), store.n.Load, store.dump
	return p, nil
}

func gorilla() (*pages, error) {
	dir, err := os.MkdirTemp("", "behaviour-")
	if err != nil {
		return nil, err
	}
	store := sessions.NewFilesystemStore(dir, []byte("0123456789abcdef0123456789abcdef"))
	p, mux := newPages(), http.NewServeMux()
	var n atomic.Int64
	// A handler saves where it changes something, and where it moves the end of the session.
	page := func(path string, f func(w http.ResponseWriter, s *sessions.Session, save func() bool)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			s, err := store.Get(r, "session")
			if err != nil {
				http.Error(w, "session", http.StatusInternalServerError)
				return
			}
			f(w, s, func() bool {
				n.Add(1)
				err := s.Save(r, w)
				if err != nil {
					http.Error(w, "session", http.StatusInternalServerError)
				}
				return err == nil
			})
		})
	}
	tell := func(key string) func(http.ResponseWriter, *sessions.Session, func() bool) {
		return func(w http.ResponseWriter, s *sessions.Session, save func() bool) {
			if save() && s.Values[key] != nil {
				fmt.Fprint(w, s.Values[key])
			}
		}
	}
	page("/login", func(_ http.ResponseWriter, s *sessions.Session, save func() bool) {
		s.Values["user"] = "alice"
		save()
	})
	page("/logout", func(_ http.ResponseWriter, s *sessions.Session, save func() bool) {
		s.Options.MaxAge = -1
		save()
	})
	page("/user", tell("user"))
	page("/count", tell("count"))
	page("/value", tell("value"))
	page("/add", func(_ http.ResponseWriter, s *sessions.Session, save func() bool) {
		p.wait()
		before, _ := s.Values["count"].(int)
		s.Values["count"] = before + 1
		save()
	})
	page("/slow", func(_ http.ResponseWriter, s *sessions.Session, save func() bool) {
		p.linger()
		s.Values["value"] = "late"
		save()
	})
	page("/stream", func(w http.ResponseWriter, s *sessions.Session, save func() bool) {
		s.Values["value"] = "kept"
		if save() {
			flush(w)
		}
	})
	p.handler, p.writes, p.dump = mux, n.Load, func() ([]byte, error) { return dumpFiles(dir) }
	p.done = func() { os.RemoveAll(dir) }
	return p, nil
}

// dumpFiles returns the names and the contents of all files.
func dumpFiles(dir string) (all []byte, err error) {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		all = append(append(all, f.Name()...), b...)
	}
	return all, err
}
