package session2

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/session2/session2/internal/record"
)

// Flash leaves a message for the next page that asks for [Session.Flashes]. It is
// encoded as by [Session.Set].
func (s *Session) Flash(v any) {
	s.must()
	e, err := encodeAny(s.m.cfg.Codec, "", v)
	if err != nil {
		s.refuse(fmt.Errorf("session2: flash: %w", err))
		return
	}
	f := flash{data: e.data()}
	rand.Read(f.id[:])
	s.change(func(st *state) error {
		st.flashes = append(st.flashes, f)
		return nil
	})
}

// Flashes returns the messages left by [Session.Flash], oldest first, and removes them.
// Two requests at once may both return one; none is lost.
func (s *Session) Flashes() []any {
	taken := s.takeFlashes()
	list := make([]any, 0, len(taken))
	for _, f := range taken {
		v, err := decodeAny(s.m.cfg.Codec, f.data)
		if err != nil {
			s.undecodable("flashes", anyType, err)
			continue
		}
		list = append(list, v)
	}
	return list
}

// takeFlashes removes the messages that are there now, and none that another
// request leaves meanwhile.
func (s *Session) takeFlashes() []flash {
	s.look()
	defer s.mu.Unlock()
	if len(s.work.flashes) > 0 {
		s.alterHeld()
	}
	taken := s.work.flashes
	if len(taken) > 0 {
		gone := make(map[[8]byte]bool, len(taken))
		for _, f := range taken {
			gone[f.id] = true
		}
		s.apply(func(st *state) error {
			st.flashes = slices.DeleteFunc(slices.Clone(st.flashes), func(f flash) bool { return gone[f.id] })
			return nil
		})
	}
	return taken
}

func newMark() (m mark) {
	rand.Read(m[:])
	return m
}

func (m mark) encode() string { return strict64.EncodeToString(m[:]) }

func parseMark(s string) (m mark, ok bool) {
	if len(s) != strict64.EncodedLen(len(m)) {
		return mark{}, false
	}
	n, err := strict64.Decode(m[:], []byte(s))
	return m, err == nil && n == len(m)
}

// holds looks for m without telling by the time it takes how near it came.
func holds(list []mark, m mark) bool {
	found := 0
	for i := range list {
		found |= subtle.ConstantTimeCompare(list[i][:], m[:])
	}
	return found == 1
}

// FormToken returns a new token to hide in a form; [Session.UseFormToken]
// accepts it once. A session remembers its latest 16: have one for a page, and not for
// each row of a list. Call it before the first byte of the response is written.
func (s *Session) FormToken() string {
	m := newMark()
	s.alter()
	defer s.mu.Unlock()
	s.drawn = addMark(s.drawn, m, maxForms)
	s.apply(func(st *state) error {
		st.forms = addMark(st.forms, m, maxForms)
		return nil
	})
	return m.encode()
}

// HasFormToken reports whether the token is there and not used yet. To act on it, call
// [Session.UseFormToken]: of two requests at once, both may be told true here.
func (s *Session) HasFormToken(token string) bool {
	s.look()
	defer s.mu.Unlock()
	m, ok := parseMark(token)
	return ok && holds(s.work.forms, m)
}

// errSpent ends a transaction whose form token is not there.
var errSpent = errors.New("session2: no such form token")

// UseFormToken uses the token up, by a Save of its own, before it returns true: of two
// submits at once, one is told true. The rest of the request's changes wait for its
// commit as ever; if the request fails, the token stays used. For an unknown token it
// returns false and no error. With an error that matches [ErrUncertain] nobody can tell
// whether the token is used up.
func (s *Session) UseFormToken(ctx context.Context, token string) (bool, error) {
	s.must()
	m, ok := parseMark(token)
	if !ok {
		return false, nil
	}
	ctx = s.beyond(ctx)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	use := func(st *state) error {
		if !holds(st.forms, m) {
			return errSpent
		}
		st.forms = slices.DeleteFunc(slices.Clone(st.forms), func(f mark) bool { return f == m })
		return nil
	}
	if s.useDrawn(&m, use) {
		return true, nil
	}
	if s.removed(&m) {
		return false, nil
	}
	err := s.spend(ctx, use)
	if errors.Is(err, errSpent) || errors.Is(err, ErrNotFound) && !errors.Is(err, ErrUncertain) {
		return false, nil
	}
	return err == nil, err
}

// useDrawn uses up a token that this request has drawn itself, and that nobody
// else can know of yet. It is a pointer, so that no stack shows the bytes: see used.
func (s *Session) useDrawn(m *mark, use func(*state) error) bool {
	s.look()
	defer s.mu.Unlock()
	usable := cmp.Or(s.broken, s.wrong, s.late()) == nil
	drawn := usable && holds(s.drawn, *m) && holds(s.work.forms, *m) && !holds(s.life.base.forms, *m)
	if drawn {
		s.apply(use)
	}
	return drawn
}

// removed reports whether this request has removed a form token, by Clear or a login. It is
// a pointer as for useDrawn.
func (s *Session) removed(m *mark) bool {
	s.look()
	defer s.mu.Unlock()
	return holds(s.life.base.forms, *m) && !holds(s.work.forms, *m)
}

// CSRFToken returns the session's token against cross-site requests, for a form field
// csrf_token or a header X-CSRF-Token. It is valid until SetUser, SetLevel or Renew; a Clear
// takes it away until the next call. Each call spells it anew, so that the compression of a
// page does not give it away. The first call stores it, and with it the session, so that it
// must come before the first byte of the response is written; of several first calls at
// once, all tokens are valid.
func (s *Session) CSRFToken() string {
	s.look()
	defer s.mu.Unlock()
	if len(s.work.csrf) == 0 {
		s.alterHeld()
		m := s.drawCSRF()
		s.apply(func(st *state) error {
			if !holds(st.csrf, m) {
				st.csrf = addMark(st.csrf, m, maxCSRF)
			}
			return nil
		})
	}
	return s.work.csrf[0].mask()
}

// drawCSRF makes the token of what all requests of a stored session know, so that
// they make the same one.
func (s *Session) drawCSRF() mark {
	base := s.life.base
	if !base.stored() || s.work.renew { // after a login it must be none that whoever knew the old token can make
		return newMark()
	}
	secret := base.ident.hash[:]
	if s.m.cfg.Sealed { // the hash is in the database
		secret = s.life.token.secret[:]
	}
	key, err := hkdf.Key(sha256.New, secret, base.id[:], "session2 csrf v1", len(mark{}))
	if err != nil {
		panic(err) // only for an output of more than 8160 bytes
	}
	return mark(key)
}

// mask spells the mark as a random pad and what is left of the mark under it.
func (m mark) mask() string {
	var b [2 * len(mark{})]byte
	rand.Read(b[:len(m)])
	subtle.XORBytes(b[len(m):], b[:len(m)], m[:])
	return strict64.EncodeToString(b[:])
}

// unmask is the inverse of mask. It takes a bare mark as well, as earlier releases
// spelled it.
func unmask(s string) (m mark, ok bool) {
	var b [2 * len(mark{})]byte
	if len(s) != strict64.EncodedLen(len(b)) {
		return parseMark(s)
	}
	n, err := strict64.Decode(b[:], []byte(s))
	subtle.XORBytes(m[:], b[:len(m)], b[len(m):])
	return m, err == nil && n == len(b)
}

// ValidCSRFToken reports whether r carries the session's CSRF token, in the header
// X-CSRF-Token or else in the form field csrf_token of its body. The body is parsed
// only if the session has such a token, by r.PostFormValue, and so within the limits
// that the application has set for it. The URL is not looked at.
//
// It also returns true if the session's request has the header of [Transport], which no
// other site's page can have a browser send.
func (s *Session) ValidCSRFToken(r *http.Request) bool {
	s.look()
	list := s.work.csrf
	s.mu.Unlock()
	if s.request != nil {
		if _, by := s.m.cfg.Transport.said(s.request.Header); by {
			return true
		}
	}
	if len(list) == 0 {
		return false
	}
	text := r.Header.Get("X-CSRF-Token")
	if text == "" {
		text = r.PostFormValue("csrf_token")
	}
	m, ok := unmask(text)
	return ok && holds(list, m)
}

// spend makes one change by a Save of its own, which must find the session
// stored. The changes that wait for the request's commit are left as they are.
func (s *Session) spend(ctx context.Context, do func(*state) error) error {
	s.alter()
	s.mu.Unlock()
	h, err := s.exclusively(ctx, func(s *Session, ctx context.Context) (hearing, error) {
		return s.spendNow(ctx, op{do: do})
	})
	h.report(s.eventContext(), s.m)
	return err
}

// spendNow is spend that no other commit runs beside.
func (s *Session) spendNow(ctx context.Context, o op) (hearing, error) {
	s.mu.Lock()
	t := s.txn()
	t.log, t.spend, t.behind = []op{o}, true, t.stale()
	err := cmp.Or(s.broken, s.wrong, s.late())
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	became, err := s.carryOut(ctx, t)
	if t.lost && absent(err) { // it may have been done, before the session ended
		err = record.Uncertain(err)
	}
	if became == stored || became == landed {
		s.adopt(t, became == landed)
	}
	return t.hearing, err
}
