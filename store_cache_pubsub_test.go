package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// town is where messages go round.
type town struct {
	mu      sync.Mutex
	lines   []*line
	longest int // message
}

// line is one process's way into town, and its PubSub.
type line struct {
	town   *town
	mute   bool // what is sent to it is lost, and nobody says so
	jammed bool // what it sends is lost, and nobody says so
	cut    chan struct{}
	down   bool // it can be cut, and not be had again
	told   func(string)
	asked  int // subscriptions
}

var errCut = errors.New("cut")

func (l *line) Subscribe(ctx context.Context, subscribed func(), receive func(string)) error {
	l.town.mu.Lock()
	l.asked++
	if l.down {
		l.town.mu.Unlock()
		return errCut
	}
	l.told, l.cut = receive, make(chan struct{})
	cut := l.cut
	l.town.mu.Unlock()
	subscribed()
	select {
	case <-cut:
		return errCut
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *line) Publish(_ context.Context, message string) error {
	l.town.mu.Lock()
	defer l.town.mu.Unlock()
	l.town.longest = max(l.town.longest, len(message))
	switch {
	case l.down:
		return errCut
	case l.jammed:
		return nil
	}
	for _, to := range l.town.lines {
		if to.told != nil && !to.mute && !to.down {
			to.told(message)
		}
	}
	return nil
}

// set changes how the line is.
func (l *line) set(f func()) {
	l.town.mu.Lock()
	defer l.town.mu.Unlock()
	f()
	if l.down && l.told != nil {
		close(l.cut)
		l.told = nil
	}
}

func (town *town) line() *line {
	l := &line{town: town}
	town.lines = append(town.lines, l)
	return l
}

// A process is a site with a cache that keeps records for an hour, and hears of changes.
type process struct {
	*testsite.Site
	*line
	log *bytes.Buffer
}

// shared is a store that stays open when one process ends.
type shared struct{ *testsite.Brittle }

func (shared) Close() error { return nil }

// processes returns two that share a store, each with a line into town.
func processes(t *testing.T) (here, there process, store *testsite.Brittle) {
	store = testsite.NewBrittle()
	t.Cleanup(func() { store.Close() })
	town := &town{}
	open := func() process {
		p := process{line: town.line(), log: new(bytes.Buffer)}
		cache := session2.NewCache(shared{store}, &session2.CacheOptions{
			MaxAge: time.Hour, PubSub: p.line, Logger: slog.New(slog.NewTextHandler(p.log, nil)),
		})
		t.Cleanup(func() { session2.Close(cache) })
		p.Site = testsite.NewSite(t, cache, session2.Config{})
		return p
	}
	return open(), open(), store
}

// settle waits until what is under way between caches has come.
func settle() {
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

// begun has a session in the cache here.
func (p process) begun(t *testing.T, b *testsite.Browser) {
	p.Begin(b)
	reads(p.Site, b) // the first use of the cache
	settle()
	reads(p.Site, b)
	if got := reads(p.Site, b); got != "green" {
		t.Fatalf("color = %v", got)
	}
}

// What another process does is seen within milliseconds, whatever it is.
func TestCacheIsTold(t *testing.T) {
	id := func(p process, b *testsite.Browser) (id session2.ID) {
		p.Do(b.Clone(), func(s *session2.Session) { id = s.ID() })
		return id
	}
	for name, c := range map[string]struct {
		do   func(there process, b *testsite.Browser) error
		want any
	}{
		"a change": {func(there process, b *testsite.Browser) error {
			there.Do(b.Clone(), func(s *session2.Session) { s.Set("color", "red") })
			return nil
		}, "red"},
		"a logout": {func(there process, b *testsite.Browser) error {
			there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
			return nil
		}, nil},
		"a new token": {func(there process, b *testsite.Browser) error {
			there.Do(b.Clone(), func(s *session2.Session) { s.Renew() })
			return nil
		}, nil},
		"Revoke": {func(there process, b *testsite.Browser) error {
			return there.M.Revoke(context.Background(), id(there, b))
		}, nil},
		"RevokeUser": {func(there process, b *testsite.Browser) error {
			_, err := there.M.RevokeUser(context.Background(), "alice")
			return err
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there, store := processes(t)
				b := &testsite.Browser{}
				here.begun(t, b)
				calls := store.Calls()
				if reads(here.Site, b); store.Calls() != calls {
					t.Error("no cache")
				}
				testsite.Must(t, c.do(there, b))
				settle()
				if got := reads(here.Site, b); got != c.want {
					t.Errorf("color = %v, want %v", got, c.want)
				}
			})
		})
	}
}

// A cache that cannot hear others is not used: at once where it is told that its line is
// cut, and after 3 s where nobody says so. When it hears again it shows nothing of before.
func TestCacheThatHearsNothingIsNotUsed(t *testing.T) {
	for name, c := range map[string]struct {
		after        time.Duration
		broken, mend func(l *line)
	}{
		"cut":    {0, func(l *line) { l.down = true }, func(l *line) { l.down = false }},
		"mute":   {3 * time.Second, func(l *line) { l.mute = true }, func(l *line) { l.mute = false }},
		"jammed": {3 * time.Second, func(l *line) { l.jammed = true }, func(l *line) { l.jammed = false }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there, store := processes(t)
				b := &testsite.Browser{}
				here.begun(t, b)
				here.set(func() { c.broken(here.line) })
				time.Sleep(c.after)
				settle()
				there.Do(b.Clone(), func(s *session2.Session) { s.Set("color", "red") })
				settle()
				if got := reads(here.Site, b); got != "red" {
					t.Errorf("color = %v while nothing is heard", got)
				}
				time.Sleep(time.Minute)
				there.Do(b.Clone(), func(s *session2.Session) { s.Set("color", "blue") })
				here.set(func() { c.mend(here.line) })
				time.Sleep(10 * time.Second)
				settle()
				if got := reads(here.Site, b); got != "blue" {
					t.Errorf("color = %v when others are heard again", got)
				}
				calls := store.Calls()
				if reads(here.Site, b); store.Calls() != calls {
					t.Error("the cache is not used again")
				}
				log := here.log.String()
				if strings.Count(log, "is not used") != 1 || strings.Count(log, "is used again") != 1 {
					t.Errorf("the log: %s", log)
				}
			})
		})
	}
}

// A process that could tell nothing for a while tells of everything afterwards.
func TestCacheTellsOfWhatItCouldNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, _ := processes(t)
		b := &testsite.Browser{}
		here.begun(t, b)
		there.Do(b.Clone(), func(s *session2.Session) { s.Get("color") })
		settle()
		there.set(func() { there.down = true })
		there.Do(b.Clone(), func(s *session2.Session) { s.Set("color", "red") })
		settle()
		if got := reads(here.Site, b); got != "green" {
			t.Fatalf("color = %v, and nobody has told it", got)
		}
		there.set(func() { there.down = false })
		time.Sleep(5 * time.Second)
		settle()
		if got := reads(here.Site, b); got != "red" {
			t.Errorf("color = %v", got)
		}
	})
}

// A stream ends within milliseconds of what another process has done.
func TestCacheEndsStreams(t *testing.T) {
	for name, end := range map[string]func(there process, b *testsite.Browser, id session2.ID) error{
		"Destroy": func(there process, b *testsite.Browser, _ session2.ID) error {
			there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
			return nil
		},
		"Renew": func(there process, b *testsite.Browser, _ session2.ID) error {
			there.Do(b.Clone(), func(s *session2.Session) { s.Renew() })
			return nil
		},
		"Revoke": func(there process, _ *testsite.Browser, id session2.ID) error {
			return there.M.Revoke(context.Background(), id)
		},
		"RevokeUser": func(there process, _ *testsite.Browser, _ session2.ID) error {
			_, err := there.M.RevokeUser(context.Background(), "alice")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there, _ := processes(t)
				b, other := &testsite.Browser{}, &testsite.Browser{}
				here.begun(t, b)
				here.Do(other, func(s *session2.Session) { s.SetUser("bob") })
				x, y := openStream(here.Site, b, sse), openStream(here.Site, other, sse)
				time.Sleep(100 * time.Millisecond)
				testsite.Must(t, end(there, b, x.s.ID()))
				settle()
				y.mustGoOn()
				want := session2.ErrNotFound
				if name == "Renew" {
					want = session2.ErrStale
				}
				x.mustEnd(want)
			})
		})
	}
}

// A stream that asks for its context's end after the word of the change has come ends, too.
func TestCacheEndsALateStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, _ := processes(t)
		b := &testsite.Browser{}
		here.begun(t, b)
		x := openStream(here.Site, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			sse(s, w, r)
			there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
			time.Sleep(50 * time.Millisecond)
		})
		settle()
		x.mustEnd(session2.ErrNotFound)
	})
}

// A process that ends tells the others before what it has changed, also if that was all it did.
func TestCacheTellsBeforeItCloses(t *testing.T) {
	for name, end := range map[string]func(there process, b *testsite.Browser){
		"a job": func(there process, _ *testsite.Browser) {
			there.M.RevokeUser(context.Background(), "alice")
		},
		"a shutdown": func(there process, b *testsite.Browser) {
			there.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("k", 1) })
			there.Do(b.Clone(), func(s *session2.Session) { s.Set("k", 1) })
			there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there, _ := processes(t)
				b := &testsite.Browser{}
				here.begun(t, b)
				end(there, b)
				testsite.Must(t, session2.Close(there.Store))
				settle()
				if got := reads(here.Site, b); got != nil {
					t.Errorf("color = %v", got)
				}
			})
		})
	}
}

// However much there is to tell, messages are short, and few.
func TestCacheTellsMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, _ := processes(t)
		browsers := make([]*testsite.Browser, 2000)
		for i := range browsers {
			browsers[i] = &testsite.Browser{}
			here.Begin(browsers[i])
		}
		reads(here.Site, browsers[0])
		settle()
		for _, b := range browsers {
			reads(here.Site, b)
		}
		for i, b := range browsers {
			there.Do(b.Clone(), func(s *session2.Session) { s.Set("color", fmt.Sprint(i)) })
		}
		time.Sleep(time.Second)
		for i, b := range browsers {
			if got := reads(here.Site, b); got != fmt.Sprint(i) {
				t.Fatalf("color = %v, want %v", got, i)
			}
		}
		there.set(func() {
			if n := there.town.longest; n < 1000 || n >= 8000 {
				t.Errorf("the longest message has %d bytes", n)
			}
		})
	})
}

// What nobody understands may mean anything, and harms nobody.
func TestCacheHearsNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, _, store := processes(t)
		b := &testsite.Browser{}
		here.begun(t, b)
		for _, text := range []string{"", " ", "x", "x y", "x 1 *", "x 1 " + strings.Repeat("A", 22) + "AA",
			"x 1 " + strings.Repeat("é", 11), strings.Repeat("x ", 3000)} {
			here.town.lines[1].Publish(context.Background(), text)
			if got := reads(here.Site, b); got != "green" {
				t.Errorf("after %q: color = %v", text, got)
			}
		}
		calls := store.Calls()
		if reads(here.Site, b); store.Calls() != calls {
			t.Error("the cache is not used any more")
		}
	})
}

func ExampleNewPostgresPubSub() {
	url := "postgres://app:password@db.internal/app"
	postgres, err := session2.Open(context.Background(), url)
	if err != nil {
		log.Fatal(err)
	}
	pubsub, err := session2.NewPostgresPubSub(url)
	if err != nil {
		log.Fatal(err)
	}
	store := session2.NewCache(postgres, &session2.CacheOptions{MaxAge: time.Minute, PubSub: pubsub})
	defer session2.Close(store)
}
