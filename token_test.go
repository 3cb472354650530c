package session2_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/bounded"
	"github.com/session2/session2/internal/testsite"
)

// A CSRF token from before the login is valid after it.
func TestCSRFTokenSurvivesLogin(t *testing.T) {
	for _, renew := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", 1) }) // an anonymous session
		var before string
		st.Do(b, func(s *session2.Session) { before = s.CSRFToken() }) // known to whoever knew it
		st.Do(b, func(s *session2.Session) {
			if renew {
				s.Renew()
			} else {
				s.SetUser("alice")
			}
			s.CSRFToken() // the answer to the login carries a new token
		})
		st.Do(b, func(s *session2.Session) {
			if s.ValidCSRFToken(csrfReq(before)) {
				t.Errorf("renew=%t: the CSRF token from before the change of privileges is valid after it", renew)
			}
		})
	}
}

func csrfReq(tok string) *http.Request {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("X-CSRF-Token", tok)
	return r
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

// The printing of what sessions hold, and of whole tokens, is tested on all stores and by
// the command line in command: TestNoSecretIsPrinted.
func TestTokensDoNotPrint(t *testing.T) {
	var known testsite.Secrets
	secret := [32]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}
	known.Token(session2.EncodeToken(session2.ID{}, secret))
	for _, v := range session2.PrintableSecrets(secret) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			if found := known.Find([]byte(fmt.Sprintf(verb, v))); found != nil {
				t.Errorf("%s of a %T shows %q", verb, v, found)
			}
		}
		js, _ := json.Marshal(v)
		if found := known.Find(js); found != nil {
			t.Errorf("JSON of a %T shows %q", v, found)
		}
	}
}

// TestFormTokenOfALostAnswer is about a token whose Save landed without anybody
// hearing of it, in a session that then ended: it is used up, so that to say no
// and nothing else would lose the submit.
func TestFormTokenOfALostAnswer(t *testing.T) {
	store := newHookStore()
	m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler)})
	testsite.Must(t, err)
	first, err := m.Open(t.Context(), "")
	testsite.Must(t, err)
	form := first.FormToken()
	testsite.Must(t, first.Commit(t.Context()))

	second, err := m.Open(t.Context(), first.Token())
	testsite.Must(t, err)
	lost := false
	store.set(func() {
		store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
			if lost {
				return save()
			}
			lost = true
			testsite.Must(t, save())
			testsite.Must(t, store.MemoryStore.Delete(t.Context(), rec.ID))
			return testsite.ErrDown
		}
	})
	if ok, err := second.UseFormToken(t.Context(), form); ok || !errors.Is(err, session2.ErrUncertain) {
		t.Errorf("got %v, %v, want %v", ok, err, session2.ErrUncertain)
	}
}

func TestFormTokenIsUsedOnce(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	var token string
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	var mu sync.Mutex
	accepted := 0
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.Set("pending", 1)
				ok, err := s.UseFormToken(r.Context(), token)
				if err != nil {
					t.Error(err)
				}
				if ok {
					mu.Lock()
					accepted++
					mu.Unlock()
				}
				w.WriteHeader(500) // the token stays used, the rest leaves no trace
			})
		})
	}
	wg.Wait()
	if accepted != 1 {
		t.Errorf("of 16 submits at once %d were accepted", accepted)
	}
	st.Do(b, func(s *session2.Session) {
		if s.HasFormToken(token) || s.Has("pending") {
			t.Error("the token is there again, or a failed request left a trace")
		}
	})
}

func TestCSRFTokensDrawnAtOnceAreBothValid(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	var tokens []string
	st.During(b, func(s *session2.Session) { tokens = append(tokens, s.CSRFToken()) }, func() {
		st.Do(b.Clone(), func(s *session2.Session) { tokens = append(tokens, s.CSRFToken()) })
	}, func(*session2.Session) {})
	valid := func(token string) (ok bool) {
		st.Do(b, func(s *session2.Session) {
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("X-CSRF-Token", token)
			ok = s.ValidCSRFToken(r)
		})
		return ok
	}
	for i, token := range tokens {
		if !valid(token) {
			t.Errorf("token %d is not valid", i)
		}
	}
	st.Do(b, func(s *session2.Session) { s.Renew() })
	if valid(tokens[0]) || valid("") {
		t.Error("a token from before the renewal is valid")
	}
}

func TestCSRFTokensOfManyFirstRequests(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{CommitTimeout: time.Minute})
	b := st.Login("alice")
	var mu sync.Mutex
	var csrf, forms []string
	var wg, drawn sync.WaitGroup
	drawn.Add(12)
	for range 12 {
		wg.Go(func() {
			st.Do(b.Clone(), func(s *session2.Session) {
				c, f := s.CSRFToken(), s.FormToken()
				if again := s.CSRFToken(); again == c {
					t.Error("one spelling twice: compression would give it away")
				}
				mu.Lock()
				csrf, forms = append(csrf, c), append(forms, f)
				mu.Unlock()
				drawn.Done()
				drawn.Wait() // until all have drawn and none has committed
			})
		})
	}
	wg.Wait()
	for i := range csrf {
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-CSRF-Token", csrf[i])
			if !s.ValidCSRFToken(r) {
				t.Errorf("CSRF token %d is dead on arrival", i)
			}
			if ok, err := s.UseFormToken(r.Context(), forms[i]); !ok || err != nil {
				t.Errorf("form token %d: %v, %v", i, ok, err)
			}
		})
	}
	stranger := st.Login("bob")
	st.Visit(stranger, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.CSRFToken()
		r.Header.Set("X-CSRF-Token", csrf[0])
		if s.ValidCSRFToken(r) {
			t.Error("a token of another session is valid")
		}
	})
	st.Do(b, (*session2.Session).Renew)
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.CSRFToken()
		r.Header.Set("X-CSRF-Token", csrf[0])
		if s.ValidCSRFToken(r) {
			t.Error("a token from before Renew is valid")
		}
	})
}

type countingReader struct{ n int }

func (c *countingReader) Read(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

func TestNoBodyIsParsedForASessionWithoutACSRFToken(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	body := &countingReader{}
	r := httptest.NewRequest("POST", "/", io.NopCloser(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if s.ValidCSRFToken(r) {
			t.Error("no token is valid")
		}
	}).ServeHTTP(httptest.NewRecorder(), r)
	if body.n != 0 {
		t.Errorf("%d bytes of a stranger's body were read", body.n)
	}
}

func TestFormTokensAreBounded(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	var tokens []string
	for range 20 {
		st.Do(b, func(s *session2.Session) { tokens = append(tokens, s.FormToken()) })
	}
	st.Do(b, func(s *session2.Session) {
		for i, token := range tokens {
			if got, want := s.HasFormToken(token), i >= 4; got != want {
				t.Errorf("token %d of 20: %t, want %t", i, got, want)
			}
		}
		if s.HasFormToken("") || s.HasFormToken("x") {
			t.Error("what is no token is there")
		}
	})
}

func TestSessionThatHeldAFormTokenOnly(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	var token string
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if ok, err := s.UseFormToken(r.Context(), token); !ok || err != nil {
			t.Errorf("UseFormToken = %t, %v", ok, err)
		}
	})
	if n := records(t, store); n != 0 || b.Token() != "" {
		t.Errorf("%d records, cookie %t, though the session holds nothing", n, b.Token() != "")
	}
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		id := s.ID()
		s.UseFormToken(r.Context(), token)
		s.Set("k", 1)
		if s.ID() != id {
			t.Error("a session that goes on has another ID")
		}
	})
	st.Do(b, func(s *session2.Session) {
		if s.Get("k") != 1 {
			t.Error("what was set beside the token is lost")
		}
	})
}

func TestFormTokenWhoseAnswerIsLost(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	var token string
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		if err := save(); err != nil {
			t.Error(err)
		}
		st.Do(b.Clone(), func(s *session2.Session) { s.Set("other", 1) })
		return errors.New("connection reset")
	}
	for i, want := range []bool{true, false} {
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			if ok, err := s.UseFormToken(r.Context(), token); ok != want || err != nil {
				t.Errorf("use %d: %t, %v; want %t", i, ok, err, want)
			}
		})
	}
	ended := b.Clone()
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	st.Visit(ended, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		st.Do(b, func(s *session2.Session) { s.Destroy() })
		if ok, err := s.UseFormToken(r.Context(), token); ok || err != nil {
			t.Errorf("in a session that has ended: %t, %v", ok, err)
		}
	})
}

// UseFormToken after the inner http.TimeoutHandler has answered with 503.
func TestFormTokenAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		var form string
		st.Do(b, func(s *session2.Session) { form = s.FormToken() })
		done := make(chan struct{})
		var ok bool
		var err error
		r := httptest.NewRequest("GET", "/", nil)
		b.Send(r)
		w := httptest.NewRecorder()
		st.M.Wrap(http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			s := session2.FromContext(r.Context())
			s.User()
			time.Sleep(2 * time.Second)
			ok, err = s.UseFormToken(r.Context(), form)
		}), time.Second, "timeout")).ServeHTTP(w, r)
		<-done
		t.Log(w.Code, ok, err)
		if w.Code == 503 && ok {
			t.Error("the request was answered with 503, its context is over, and the token was used up by it")
		}
	})
}

// A copy of a session, which vet forbids, shows no token either.
func TestNoTokenInACopyOfASession(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	s, err := st.M.Open(t.Context(), b.Token())
	testsite.Must(t, err)
	_, secret, _ := strings.Cut(b.Token(), ".")
	v := reflect.ValueOf(s).Elem()
	if text := fmt.Sprintf("%+v %#v", v, v); strings.Contains(text, secret) {
		t.Errorf("printed: %s", text)
	}
}

// Two submits of one form: both are told true, with a nil error.
func TestFormTokenUsedTwice(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	var form string
	st.Do(b, func(s *session2.Session) { form = s.FormToken() })
	first, second := false, false
	res := st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		n, _ := counter.Get(s)
		st.Do(b.Clone(), func(s *session2.Session) { // the other submit
			counter.Update(s, inc)
			first, _ = s.UseFormToken(r.Context(), form)
		})
		counter.Set(s, n+1)
		if err := s.Commit(r.Context()); err == nil { // ErrLostUpdate
			t.Error("no lost update")
		}
		second, _ = s.UseFormToken(r.Context(), form)
	})
	if first && second {
		t.Errorf("both submits were told true (status of the second %d)", res.StatusCode)
	}
}

// Related: a request whose session is broken is told true for a token of its own.
func TestFormTokenOfABrokenSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout})
		b := st.Login("alice")
		st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			tok := s.FormToken()
			store.FailSave.Store(true)
			if s.Commit(r.Context()) == nil {
				t.Error("stored")
			}
			if ok, err := s.UseFormToken(r.Context(), tok); ok {
				t.Errorf("UseFormToken = %t, %v, while Err() = %v", ok, err, s.Err())
			}
		})
	})
}

// A store that is down does not say whether the token is used up. Here it is not.
func TestFormTokenWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout})
		b := st.Login("alice")
		var form string
		st.Do(b, func(s *session2.Session) { form = s.FormToken() })
		st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			store.FailSave.Store(true)
			if ok, err := s.UseFormToken(r.Context(), form); ok || !errors.Is(err, session2.ErrUncertain) {
				t.Errorf("UseFormToken = %t, %v, want false and ErrUncertain", ok, err)
			}
			store.FailSave.Store(false)
			if ok, err := s.UseFormToken(r.Context(), form); !ok || err != nil {
				t.Errorf("UseFormToken = %t, %v when the store is back", ok, err)
			}
		})
	})
}

// FuzzMarks: no text but those that were drawn is a form token or a CSRF token, and
// each of them has one spelling.
func FuzzMarks(f *testing.F) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(f, store, session2.Config{})
	b := st.Login("alice")
	var form, csrf string
	st.Do(b, func(s *session2.Session) { form, csrf = s.FormToken(), s.CSRFToken() })
	for _, seed := range []string{"", form, csrf, form + "=", strings.ToUpper(form), csrf[1:], "\xff\x00", form + form} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, text string, asField bool) {
		st := testsite.NewSite(t, store, session2.Config{})
		st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			bounded.Decode(t, len(text), func() {
				if s.HasFormToken(text) != (text == form) {
					t.Errorf("%q is a form token: %v", text, text != form)
				}
				if used, err := s.UseFormToken(r.Context(), "-"+text); used || err != nil {
					t.Errorf("%q was used: %v, %v", "-"+text, used, err)
				}
				if asField {
					r.Method = "POST"
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					r.Body = io.NopCloser(strings.NewReader(url.Values{"csrf_token": {text}}.Encode()))
				} else {
					r.Header["X-Csrf-Token"] = []string{text}
				}
				mark, ok := session2.Unmask(text)
				want, _ := session2.Unmask(csrf)
				if valid := s.ValidCSRFToken(r); valid != (ok && mark == want) {
					t.Errorf("%q is valid: %v", text, valid)
				}
				if again, same := session2.Unmask(session2.Mask(mark)); ok && (!same || again != mark) {
					t.Errorf("%q is %x, which is spelled as %x", text, mark, again)
				}
			})
		})
	})
}
