package soak

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/session2/session2"
)

// acts are what a client with a session does, and how often.
var acts = []struct {
	weight int
	do     func(*client)
}{
	{30, (*client).read},
	{25, (*client).write},
	{3, (*client).poll},
	{6, (*client).flash},
	{6, (*client).form},
	{3, (*client).csrf},
	{6, (*client).tabs},
	{6, (*client).turns},
	{4, (*client).watch},
	{2, (*client).leaveStream},
	{5, (*client).loginAgain},
	{2, (*client).renew},
	{2, (*client).level},
	{4, (*client).logout},
	{1, (*client).revokeUser},
	{1, (*client).revokeOthers},
	{1, (*client).revokeOne},
	{4, (*client).stayAway},
	{3, (*client).open},
	{1, (*client).panics},
	{2, (*client).fails},
	{2, (*client).forget},
	{1, (*client).hurry},
	{1, (*client).guess},
}

// draw draws an act by weight.
func (c *client) draw() func(*client) {
	sum := 0
	for _, a := range acts {
		sum += a.weight
	}
	n := c.rnd.IntN(sum)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			return a.do
		}
	}
	panic("unreachable")
}

// begin makes a session, by a login or without. It is the one act that does: a session
// that two requests made at once would be nobody's.
func (c *client) begin() {
	login, user, v := c.rnd.IntN(3) > 0, c.user(), c.value()
	c.dead = false
	c.visit(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		if login {
			s.SetUser(user)
		}
		s.Set("v0", v)
		w.Write([]byte("welcome"))
	})
}

// with is visit for a handler that needs a stored session. Where there is none any more,
// the client begins anew.
func (c *client) with(h handler) int {
	return c.visit(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if s.IsNew() {
			c.dead = true
			return
		}
		h(s, w, r)
	})
}

var count, naive = session2.NewKey[int]("count"), session2.NewKey[int]("naive")

// value draws something to keep.
func (c *client) value() []byte { return make([]byte, c.rnd.IntN(2048)) }

func (c *client) read() {
	c.with(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		count.Get(s)
		s.Get("v0")
		s.Keys()
		w.Write([]byte(s.User()))
	})
}

func (c *client) write() {
	key, v := "v"+string(rune('0'+c.rnd.IntN(4))), c.value()
	c.with(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		count.Update(s, func(n int) int { return n + 1 })
		s.Set(key, v)
		w.Write([]byte("written"))
	})
}

// poll is a read that is no use of the session.
func (c *client) poll() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		s.Passive()
		s.User()
	})
}

func (c *client) flash() {
	c.with(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.Flash("saved")
		w.WriteHeader(http.StatusSeeOther)
	})
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Flashes() })
}

// form submits a form twice at once: it must be taken at most once.
func (c *client) form() {
	var token string
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { token = s.FormToken() })
	var taken [2]bool
	submit := func(i int) func() {
		return func() {
			c.visit(func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
				if s.IsNew() {
					return
				}
				ok, err := s.UseFormToken(r.Context(), token)
				c.notes.checkIn(r.Context(), "UseFormToken", err)
				taken[i] = ok
			})
		}
	}
	together(submit(0), submit(1))
	if taken[0] && taken[1] {
		c.notes.fault("a form was taken twice")
	}
}

func (c *client) csrf() {
	var token string
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { token = s.CSRFToken() })
	c.with(func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-CSRF-Token", token)
		s.ValidCSRFToken(r)
	})
}

// increment sets a number to one more than it has read, unless there is no session by now.
func increment(s *session2.Session) bool {
	if s.IsNew() {
		return false
	}
	n, _ := naive.Get(s)
	naive.Set(s, n+1)
	return true
}

// tabs has three requests change the session at once, two of them one key that they have
// read: one of these may be refused.
func (c *client) tabs() {
	v := c.value()
	careless := func() {
		c.visit(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			if increment(s) {
				s.Set("v3", v)
			}
		})
	}
	together(careless, careless, func() {
		c.visit(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			if !s.IsNew() {
				count.Update(s, func(n int) int { return n + 1 })
			}
		})
	})
}

// turns has requests wait for one another.
func (c *client) turns() {
	turn := func() {
		c.exclusively(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			if increment(s) {
				w.Write([]byte("done"))
			}
		})
	}
	together(turn, turn, turn)
}

// together runs functions side by side.
func together(list ...func()) {
	var wg sync.WaitGroup
	for _, f := range list {
		wg.Go(f)
	}
	wg.Wait()
}

// watch opens a stream that ends with the session, or when the client leaves. It returns
// when the stream has begun: the header has left, and with it the cookie.
func (c *client) watch() {
	if c.stream != nil {
		select {
		case <-c.stream:
			c.stream = nil
		default:
			return
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	begun, ended := make(chan struct{}), make(chan struct{})
	c.streams.Go(func() {
		defer close(ended)
		defer cancel()
		c.serve(ctx, &c.jar, c.Wrap, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			if s.IsNew() || http.NewResponseController(w).Flush() != nil {
				return
			}
			close(begun)
			<-r.Context().Done()
			c.notes.streamed(context.Cause(r.Context()))
			pause(ctx, c.limits.idle/2) // what comes after the session's end, or its token's, is no use of it
		})
	})
	select {
	case <-begun:
		c.stream, c.hangUp = ended, cancel
	case <-ended:
	}
}

// leaveStream ends the stream from the client's side. That is a use of the session: a
// client that stays away lets the stream wait for the session's end.
func (c *client) leaveStream() {
	if c.stream != nil && c.away == nil {
		c.hangUp()
		<-c.stream
		c.stream = nil
	}
}

// loginAgain signs the same user in, or another one.
func (c *client) loginAgain() {
	user := c.user()
	c.with(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.SetUser(user)
		w.WriteHeader(http.StatusSeeOther)
	})
}

func (c *client) renew() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Renew() })
}

func (c *client) level() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		if s.User() != "" {
			s.SetLevel(2)
		}
	})
}

func (c *client) logout() {
	c.with(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.Destroy()
		w.WriteHeader(http.StatusSeeOther)
	})
}

func (c *client) revokeUser() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		_, err := c.RevokeUser(r.Context(), s.User())
		c.notes.checkIn(r.Context(), "RevokeUser", err)
	})
}

func (c *client) revokeOthers() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		_, err := c.RevokeOthers(r.Context(), s)
		c.notes.checkIn(r.Context(), "RevokeOthers", err)
	})
}

// revokeOne ends one of the devices in the user's list.
func (c *client) revokeOne() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		var last session2.ID
		for info, err := range c.Sessions(r.Context(), s.User()) {
			c.notes.checkIn(r.Context(), "Sessions", err)
			last = info.ID
		}
		c.notes.checkIn(r.Context(), "Revoke", c.Revoke(r.Context(), last))
	})
}

// stayAway leaves the session alone until it must have expired. Meanwhile the client
// has another one.
func (c *client) stayAway() {
	if c.away != nil {
		return
	}
	until := time.Now().Add(c.limits.idle + c.limits.idle/10) // with what an access is exact to: a stream may end now
	c.away = &absence{id: c.jar.id(), cookie: c.jar.get(), until: until}
	c.jar.set(nil)
}

// comeBack tries the cookie of a session that has expired, and waits for the sweep to
// take the record before there is another absence.
func (c *client) comeBack() {
	if c.away == nil || time.Now().Before(c.away.until) {
		return
	}
	if !c.away.shut {
		j := &jar{cookie: c.away.cookie}
		c.serve(context.Background(), j, c.Wrap, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			if !s.IsNew() || s.User() != "" || len(s.Keys()) > 0 {
				c.notes.fault("a session opens whose time is over")
			}
		})
		c.away.shut = true
	}
	has, err := c.store.Has(context.Background(), c.away.id)
	c.notes.check("Has", err)
	if !has {
		c.away = nil
	}
}

// open uses the session without HTTP.
func (c *client) open() {
	ctx := context.Background()
	s, err := c.Open(ctx, c.jar.token())
	if err != nil {
		c.notes.check("Open", err)
		c.dead = true
		return
	}
	count.Update(s, func(n int) int { return n + 1 })
	err = s.Commit(ctx)
	c.notes.check("Commit", err)
	if err == nil {
		name := c.jar.get().Name
		c.jar.set(&http.Cookie{Name: name, Value: s.Token()})
	}
}

func (c *client) panics() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		s.Set("v0", "lost")
		panic(errPanic)
	})
}

func (c *client) fails() {
	c.with(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.Set("v0", "lost")
		w.WriteHeader(http.StatusInternalServerError)
	})
}

// forget leaves nothing in a session of nobody, which ends by that.
func (c *client) forget() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		if s.User() == "" {
			s.Clear()
		}
	})
}

// hurry has the session end sooner if it is not used.
func (c *client) hurry() {
	c.with(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.SetIdleTimeout(c.limits.idle / 2) })
}

// guess comes with a token that nobody has issued, or with no token at all.
func (c *client) guess() {
	token := "nonsense"
	if c.rnd.IntN(2) == 0 {
		var id session2.ID
		rand.Read(id[:])
		token = id.String() + "." + strings.Repeat("A", 43)
	}
	j := &jar{cookie: &http.Cookie{Name: c.jar.get().Name, Value: token}}
	c.serve(context.Background(), j, c.Wrap, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		if !s.IsNew() || s.User() != "" {
			c.notes.fault("a guessed token opens a session")
		}
	})
}
