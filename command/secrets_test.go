package command

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// TestNoSecretIsPrinted walks through all that a session can do, on every store, sealed
// and not, and then searches all that was let out, in every spelling: logs, events,
// errors, panics and their stacks, responses, what is printed of sessions and managers,
// the command line's output, and every byte that the store has written. The tokens
// are nowhere but in Set-Cookie. What a session holds is in the bytes of a store that is
// not sealed, where the same search finds it, and nowhere else; nor are the keys, the
// address and the agent in what is sealed.
func TestNoSecretIsPrinted(t *testing.T) {
	for _, kind := range exposed {
		t.Run(kind.name, func(t *testing.T) {
			place := kind.make(t)
			var searches []func()
			for _, sealed := range []bool{false, true} {
				w := newWalk(t, place.url(sealed), sealed)
				w.all()
				if kind.name != "memory" {
					w.commands(place.url(sealed))
				}
				w.check()
				searches = append(searches, func() { w.search(place.bytes(t, sealed)) })
			}
			place.stop()
			for _, search := range searches {
				search()
			}
		})
	}
}

// place is where the stores of a walk are: a sealed one, and one that is not.
type place struct {
	dir   string // with all that is stored, directly in it or in the servers' files
	url   func(sealed bool) string
	apart bool // each store is in a directory of its own
	stop  func()
}

var exposed = []struct {
	name string
	make func(t *testing.T) place
}{
	{"memory", func(t *testing.T) place { return inFiles(t, "memory:", "") }},
	{"file", func(t *testing.T) place { return inFiles(t, "file:", "sessions") }},
	{"bolt", func(t *testing.T) place { return inFiles(t, "bolt:", "sessions.db") }},
	{"gob", func(t *testing.T) place { return inFiles(t, "gob:", "sessions.gob") }},
	{"postgres", func(t *testing.T) place {
		s := testdb.NewPostgres(t)
		return onServer(s, s.DSN()+"&table=")
	}},
	{"mysql", func(t *testing.T) place {
		s := testdb.NewMySQL(t)
		return onServer(s, testdb.MySQLURL(t, s.DSN())+"table=")
	}},
}

func onServer(s *testdb.Server, url string) place {
	return place{dir: s.Dir(), stop: s.Stop, url: func(sealed bool) string { return fmt.Sprintf("%ss_%t", url, sealed) }}
}

func inFiles(t *testing.T, scheme, name string) place {
	dir := t.TempDir()
	return place{dir: dir, apart: true, stop: func() {}, url: func(sealed bool) string {
		if name == "" {
			return scheme
		}
		own := filepath.Join(dir, fmt.Sprint(sealed))
		must(t, os.MkdirAll(own, 0o700))
		return scheme + filepath.Join(own, name)
	}}
}

// bytes yields the name and the bytes of each file.
func (p place) bytes(t *testing.T, sealed bool) iter.Seq[[]byte] {
	dir := p.dir
	if p.apart {
		dir = filepath.Join(dir, fmt.Sprint(sealed))
	}
	return filesOf(t, dir)
}

func filesOf(t *testing.T, dir string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil && !yield(append([]byte(path+"\n"), b...)) {
				return fs.SkipAll
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// walk is a way through all features, with all that is let out on it.
type walk struct {
	t                                              *testing.T
	sealed                                         bool
	store                                          *shaky
	main, rotating, quick, limited, strict, gobbed *session2.Manager

	tokens              testsite.Secrets // which are nowhere
	held                testsite.Secrets // which may be in the bytes of a store that is not sealed
	named               testsite.Secrets // likewise, and in texts about a session that is not sealed
	mark                string           // in each value
	key, agent, address string           // what a record holds beside its values
	form                string
	alive               []string // tokens of sessions that are left
	b                   *testsite.Browser
	stolen              [][]byte // what was in the records

	book   testsite.Log
	mu     sync.Mutex
	events map[session2.EventKind]int
	out    []output
}

type output struct{ where, text string }

func rand16() string { return fmt.Sprintf("%016x", rand.Uint64()) }

func newWalk(t *testing.T, url string, sealed bool) *walk {
	t.Helper()
	w := &walk{t: t, sealed: sealed, b: &testsite.Browser{}, events: make(map[session2.EventKind]int)}
	w.mark = "marked-value-" + rand16()
	w.held.Add("a value", []byte(w.mark))
	w.key, w.agent = "marked-key-"+rand16(), "marked-agent-"+rand16()
	w.address = fmt.Sprintf("[2001:db8::%x:%x]:4711", 0x1000+rand.N(0xf000), 0x1000+rand.N(0xf000))
	w.named.Add("the key", []byte(w.key))
	w.named.Add("the agent", []byte(w.agent))
	w.named.Add("the address", []byte(w.address))
	store, err := session2.Open(t.Context(), url)
	must(t, err)
	must(t, session2.Setup(t.Context(), store))
	w.store = &shaky{full: store.(full), w: w}
	base := session2.Config{
		AccessResolution: time.Millisecond,
		Sealed:           sealed, Logger: w.book.Logger(), OnEvent: w.event, RenewGrace: time.Hour, MaxBytes: 4000,
		Anomalies: true, Codec: session2.JSON{}, CommitTimeout: time.Minute, ClearSiteData: true,
	}
	with := func(change func(c *session2.Config)) *session2.Manager {
		c := base
		change(&c)
		m, err := session2.NewManager(w.store, c)
		must(t, err)
		return m
	}
	w.main = with(func(*session2.Config) {})
	w.rotating = with(func(c *session2.Config) { c.RenewEvery, c.RenewGrace = time.Millisecond, time.Millisecond })
	w.quick = with(func(c *session2.Config) { c.CommitTimeout = testsite.TinyTimeout })
	w.limited = with(func(c *session2.Config) { c.MaxPerUser = 1 })
	w.strict = with(func(c *session2.Config) { c.MaxPerUser, c.RejectLogin = 1, true })
	w.gobbed = with(func(c *session2.Config) { c.Codec = session2.Gob{} })
	return w
}

func (w *walk) let(where, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(w.out, output{where, text})
}

// event prints an event, and who has raised it: a stack shows arguments.
func (w *walk) event(_ context.Context, e session2.Event) {
	w.print("an event", e)
	w.print("an event's error", e.Err)
	w.let("the stack of an event", string(debug.Stack()))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events[e.Kind]++
}

// print prints v by every verb and encoder that might get at its fields.
func (w *walk) print(where string, v any) {
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	js, _ := json.Marshal(v)
	var coded bytes.Buffer
	gob.NewEncoder(&coded).Encode(v)
	w.book.Logger().Debug("printed", "value", v)
	slog.New(slog.NewJSONHandler(&w.book, nil)).Info("printed", "value", v)
	w.let(where, b.String()+string(js)+coded.String())
}

type handler = func(s *session2.Session, rw http.ResponseWriter, r *http.Request)

// visit serves a request of b, and prints all that there is to see.
func (w *walk) visit(m *session2.Manager, b *testsite.Browser, h handler) *http.Response {
	return w.visitBy(m.Wrap, m, b, h)
}

func (w *walk) visitBy(wrap func(http.Handler) http.Handler, m *session2.Manager, b *testsite.Browser, h handler,
) *http.Response {
	w.t.Helper()
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	r.RemoteAddr = w.address
	r.Header.Set("User-Agent", w.agent)
	w.tokens.Token(b.Token())
	b.Send(r)
	rec := httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != nil {
				w.print("a panic", p)
				w.let("the stack of a panic", string(debug.Stack()))
			}
		}()
		wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			s := m.Session(r)
			defer w.look(s, rw, r)
			h(s, rw, r)
		})).ServeHTTP(rec, r)
	}()
	res := rec.Result()
	for _, c := range res.Cookies() {
		w.tokens.Token(c.Value)
	}
	b.Receive(res)
	head := res.Header.Clone()
	head.Del("Set-Cookie")
	w.let("a response", fmt.Sprint(res.Status, head, rec.Body))
	w.steal()
	return res
}

// look prints a session and what belongs to it.
func (w *walk) look(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
	var dump strings.Builder
	s.Dump(&dump)
	w.let("Dump", dump.String())
	w.print("the session", s)
	w.print("the session by value's error", s.Err())
	w.print("the context", r.Context())
	w.print("the cause", context.Cause(r.Context()))
	w.print("the writer", rw)
}

// steal takes a copy of all records.
func (w *walk) steal() {
	for rec, err := range w.store.full.Iter(w.t.Context()) {
		if err != nil {
			w.print("an error of Iter", err)
			continue
		}
		w.stolen = append(w.stolen, append([]byte(rec.User), rec.Data...))
	}
}

// all walks through all features.
func (w *walk) all() {
	for _, step := range []func(){
		w.values, w.undecodable, w.login, w.forms, w.rotation, w.twins, w.exclusive, w.limits, w.failures, w.panics,
		w.cookies, w.streams, w.races, w.direct, w.damage, w.refusals, w.people, w.ends,
	} {
		step()
	}
	for _, v := range []any{w.main, w.rotating, w.limited, w.store.full} {
		w.print("a manager or store", v)
	}
	w.steal()
	must(w.t, session2.Close(w.store.full))
	w.print("closed", w.store.full.Delete(w.t.Context(), session2.ID{}))
	w.visit(w.quick, w.b.Clone(), w.set)
}

// set sets what is marked.
func (w *walk) set(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
	s.Set(w.key, w.mark)
	s.Flash(w.mark)
}

type card struct{ Number, Secret string }

// leaky is a value whose own error shows it.
type leaky struct{ text string }

func (l leaky) MarshalJSON() ([]byte, error) { return nil, fmt.Errorf("cannot take %s", l.text) }
func (l leaky) GobEncode() ([]byte, error)   { return nil, fmt.Errorf("cannot take %s", l.text) }
func (l *leaky) GobDecode([]byte) error      { return errors.New("never") }

func (w *walk) values() {
	w.visit(w.main, w.b, w.set)
	w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.Set("bytes", []byte(w.mark))
		s.Set("map", map[string]any{w.mark: []string{w.mark}})
		session2.NewKey[card]("card").Set(s, card{w.mark, w.mark})
		session2.NewKey[*card]("card").Update(s, func(c *card) *card { c.Number += w.mark; return c })
		session2.NewKey[json.RawMessage]("raw").Set(s, json.RawMessage(`"`+w.mark+`"`))
		must(w.t, s.Commit(r.Context()))
		session2.NewKey[string](w.key).Pop(s)
		s.Set(w.key, w.mark)
		for _, key := range s.Keys() {
			s.Get(key)
		}
		s.SetPersistent(true)
		s.SetLifetime(20 * time.Hour)
		s.SetIdleTimeout(19 * time.Hour)
	})
	w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Flashes() })
	for _, m := range []*session2.Manager{w.main, w.gobbed} { // what cannot be encoded
		for _, v := range []any{
			json.Number(w.mark), json.RawMessage(w.mark), leaky{w.mark}, func() string { return w.mark },
			struct {
				S string
				F func()
			}{w.mark, nil}, []any{w.mark, make(chan int)}, strings.Repeat(w.mark, 1000),
		} {
			w.visit(m, &testsite.Browser{}, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
				s.Set(w.key, v)
			})
			w.visit(m, &testsite.Browser{}, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
				s.Flash(v)
			})
		}
		w.visit(m, &testsite.Browser{}, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			session2.NewKey[leaky]("leaky").Update(s, func(leaky) leaky { return leaky{w.mark} })
		})
	}
}

// readAs reads a value as what it is not.
func readAs[T any](s *session2.Session, name string) {
	k := session2.NewKey[T](name)
	k.Get(s)
	k.Update(s, func(v T) T { return v })
	k.Pop(s)
}

func (w *walk) undecodable() {
	for _, m := range []*session2.Manager{w.main, w.gobbed} {
		b := &testsite.Browser{}
		w.visit(m, b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			s.Set("text", w.mark)
			session2.NewKey[card]("card").Set(s, card{w.mark, w.mark})
			session2.NewKey[[]string]("list").Set(s, []string{w.mark})
			session2.NewKey[map[string]string]("map").Set(s, map[string]string{"Number": w.mark})
		})
		for _, other := range []*session2.Manager{m, w.main, w.gobbed} {
			w.visit(other, b.Clone(), func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
				for _, name := range []string{"text", "card", "list", "map"} {
					readAs[int](s, name)
					readAs[time.Time](s, name)
					readAs[netip.Addr](s, name)
					readAs[[]time.Time](s, name)
					readAs[[]netip.Addr](s, name)
					readAs[map[string]netip.Addr](s, name)
					readAs[map[string]json.Number](s, name)
					readAs[struct{ Number int }](s, name)
					s.Get(name)
				}
				s.Discard()
			})
		}
	}
}

func (w *walk) login() {
	old := w.b.Clone()
	w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		s.SetUser("alice")
		s.SetLevel(1)
	})
	w.visit(w.main, old, w.set) // superseded
	w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.SetLevel(2)
		s.Remember(100 * time.Hour)
		w.tokens.Token(s.Token())
		must(w.t, s.Commit(r.Context()))
		s.Renew()
		w.tokens.Token(s.Token())
		must(w.t, s.Commit(r.Context()))
		must(w.t, s.Check(r.Context()))
		s.AuthenticatedWithin(time.Hour)
		s.Passive()
	})
	late := w.b.Clone()
	w.visit(w.main, late, func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
		s.User()
		rw.WriteHeader(200)
		s.Renew() // too late for its cookie
	})
}

func (w *walk) forms() {
	var csrf string
	w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		w.form, csrf = s.FormToken(), s.CSRFToken()
	})
	w.mask(csrf)
	raw, err := base64.RawURLEncoding.DecodeString(w.form)
	must(w.t, err)
	w.held.Add("a form token", raw)
	w.held.Add("a form token's text", []byte(w.form))
	for range 2 {
		w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			s.HasFormToken(w.form)
			_, err := s.UseFormToken(r.Context(), w.form)
			w.print("UseFormToken", err)
			s.UseFormToken(r.Context(), w.form+"x")
		})
	}
	for _, text := range []string{csrf, csrf + "x", "none"} {
		w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-CSRF-Token", text)
			s.ValidCSRFToken(r)
			s.FormToken()
			w.mask(s.CSRFToken())
		})
	}
}

// mask adds a CSRF token: its text, and what is the same in all its texts.
func (w *walk) mask(csrf string) {
	raw, err := base64.RawURLEncoding.DecodeString(csrf)
	must(w.t, err)
	for i := range raw[:16] {
		raw[i] ^= raw[16+i]
	}
	w.held.Add("a CSRF token", raw[:16])
	w.held.Add("a CSRF token's text", []byte(csrf))
}

func (w *walk) rotation() {
	b := &testsite.Browser{}
	w.visit(w.main, b, w.set)
	olds := []*testsite.Browser{b.Clone()}
	for range 3 {
		time.Sleep(2 * time.Millisecond)
		w.visit(w.rotating, b, w.set)
		olds = append(olds, b.Clone())
	}
	if olds[0].Token() == olds[3].Token() {
		w.t.Error("no token was replaced")
	}
	w.visit(w.main, olds[2].Clone(), w.set) // within its grace: gets the successor
	w.visit(w.main, olds[0].Clone(), func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		w.tokens.Token(s.Token())
		s.Set("color", "red")
		w.tokens.Token(s.Token())
	})
	both := olds[0].Clone()
	both.Cookie = &http.Cookie{Name: b.Cookie.Name, Value: olds[1].Token() + "; " + b.Cookie.Name + "=" + b.Token()}
	w.raw(w.main, "__Host-session="+olds[1].Token(), "__Host-session="+b.Token())
	time.Sleep(2 * time.Millisecond)
	w.visit(w.rotating, olds[0].Clone(), w.set) // reused: the session ends
	w.visit(w.rotating, b, w.set)
}

// raw serves a request with these Cookie lines.
func (w *walk) raw(m *session2.Manager, lines ...string) {
	r := httptest.NewRequest("POST", "http://example.com/", nil) // without TLS
	r.RemoteAddr = w.address
	for _, line := range lines {
		r.Header.Add("Cookie", line)
	}
	rec := httptest.NewRecorder()
	m.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		w.set(s, rw, r)
		w.look(s, rw, r)
	})).ServeHTTP(rec, r)
	for _, c := range rec.Result().Cookies() {
		w.tokens.Token(c.Value)
	}
}

func (w *walk) twins() {
	b := &testsite.Browser{}
	w.visit(w.main, b, w.set)
	twin, other := b.Clone(), b.Clone()
	for _, b := range []*testsite.Browser{b, twin} {
		w.visit(w.main, b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			s.SetUser("carol")
			w.tokens.Token(s.Token())
		})
	}
	if b.Token() != twin.Token() {
		w.t.Error("two clicks on one login made two tokens")
	}
	w.visit(w.main, other, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.SetUser("dave") })
	w.visit(w.main, b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.SetUser("dave") })
	w.visit(w.main, b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.SetUser("") })
}

func (w *walk) exclusive() {
	w.visitBy(w.main.Exclusive, w.main, w.b, w.set)
	b := w.b.Clone()
	w.visitBy(w.main.Exclusive, w.main, b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.Get(w.key)
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		r2 := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
		b.Send(r2)
		rec := httptest.NewRecorder()
		w.main.Exclusive(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.main.Session(r).User()
		})).ServeHTTP(rec, r2)
		w.let("a response out of turn", fmt.Sprint(rec.Code, rec.Body))
	})
}

func (w *walk) limits() {
	var list []*testsite.Browser
	for _, m := range []*session2.Manager{w.limited, w.limited, w.strict} {
		b := &testsite.Browser{}
		w.visit(m, b, func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
			w.set(s, rw, r)
			s.SetUser("erin")
			w.tokens.Token(s.Token())
		})
		list = append(list, b)
	}
	for _, b := range list {
		w.visit(w.main, b, w.set)
	}
	w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		s.Set("big", strings.Repeat(w.mark, 1000))
	})
	w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.Set("big", strings.Repeat(w.mark, 1000))
		w.print("Commit", s.Commit(r.Context()))
		s.Discard()
	})
}

func (w *walk) failures() {
	for _, failure := range []error{fs.ErrPermission, errors.New("the store is down"), session2.ErrUncertain,
		context.DeadlineExceeded} {
		w.store.fail.Store(&failure)
		for _, h := range []handler{
			w.set,
			func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.User() },
			func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
				w.set(s, rw, r)
				s.SetUser("alice")
				w.tokens.Token(s.Token())
				w.print("Commit", s.Commit(r.Context()))
			},
			func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Destroy() },
			func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
				_, err := s.UseFormToken(r.Context(), w.form)
				w.print("UseFormToken", err)
			},
			func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
				rw.(http.Flusher).Flush()
				w.set(s, rw, r)
				w.print("Commit of a stream", s.Commit(r.Context()))
			},
		} {
			for _, loads := range []bool{false, true} {
				w.store.loads.Store(loads)
				w.visit(w.quick, w.b.Clone(), h)
			}
		}
		w.store.loads.Store(false)
		_, err := w.quick.Open(w.t.Context(), w.b.Token())
		w.print("Open", err)
		_, err = w.quick.RevokeUser(w.t.Context(), "alice")
		w.print("RevokeUser", err)
		w.store.fail.Store(nil)
	}
	// The errors of the store itself.
	ctx, cancel := context.WithCancel(w.t.Context())
	cancel()
	w.visit(w.quick, w.b.Clone(), func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		w.set(s, rw, r)
		w.print("Commit", s.Commit(ctx))
	})
	for rec, err := range w.store.full.Iter(w.t.Context()) {
		must(w.t, err)
		next := rec
		next.Version++
		for _, err := range []error{
			w.store.full.Save(w.t.Context(), next, 77), w.store.full.Save(w.t.Context(), next, 0),
			w.store.full.Save(ctx, next, rec.Version), w.store.full.Delete(ctx, rec.ID),
		} {
			w.print("an error of the store", err)
		}
		next.User = "nul\x00" + strings.Repeat("u", 400)
		next.Version = rec.Version
		w.print("an error of the store", w.store.full.Save(w.t.Context(), next, rec.Version))
	}
}

func (w *walk) panics() {
	for _, h := range []handler{
		func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
			w.set(s, rw, r)
			panic("handler's own")
		},
		func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			session2.NewKey[string](w.key).Update(s, func(string) string { panic("in an Update") })
		},
		func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
			w.set(s, rw, r)
			s.SetUser("alice")
			s.Set("panics", panicking{w.mark})
		},
		func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
			s.Renew()
			w.store.panics.Store(true)
			defer w.store.panics.Store(false)
			s.Commit(r.Context())
		},
		func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			s.User()
			(&session2.Session{}).Set(w.key, w.mark)
		},
		func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { new(session2.Manager).Session(nil) },
	} {
		w.visit(w.main, w.b.Clone(), h)
	}
	// By the server, whose log has the stack of what it recovers.
	srv := httptest.NewUnstartedServer(w.main.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s := w.main.Session(r)
		w.set(s, rw, r)
		s.Renew()
		s.Set("panics", panicking{w.mark})
	})))
	srv.Config.ErrorLog = log.New(&w.book, "", 0)
	srv.StartTLS()
	defer srv.Close()
	r, err := http.NewRequest("GET", srv.URL, nil)
	must(w.t, err)
	w.b.Send(r)
	if res, err := srv.Client().Do(r); err == nil {
		res.Body.Close()
		w.t.Errorf("a panic was answered by %v", res.Status)
	}
}

// panicking is a value that panics when it is to be encoded.
type panicking struct{ text string }

func (p panicking) MarshalJSON() ([]byte, error) { panic("in a codec") }

func (w *walk) cookies() {
	id, secret, _ := strings.Cut(w.b.Token(), ".")
	for _, bad := range []string{
		id + "." + strings.Repeat("Q", 43), strings.Repeat("0", 32) + "." + secret, secret, w.b.Token() + "x",
		w.b.Token()[1:],
		strings.ToUpper(id) + "." + secret, id + "." + secret + "=", id + secret, secret + "." + id, `"` + w.b.Token() + `"`,
		w.b.Token() + "," + w.b.Token(), id + "%2E" + secret, strings.Repeat(w.b.Token(), 200),
	} {
		w.raw(w.main, "__Host-session="+bad)
		w.raw(w.main, "__Host-session="+bad, "__Host-session="+w.b.Token())
		w.raw(w.main, "__Host-session="+bad+"; "+bad+"="+bad+"; "+w.b.Token())
		s, err := w.main.Open(w.t.Context(), bad)
		w.print("Open", []any{s, err})
		id, err := session2.ParseID(bad)
		w.print("ParseID", err)
		w.print("ParseID", id)
	}
	var many []string
	for range 100 {
		many = append(many, "__Host-session="+id+"."+secret, "__Host-session="+id+"."+strings.Repeat("Q", 43))
	}
	w.raw(w.main, many...)
}

func (w *walk) streams() {
	b := &testsite.Browser{}
	w.visit(w.main, b, w.set)
	w.visit(w.main, b, func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		w.set(s, rw, r)
		rw.(http.Flusher).Flush()
		fmt.Fprint(rw, "data: ...\n\n")
		w.print("Commit", s.Commit(r.Context()))
		w.visit(w.main, b.Clone(), func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Renew() })
		w.print("Check", s.Check(r.Context()))
		must(w.t, w.main.Revoke(context.WithoutCancel(r.Context()), s.ID()))
		w.print("the cause of a stream's end", context.Cause(r.Context()))
		w.print("Check", s.Check(r.Context()))
		s.Set("color", w.mark)
		w.print("Commit", s.Commit(r.Context()))
	})
}

// races has one request do something in the midst of another's.
func (w *walk) races() {
	beside := func(h handler) {
		s := w.b.Clone()
		w.visit(w.main, s, h)
	}
	w.visit(w.main, w.b.Clone(), func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		s.Get(w.key)
		beside(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Set(w.key, w.mark+"2") })
		s.Set(w.key, w.mark) // a lost update
	})
	w.visit(w.main, w.b.Clone(), func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.Set("color", w.mark)
		beside(w.set)
		session2.NewKey[string]("other").Update(s, func(v string) string { return v + w.mark })
		w.print("Commit", s.Commit(r.Context())) // replayed
	})
	ended := &testsite.Browser{}
	w.visit(w.main, ended, w.set)
	w.visit(w.main, ended.Clone(), func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		s.User()
		w.visit(w.main, ended, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Destroy() })
		w.set(s, rw, r) // dropped
	})
	w.visit(w.main, w.b.Clone(), func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		s.User()
		w.visit(w.main, w.b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Renew() })
		w.set(s, rw, r) // stale
	})
}

// direct uses a session without HTTP.
func (w *walk) direct() {
	s, err := w.main.Open(w.t.Context(), "")
	must(w.t, err)
	w.set(s, nil, nil)
	s.SetUser("frank")
	w.print("Commit", s.Commit(w.t.Context()))
	w.tokens.Token(s.Token())
	w.print("an opened session", s)
	again, err := w.main.Open(w.t.Context(), s.Token())
	must(w.t, err)
	again.Renew()
	must(w.t, again.Commit(w.t.Context()))
	w.tokens.Token(again.Token())
	for _, token := range []string{s.Token(), again.Token() + "x", again.Token()} {
		s, err := w.main.Open(w.t.Context(), token)
		w.print("Open", []any{s, err})
	}
	w.alive = append(w.alive, again.Token())
}

// damage changes records beneath their sessions.
func (w *walk) damage() {
	b := &testsite.Browser{}
	w.visit(w.main, b, func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		w.set(s, rw, r)
		session2.NewKey[card]("card").Set(s, card{w.mark, w.mark})
	})
	id, err := session2.ParseID(b.Token()[:32])
	must(w.t, err)
	ctx := w.t.Context()
	rec, err := w.store.full.Load(ctx, id)
	must(w.t, err)
	put := func(data []byte) {
		bad := rec
		bad.Data = data
		must(w.t, w.store.full.Delete(ctx, id))
		must(w.t, w.store.full.Save(ctx, bad, 0))
		_, err := session2.Inspect(bad)
		w.print("Inspect", err)
		w.visit(w.main, b.Clone(), func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			for _, key := range s.Keys() {
				s.Get(key)
			}
			readAs[card](s, "card")
			s.Discard()
		})
	}
	step := 1 + len(rec.Data)/20
	for i := 0; i < len(rec.Data); i += step {
		bad := slices.Clone(rec.Data)
		bad[i] ^= 0x55
		put(bad)
		put(rec.Data[:i])
	}
	for cut := len(rec.Data) / 2; ; cut-- { // one that stays
		bad := rec
		if bad.Data = rec.Data[:cut]; !readable(bad) {
			put(bad.Data)
			return
		}
	}
}

func readable(rec session2.Record) bool {
	_, err := session2.Inspect(rec)
	return err == nil
}

// refusals shows sealed sessions to who does not seal, and the other way round.
func (w *walk) refusals() {
	manager := func(c session2.Config) *session2.Manager {
		c.Logger, c.OnEvent = w.book.Logger(), w.event
		m, err := session2.NewManager(w.store, c)
		must(w.t, err)
		return m
	}
	other := manager(session2.Config{Sealed: !w.sealed})
	user := func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.User() }
	w.visit(other, w.b.Clone(), user)
	elsewhere := manager(session2.Config{Sealed: w.sealed, Realm: "elsewhere"})
	w.visit(elsewhere, w.b.Clone(), user)
	b := &testsite.Browser{}
	w.visit(w.main, b, w.set)
	time.Sleep(time.Millisecond)
	w.visit(manager(session2.Config{Sealed: w.sealed, NotBefore: time.Now()}), b, user)
	for _, c := range []session2.Config{
		{Cookie: session2.CookieConfig{Name: "a;b"}}, {Realm: strings.Repeat("r", 100)}, {MaxBytes: -1},
	} {
		_, err := session2.NewManager(w.store, c)
		w.print("NewManager", err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "198.51.100.1:1"
	r.Header.Set("User-Agent", "another-agent/2.0") // an anomaly
	w.b.Send(r)
	w.main.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.main.Session(r).User() })).
		ServeHTTP(httptest.NewRecorder(), r)
}

// people lists users' sessions, and ends them.
func (w *walk) people() {
	for _, user := range []string{"alice", "carol", "erin", "nobody"} {
		for info, err := range w.main.Sessions(w.t.Context(), user) {
			info.RemoteAddr, info.UserAgent = "", "" // which it is there to show
			w.print("Info", info)
			w.print("Sessions", err)
		}
	}
	for range 2 {
		b := &testsite.Browser{}
		w.visit(w.main, b, func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
			w.set(s, rw, r)
			s.SetUser("gina")
			_, err := w.main.RevokeOthers(r.Context(), s)
			w.print("RevokeOthers", err)
		})
		w.alive = append(w.alive, b.Token())
	}
	_, err := w.main.RevokeUser(w.t.Context(), "erin")
	w.print("RevokeUser", err)
	ctx, cancel := context.WithCancel(w.t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	w.print("Cleanup", w.main.Cleanup(ctx, time.Hour))
}

func (w *walk) ends() {
	b := &testsite.Browser{}
	w.visit(w.main, b, w.set)
	old := b.Clone()
	w.visit(w.main, b, func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		s.SetUser("harry")
		s.Destroy()
		w.set(s, rw, r)
	})
	w.visit(w.main, b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Clear(); s.Destroy() })
	w.visit(w.main, old, w.set)
	for rec, err := range w.store.full.Iter(w.t.Context()) {
		must(w.t, err)
		c, err := session2.Inspect(rec)
		w.print("Inspect", err)
		c.RemoteAddr, c.UserAgent = "", ""
		for i := range c.Values {
			c.Values[i].Key = ""
		}
		w.print("Contents", c)
	}
}

// commands has the command line look at the store, and copy it.
func (w *walk) commands(url string) {
	copied := "file:" + w.t.TempDir() + "/copy"
	var args [][]string
	for _, token := range w.alive[:1] {
		id, _, _ := strings.Cut(token, ".")
		args = append(args, []string{"show", url, id}, []string{"show", "-json", url, id}, []string{"show", url, token},
			[]string{"show", "-values", url, id}, []string{"delete", url, token})
	}
	args = append(args, []string{"setup", url}, []string{"list", url}, []string{"list", "-json", url},
		[]string{"list", "-values", url}, []string{"list", "-json", "-values", url}, []string{"list", "-user", "alice", url},
		[]string{"stats", url}, []string{"stats", "-json", url}, []string{"check", url}, []string{"check", "-json", url},
		[]string{"copy", "-n", url, copied}, []string{"copy", url, copied}, []string{"copy", "-delete", "-json", url, copied},
		[]string{"list", "-json", copied}, []string{"check", copied}, []string{"delete-user", "-n", url, "alice"},
		[]string{"delete-old", "-n", "-age", "1h", url}, []string{"list", url + "-not-there"},
		[]string{"check", url, "-nonsense"},
		[]string{"delete-old", "-age", "1000h", url}, []string{"delete-user", url, "gina"}, []string{"list", url})
	corrupt := 0
	for _, a := range args {
		r := session(w.t, a...)
		where := fmt.Sprintf("session2 %q", a)
		if slices.Contains(a, "-values") { // which it is there to show
			w.stolen = append(w.stolen, []byte(r.stdout))
			r.stdout = ""
		}
		w.let(where, r.stdout+r.stderr)
		if w.sealed {
			if found := w.named.Find([]byte(r.stdout + r.stderr)); found != nil {
				w.t.Errorf("%s shows %q of sealed sessions", where, found)
			}
		}
		if r.status == exitCorrupt {
			corrupt++
		}
	}
	if corrupt == 0 {
		w.t.Error("the command line has met nothing corrupt")
	}
	for b := range filesOf(w.t, strings.TrimPrefix(copied, "file:")) {
		w.stolen = append(w.stolen, b)
	}
}

// check searches all that was let out.
func (w *walk) check() {
	w.t.Helper()
	w.let("the log", w.book.String())
	for _, o := range w.out {
		found := append(w.tokens.Find([]byte(o.text)), w.held.Find([]byte(o.text))...)
		if len(found) > 0 {
			w.t.Errorf("sealed %t: %s shows %q:\n%.2000s", w.sealed, o.where, found, o.text)
		}
	}
	for kind := session2.EventCreated; kind.String() != "event"; kind++ {
		if w.events[kind] == 0 {
			w.t.Errorf("sealed %t: no event %q: not all has happened", w.sealed, kind)
		}
	}
	w.t.Logf("sealed %t: %d tokens, %d values and marks; %d outputs, %d bytes of log, %d records",
		w.sealed, w.tokens.Len()/2, w.held.Len(), len(w.out), len(w.book.String()), len(w.stolen))
	w.search(slices.Values(w.stolen))
}

// search searches what was stored.
func (w *walk) search(stored iter.Seq[[]byte]) {
	w.t.Helper()
	seen, n := map[string]bool{}, 0
	for b := range stored {
		n++
		if found := w.tokens.Find(b); found != nil {
			w.t.Errorf("sealed %t: what is stored shows %q: %.100q", w.sealed, found, b)
		}
		for _, what := range append(w.held.Find(b), w.named.Find(b)...) {
			seen[what] = true
		}
	}
	switch {
	case w.sealed && len(seen) > 0:
		w.t.Errorf("what is sealed shows %v", seen)
	case !w.sealed && n > 0 && (!seen["a value, as it is"] || !seen["the key, as it is"]):
		w.t.Errorf("what is not sealed shows no more than %v: the search is in the wrong place", seen)
	}
}

// full is what every store here can do.
type full interface {
	session2.Store
	session2.IterStore
	session2.UserStore
	session2.DeleteOldStore
	session2.TouchStore
}

// shaky is a store that fails when told to, and shows the stack of each change.
type shaky struct {
	full
	w      *walk
	fail   atomic.Pointer[error]
	loads  atomic.Bool // fail as well
	panics atomic.Bool
}

func (s *shaky) failure() error {
	s.w.let("the stack of a call of the store", string(debug.Stack()))
	if s.panics.Load() {
		panic("in the store")
	}
	if err := s.fail.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *shaky) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if err := s.failure(); err != nil && s.loads.Load() {
		return session2.Record{}, err
	}
	return s.full.Load(ctx, id)
}

func (s *shaky) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.full.Save(ctx, rec, prev)
}

func (s *shaky) Delete(ctx context.Context, id session2.ID) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.full.Delete(ctx, id)
}

func (s *shaky) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.full.Touch(ctx, id, accessed, expires)
}

func (s *shaky) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	if err := s.failure(); err != nil {
		return 0, err
	}
	return s.full.DeleteUser(ctx, user, keep...)
}
