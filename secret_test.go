package session2_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// secrets collects what must never show up in print.
type secrets map[string]string

// token notes a token whole, its secret half, and the bytes of that in the
// ways that a careless verb would spell them.
func (k secrets) token(text string) {
	id, secret, ok := strings.Cut(text, ".")
	if !ok {
		return
	}
	k[text], k[secret] = "token", "verifier of "+id
	raw, _ := base64.RawURLEncoding.DecodeString(secret)
	k[hex.EncodeToString(raw)] = "verifier in hexadecimal of " + id
	k[strings.Trim(fmt.Sprint(raw[:8]), "[]")] = "verifier in decimal of " + id
	k[strings.Trim(fmt.Sprintf("%#v", raw[:8]), "[]byte{}")] = "verifier in Go of " + id
	k[strings.ToUpper(hex.EncodeToString(raw))] = "verifier in hexadecimal of " + id
}

func (k secrets) check(t *testing.T, where, text string) {
	t.Helper()
	for secret, what := range k {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows a %s: %.300q", where, what, text)
		}
	}
}

// printed is v by every verb and encoder that might get at its fields.
func printed(book *testsite.Log, v any) string {
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	js, _ := json.Marshal(v)
	book.Logger().Debug("printed", "value", v)
	slog.New(slog.NewJSONHandler(book, nil)).Info("printed", "value", v)
	return b.String() + string(js)
}

// A session whose token was replaced by a login has none to give out: half a
// token would open nothing.
func TestSupersededHasNoToken(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	old := b.Clone()
	st.Do(b, (*session2.Session).Renew)
	st.Do(old, func(s *session2.Session) {
		s.Set("color", "blue")
		if token := s.Token(); token != "" {
			t.Errorf("Token() has %d bytes, want none", len(token))
		}
	})
}

// Live IDs' secrets in the log, tokens in the clear, values in errors: nothing
// of it, whatever happens.
func TestNoSecretIsPrinted(t *testing.T) {
	book, known := &testsite.Log{}, secrets{secretText: "value", hex.EncodeToString([]byte(secretText)): "value",
		base64.StdEncoding.EncodeToString([]byte(secretText)): "value"}
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout, Logger: book.Logger(),
		RenewEvery: time.Second, MaxBytes: 4000, Codec: session2.JSON{}})
	b := &testsite.Browser{}
	var old []*testsite.Browser
	visit := func(b *testsite.Browser, f sessionHandler) {
		t.Helper()
		known.token(b.Token())
		defer func() {
			if p := recover(); p != nil {
				known.check(t, "a panic", fmt.Sprint(p))
			}
			known.token(b.Token())
		}()
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			f(s, w, r)
			known.token(s.Token())
			var dump strings.Builder
			s.Dump(&dump)
			for where, v := range map[string]any{"the session": s, "the context": r.Context(), "the writer": w, "Err": s.Err()} {
				known.check(t, where, printed(book, v))
			}
			known.check(t, "Dump", dump.String())
		})
	}
	down := func(f sessionHandler) {
		store.FailSave.Store(true)
		store.FailDelete.Store(true)
		visit(b, f)
		store.FailSave.Store(false)
		store.FailDelete.Store(false)
	}
	set := func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		s.Set("k", secretText)
		s.Flash(secretText)
	}
	steps := []func(){
		func() { visit(b, set) },
		func() {
			old = append(old, b.Clone())
			visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.SetUser("alice") })
		},
		func() { visit(old[0], set) }, // superseded
		func() {
			visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
				s.Renew()
				s.FormToken()
				s.CSRFToken()
			})
		},
		func() {
			visit(b, func(*session2.Session, http.ResponseWriter, *http.Request) { panic("handler's own") })
		},
		func() {
			visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Set("n", json.Number(secretText)) })
		},
		func() {
			visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
				s.Set("big", strings.Repeat(secretText, 1000))
			})
		},
		func() { visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { readAs[int](s) }) },
		func() {
			visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); s.Renew() })
		},
		func() { down(set) },
		func() { down(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Destroy() }) },
		func() { store.FailLoad.Store(true); visit(b, set); store.FailLoad.Store(false) },
		func() {
			id, secret, _ := strings.Cut(b.Token(), ".")
			for _, bad := range []string{id + "." + strings.Repeat("Q", 43), strings.Repeat("0", 32) + "." + secret, secret, b.Token() + "x"} {
				visit(&testsite.Browser{Cookie: &http.Cookie{Name: "__Host-session", Value: bad}}, set)
			}
		},
		func() {
			visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
				if err := st.M.Revoke(r.Context(), s.ID()); err != nil {
					t.Error(err)
				}
				set(s, nil, nil) // dropped
			})
		},
		func() {
			s, err := st.M.Open(t.Context(), old[0].Token())
			known.check(t, "Open", printed(book, []any{s, err}))
		},
		func() {
			visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.SetUser("bob"); s.Destroy() })
		},
	}
	for _, step := range steps {
		step()
	}
	for _, e := range st.Events.List {
		known.check(t, "an event", printed(book, e)+fmt.Sprint(e.Err))
	}
	if len(known) < 20 || len(st.Events.List) < 10 || len(book.String()) < 1000 {
		t.Fatalf("only %d secrets, %d events and %d bytes of log: the scenarios did not happen", len(known), len(st.Events.List), len(book.String()))
	}
	known.check(t, "the log", book.String())
}

func TestTokensDoNotPrint(t *testing.T) {
	known := secrets{}
	secret := [32]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}
	known.token(session2.EncodeToken(session2.ID{}, secret))
	for _, v := range session2.PrintableSecrets(secret) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			known.check(t, fmt.Sprintf("%s of a %T", verb, v), fmt.Sprintf(verb, v))
		}
		js, _ := json.Marshal(v)
		known.check(t, fmt.Sprintf("JSON of a %T", v), string(js))
	}
}
