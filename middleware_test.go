package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

type sessionHandler = func(s *session2.Session, w http.ResponseWriter, r *http.Request)

// A commit that fails must not be followed by the page: nothing of the handler's
// is left, and what was set outside of Wrap is.
func TestFailedCommit(t *testing.T) {
	for name, door := range doors {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/http2=%v", name, http2), func(t *testing.T) {
				store := testsite.NewBrittle()
				store.FailSave.Store(true)
				st := testsite.NewSite(t, store, session2.Config{
					CommitTimeout: testsite.TinyTimeout, Logger: (&testsite.Log{}).Logger(),
				})
				inner := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					h := w.Header()
					h.Set("X-Handler", "1")
					h.Set("Trailer", "X-Declared")
					h.Set("Content-Length", "3")
					http.SetCookie(w, &http.Cookie{Name: "own", Value: "1"})
					s.Set("color", "green")
					door(w, r)
					io.WriteString(w, "the page")
					w.WriteHeader(201)
					w.Header().Set("X-Late", "1")
					h.Set("X-Declared", "1")
					h.Set(http.TrailerPrefix+"X-Trailer", "1")
				})
				srv := testsite.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Outer", "1")
					inner.ServeHTTP(w, r)
				}), http2)
				res, body := testsite.Get(t, srv, &testsite.Browser{}, "/")
				if res.StatusCode != 503 || body != "Service Unavailable\n" {
					t.Errorf("%d %q, want a clean 503", res.StatusCode, body)
				}
				for _, name := range []string{"X-Handler", "X-Late", "Set-Cookie", "Location", "Trailer"} {
					if v := res.Header.Values(name); len(v) > 0 {
						t.Errorf("%s: %q is left of the handler's header", name, v)
					}
				}
				if len(res.Trailer) > 0 {
					t.Errorf("trailers %v are left", res.Trailer)
				}
				if res.Header.Get("X-Outer") != "1" {
					t.Error("what an outer middleware set is gone")
				}
			})
		}
	}
}

func TestErrorHandlers(t *testing.T) {
	t.Run("too large is 500", func(t *testing.T) {
		cfg := session2.Config{MaxBytes: 500, Logger: (&testsite.Log{}).Logger()}
		st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("big", make([]byte, 1000)) })
		if res.StatusCode != 500 || len(res.Cookies()) != 0 {
			t.Errorf("status %d, cookies %v", res.StatusCode, res.Cookies())
		}
	})
	t.Run("custom", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := testsite.NewBrittle()
			store.FailSave.Store(true)
			st := testsite.NewSite(t, store, session2.Config{
				CommitTimeout: testsite.TinyTimeout, Logger: (&testsite.Log{}).Logger(),
				ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
					if !errors.Is(err, testsite.ErrDown) {
						t.Errorf("err = %v", err)
					}
					w.Header().Set("Retry-After", "3")
					w.WriteHeader(599)
				},
			})
			res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("color", "green") })
			if res.StatusCode != 599 || res.Header.Get("Retry-After") != "3" {
				t.Errorf("status %d, header %v", res.StatusCode, res.Header)
			}
		})
	})
}

// An error handler that writes nothing must not end in the server's 200.
func TestErrorHandlerThatWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := func(s *session2.Session) { s.Set("big", make([]byte, 2000)) }
		failures := map[int]func(st *testsite.Site, store *testsite.Brittle) *http.Response{
			503: func(st *testsite.Site, store *testsite.Brittle) *http.Response {
				store.FailSave.Store(true)
				return st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("color", "green") })
			},
			500: func(st *testsite.Site, _ *testsite.Brittle) *http.Response { return st.Do(&testsite.Browser{}, big) },
			409: func(st *testsite.Site, _ *testsite.Brittle) *http.Response {
				b := st.Login("alice")
				renew := func() { st.Do(b, (*session2.Session).Renew) }
				set := func(s *session2.Session) { s.Set("x", 1) }
				res, _ := st.During(b.Clone(), set, renew, func(*session2.Session) {})
				return res
			},
		}
		handlers := map[string]func(w http.ResponseWriter){
			"nothing":  func(http.ResponseWriter) {},
			"a header": func(w http.ResponseWriter) { w.Header().Set("Retry-After", "3") },
		}
		for want, fail := range failures {
			for name, h := range handlers {
				store := testsite.NewBrittle()
				st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout, MaxBytes: 1000,
					ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { h(w) }})
				res := fail(st, store)
				if res.StatusCode != want || res.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: status %d, want %d; header %v", name, res.StatusCode, want, res.Header)
				}
				if name == "a header" && res.Header.Get("Retry-After") != "3" {
					t.Errorf("the error handler's own header is gone: %v", res.Header)
				}
			}
		}
	})
}

// An error handler has the writer that the handler has, and any way to answer
// is its own. Early Hints are no answer yet.
func TestErrorHandlerWrites(t *testing.T) {
	ways := map[string]func(w http.ResponseWriter) error{
		"Early Hints": func(w http.ResponseWriter) error { w.WriteHeader(http.StatusEarlyHints); return nil },
		"WriteHeader": func(w http.ResponseWriter) error { w.WriteHeader(202); return nil },
		"Write":       func(w http.ResponseWriter) error { _, err := io.WriteString(w, "sorry"); return err },
		"ReadFrom": func(w http.ResponseWriter) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("sorry"))
			return err
		},
		"Flush": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
		"Hijack": func(w http.ResponseWriter) error {
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return err
			}
			defer conn.Close()
			fmt.Fprint(rw, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
			return rw.Flush()
		},
	}
	for name, write := range ways {
		store := testsite.NewBrittle()
		store.FailSave.Store(true)
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout,
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
				if err := write(w); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}})
		h := st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Set("color", "green")
			io.WriteString(w, "page")
		})
		res, body := testsite.Get(t, testsite.Serve(t, h, false), &testsite.Browser{}, "/")
		hints := name == "Early Hints"
		if hints != (res.StatusCode == 503) || !hints && (res.StatusCode >= 300 || body != "" && body != "sorry") {
			t.Errorf("%s: %d %q is not the error handler's response", name, res.StatusCode, body)
		}
	}
}

// An outage must not read as "new session, no error": what the handler said to
// somebody it took for anonymous does not go out, but its own 500 does.
func TestFailedLoadFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for status, want := range map[int]int{200: 503, 302: 503, 401: 503, 500: 500, 502: 502} {
			store := testsite.NewBrittle()
			st := testsite.NewSite(t, store, session2.Config{
				CommitTimeout: testsite.TinyTimeout, Logger: (&testsite.Log{}).Logger(),
			})
			b := &testsite.Browser{}
			st.Begin(b)
			token := b.Token()
			store.FailLoad.Store(true)
			res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
				if s.User() != "" || !errors.Is(s.Err(), testsite.ErrDown) {
					t.Errorf("User() = %q, Err() = %v", s.User(), s.Err())
				}
				w.WriteHeader(status)
				io.WriteString(w, "handler's")
			})
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != want || (status < 500) == (string(body) == "handler's") {
				t.Errorf("handler's %d became %d %q, want %d", status, res.StatusCode, body, want)
			}
			if len(res.Cookies()) != 0 || b.Token() != token {
				t.Error("an outage touched the cookie")
			}
		}
	})
}

// A failed request leaves no trace, logout included.
func TestFailedRequestLeavesNoTrace(t *testing.T) {
	ends := map[string]sessionHandler{
		"500": func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"503 by door": func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "x", http.StatusServiceUnavailable)
		},
		"change after the 500": func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			s.Set("color", "blue")
			s.Destroy()
		},
		"panic":           func(*session2.Session, http.ResponseWriter, *http.Request) { panic("oops") },
		"ErrAbortHandler": func(*session2.Session, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"Goexit":          func(*session2.Session, http.ResponseWriter, *http.Request) { runtime.Goexit() },
		"Discard":         func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Discard() },
		"bad status":      func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(7) },
	}
	changes := map[string]func(*session2.Session){
		"set":    func(s *session2.Session) { s.Set("color", "blue") },
		"logout": func(s *session2.Session) { s.Destroy() },
		"login":  func(s *session2.Session) { s.SetUser("mallory") },
		"clear":  func(s *session2.Session) { s.Clear() },
	}
	for end, leave := range ends {
		for change, f := range changes {
			t.Run(end+"/"+change, func(t *testing.T) {
				store := testsite.NewBrittle()
				st := testsite.NewSite(t, store, session2.Config{})
				b := &testsite.Browser{}
				st.Begin(b)
				before, token, saves := testsite.RecordsOf(t, store)[0], b.Token(), store.Saves.Load()
				done := make(chan struct{})
				go func() { // of its own, for Goexit
					defer close(done)
					defer func() { recover() }()
					res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						f(s)
						leave(s, w, r)
					})
					if len(res.Cookies()) != 0 {
						t.Errorf("cookies %v", res.Cookies())
					}
				}()
				<-done
				after := testsite.RecordsOf(t, store)
				if len(after) != 1 || after[0].Version != before.Version ||
					store.Saves.Load() != saves || b.Token() != token {
					t.Errorf("a trace: %d records, %d saves", len(after), store.Saves.Load()-saves)
				}
				if got := st.Stored(b, "color"); got != "green" {
					t.Errorf("color = %v, want green", got)
				}
			})
		}
	}
}

// A client that goes away must not cancel what its request has done.
func TestClientGone(t *testing.T) {
	for name, look := range map[string]bool{"after the first look": true, "before the first look": false} {
		t.Run(name, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := &testsite.Browser{}
			st.Begin(b)
			ctx, cancel := context.WithCancel(t.Context())
			r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
			b.Send(r)
			rec := httptest.NewRecorder()
			st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
				if look {
					s.User()
				}
				cancel()
				s.Set("paid", true)
			}).ServeHTTP(rec, r)
			if rec.Code != 200 || st.Stored(b, "paid") != true {
				t.Errorf("status %d, paid = %v", rec.Code, st.Stored(b, "paid"))
			}
			if n := st.Events.Count(session2.EventStoreError); n != 0 {
				t.Errorf("%d store errors for a client that left", n)
			}
		})
	}
}

// Changes made while a body streams are committed at the end or by Commit;
// one that needs a cookie is told of, never silent.
func TestStream(t *testing.T) {
	book := &testsite.Log{}
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Logger: book.Logger()})
	b := &testsite.Browser{}
	st.Begin(b)
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		s.Set("step", 1)
		if err := s.Commit(r.Context()); err != nil {
			t.Error(err)
		}
		if got := st.Stored(b.Clone(), "step"); got != 1 {
			t.Errorf("step = %v after Commit", got)
		}
		s.Set("step", 2)
	})
	if got := st.Stored(b, "step"); got != 2 {
		t.Errorf("step = %v after the handler's end", got)
	}
	if strings.Contains(book.String(), "lost") {
		t.Errorf("log: %s", book)
	}
	for name, change := range map[string]func(*session2.Session){
		"renew": (*session2.Session).Renew,
		"login": func(s *session2.Session) { s.SetUser("bob") },
	} {
		book := &testsite.Log{}
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Logger: book.Logger()})
		b := &testsite.Browser{}
		st.Begin(b)
		res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			change(s)
			if err := s.Commit(r.Context()); err == nil || s.Err() == nil {
				t.Errorf("%s: Commit = %v, Err = %v", name, err, s.Err())
			}
		})
		if len(res.Cookies()) != 0 || !strings.Contains(book.String(), "changes lost") {
			t.Errorf("%s: cookies %v, log %q", name, res.Cookies(), book)
		}
		st.Do(b, func(s *session2.Session) {
			if s.User() != "alice" {
				t.Errorf("%s: User() = %q, want alice", name, s.User())
			}
		})
	}
}

// A new session that begins in a stream would be a row without a cookie.
func TestNewSessionInAStream(t *testing.T) {
	store, book := testsite.NewBrittle(), &testsite.Log{}
	st := testsite.NewSite(t, store, session2.Config{Logger: book.Logger()})
	st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		s.Set("color", "green")
	})
	if n := len(testsite.RecordsOf(t, store)); n != 0 || !strings.Contains(book.String(), "changes lost") {
		t.Errorf("%d records, log %q", n, book)
	}
}

func TestNestedManagers(t *testing.T) {
	outer := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	inner := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{
		Cookie: session2.CookieConfig{Name: "__Host-admin"},
	})
	h := outer.M.Wrap(inner.M.Wrap(outer.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if session2.FromContext(r.Context()) != inner.M.Session(r) || inner.M.Session(r) == outer.M.Session(r) {
			t.Error("FromContext is not the innermost manager's session")
		}
		outer.M.Session(r).Set("who", "outer")
		inner.M.Session(r).Set("who", "inner")
		io.WriteString(w, "page")
	}))))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	names := map[string]int{}
	for _, c := range rec.Result().Cookies() {
		names[c.Name]++
	}
	if len(names) != 2 || names["__Host-session"] != 1 || names["__Host-admin"] != 1 {
		t.Errorf("cookies %v", names)
	}
	if session2.FromContext(t.Context()) != nil || outer.M.Session(httptest.NewRequest("GET", "/", nil)) != nil {
		t.Error("a session outside of Wrap")
	}
}

// A row for each anonymous hit, a query for each handler that never looks, and a
// lookup of what is no token: none of them.
func TestLazy(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	bad := &testsite.Browser{Cookie: &http.Cookie{Name: "__Host-session", Value: "../../etc/passwd"}}
	read := func(s *session2.Session) {
		s.User()
		s.Get("a")
		s.Keys()
		s.HasInfo()
		s.Err()
		s.Delete("a")
		s.Clear()
	}
	tests := []struct {
		name string
		b    *testsite.Browser
		f    func(*session2.Session)
		want int64
	}{
		{"never looks, no cookie", &testsite.Browser{}, func(*session2.Session) {}, 0},
		{"never looks, cookie", b, func(*session2.Session) {}, 0},
		{"asks only whether something went wrong", b, func(s *session2.Session) {
			s.Err()
			s.Dirty()
			_ = s.String()
		}, 0},
		{"reads, no cookie", &testsite.Browser{}, read, 0},
		{"malformed cookie", bad, read, 0},
		{"set and taken back", &testsite.Browser{}, func(s *session2.Session) { s.Set("a", 1); s.Delete("a") }, 0},
		{"reads, cookie", b, func(s *session2.Session) { s.User(); s.Get("color") }, 1},
		{"creates", &testsite.Browser{}, func(s *session2.Session) { s.Set("a", 1) }, 1},
		{"changes", b, func(s *session2.Session) { s.Set("a", 1) }, 2},
	}
	for _, c := range tests {
		before := store.Calls()
		res := st.Do(c.b, c.f)
		if n := store.Calls() - before; n != c.want {
			t.Errorf("%s: %d store calls, want %d", c.name, n, c.want)
		}
		if c.want != 1 && c.name != "changes" && len(res.Cookies()) != 0 {
			t.Errorf("%s: cookies %v", c.name, res.Cookies())
		}
	}
	if n := st.Events.Count(session2.EventMalformed); n != 1 {
		t.Errorf("%d EventMalformed, want 1", n)
	}
}

// A map shared by goroutines ends the process with concurrent writes; a session does not.
func TestGoroutinesOfOneRequest(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				counter.Update(s, func(n int) int { return n + 1 })
				s.Set(fmt.Sprint("key", i), i)
				s.Get("color")
				s.Flash(i)
				s.CSRFToken()
				s.Keys()
				s.Expires()
				s.Token()
				if i%4 == 0 {
					if err := s.Commit(r.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		io.WriteString(w, "page")
		wg.Wait()
	})
	st.Do(b, func(s *session2.Session) {
		if n, _ := counter.Get(s); n != 16 || len(s.Flashes()) != 16 || len(s.Keys()) != 18 {
			t.Errorf("counter %d, keys %d", n, len(s.Keys()))
		}
	})
}

// A logout in a stream wins, also where what follows it would need a cookie.
func TestLogoutInAStream(t *testing.T) {
	for name, after := range map[string]func(*session2.Session){
		"logout":           func(*session2.Session) {},
		"and then a set":   func(s *session2.Session) { s.Set("x", 1) },
		"and then a login": func(s *session2.Session) { s.SetUser("bob") },
	} {
		store, book := testsite.NewBrittle(), &testsite.Log{}
		st := testsite.NewSite(t, store, session2.Config{Logger: book.Logger()})
		b := &testsite.Browser{}
		st.Begin(b)
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			s.Destroy()
			after(s)
		})
		if n := len(testsite.RecordsOf(t, store)); n != 0 || st.Events.Count(session2.EventDestroyed) != 1 {
			t.Errorf("%s: %d records, %d EventDestroyed; want 0 and 1",
				name, n, st.Events.Count(session2.EventDestroyed))
		}
	}
}

// recovered answers 500 for a handler that panics, as a middleware outside does.
func recovered(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(500)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// nested wraps h by n managers.
func nested(t testing.TB, n int, h http.Handler) http.Handler {
	for range n {
		h = testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{}).M.Wrap(h)
	}
	return h
}

// What handlers do when they have read their request.
var replies = map[string]http.HandlerFunc{
	"writes":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") },
	"redirects": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/next", http.StatusSeeOther) },
	"streams": func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			io.WriteString(w, "chunk")
			w.(http.Flusher).Flush()
		}
	},
	"panics":  func(http.ResponseWriter, *http.Request) { panic("oops") },
	"fails":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
	"nothing": func(http.ResponseWriter, *http.Request) {},
}

// The server removes the files of its own request's MultipartForm: those that
// were uploaded inside Wrap must be among them, also a stranger's.
func TestUploadedFilesAreRemoved(t *testing.T) {
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	part, _ := m.CreateFormFile("file", "a.bin")
	part.Write(make([]byte, 100_000))
	m.Close()
	for name, reply := range replies {
		for i, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/http2=%v", name, http2), func(t *testing.T) {
				dir := t.TempDir()
				t.Setenv("TMPDIR", dir)
				h := func(w http.ResponseWriter, r *http.Request) {
					if err := r.ParseMultipartForm(1); err != nil {
						t.Error(err)
					}
					if list, _ := os.ReadDir(dir); len(list) != 1 {
						t.Errorf("%d files while the handler runs, want 1", len(list))
					}
					session2.FromContext(r.Context()).Set("color", "green")
					reply(w, r)
				}
				srv := testsite.Serve(t, recovered(nested(t, i+1, http.HandlerFunc(h))), http2)
				srv.Client().CheckRedirect = func(*http.Request, []*http.Request) error {
					return http.ErrUseLastResponse
				}
				res, err := srv.Client().Post(srv.URL, m.FormDataContentType(), bytes.NewReader(form.Bytes()))
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				srv.Close() // waits until the server is done with the request
				if list, _ := os.ReadDir(dir); len(list) != 0 {
					t.Errorf("%d uploaded files are left", len(list))
				}
			})
		}
	}
}

// A handler outside reads what a mux and handlers inside have set on their
// request, as if Wrap had given them its own.
func TestRequestComesBack(t *testing.T) {
	for name, reply := range replies {
		mux := http.NewServeMux()
		mux.HandleFunc("/user/{id}/{rest...}", func(w http.ResponseWriter, r *http.Request) {
			r.ParseForm()
			r.SetPathValue("tenant", "acme")
			r.RemoteAddr = "192.0.2.7:1"
			session2.FromContext(r.Context()).Set("color", "green")
			reply(w, r)
		})
		r := httptest.NewRequest("POST", "/user/7/a/b?q=1", strings.NewReader("field=x"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		recovered(nested(t, 2, mux)).ServeHTTP(httptest.NewRecorder(), r)
		got := strings.Join([]string{r.Pattern, r.PathValue("id"), r.PathValue("rest"), r.PathValue("tenant"),
			r.Form.Get("q"), r.Form.Get("field"), r.PostForm.Get("field"), r.RemoteAddr}, " ")
		if want := "/user/{id}/{rest...} 7 a/b acme 1 x x 192.0.2.7:1"; got != want {
			t.Errorf("%s: outside of Wrap\n got %s\nwant %s", name, got, want)
		}
		if session2.FromContext(r.Context()) != nil {
			t.Errorf("%s: a session outside of Wrap", name)
		}
	}
}

// A request that its handler only reads is read by others at the same time: the
// race detector must have nothing to say.
func TestUntouchedRequestIsNotWrittenTo(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	r := httptest.NewRequest("GET", "/page", nil)
	b.Send(r)
	h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, s.Get("color"), r.URL.Path)
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Body.String() != "green/page" || r.Method != "GET" || r.URL.Path != "/page" {
				t.Errorf("%q for %s %s", rec.Body, r.Method, r.URL)
			}
		})
	}
	wg.Wait()
}

// The server puts trailers into its own request when the body has been read to
// its end: they must not be lost by what comes back.
func TestTrailersStay(t *testing.T) {
	for announced, inside := range map[string]string{"Trailer: X-Sum\r\n": "7", "": ""} {
		inner := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			r.Pattern = "/upload/{tenant}"
			r.SetPathValue("tenant", "acme")
			if got := r.Trailer.Get("X-Sum"); got != inside {
				t.Errorf("announced %q: inside of Wrap the trailer is %q, want %q", announced, got, inside)
			}
		})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			nested(t, 1, inner).ServeHTTP(w, r)
			if r.Trailer.Get("X-Sum") != "7" || r.PathValue("tenant") != "acme" {
				t.Errorf("announced %q: outside of Wrap the trailer is %q", announced, r.Trailer.Get("X-Sum"))
			}
		}))
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+
			"Transfer-Encoding: chunked\r\n%s\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\n\r\n", announced)
		if answer, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
			t.Errorf("%q, %v", answer, err)
		}
		conn.Close()
		srv.Close()
	}
}

// Nested managers: the outer one's commit fails after the inner one's has been done.
func TestNestedManagersLoseTheInnerCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outerStore := testsite.NewBrittle()
		quiet := slog.New(slog.DiscardHandler)
		outer, err := session2.NewManager(outerStore, session2.Config{
			Logger: quiet, CommitTimeout: testsite.TinyTimeout,
			Cookie: session2.CookieConfig{Name: "__Host-outer"},
		})
		testsite.Must(t, err)
		inner, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Logger: quiet})
		testsite.Must(t, err)
		var do func(in, out *session2.Session)
		h := outer.Wrap(inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			do(inner.Session(r), outer.Session(r))
			io.WriteString(w, "done")
		})))
		b := &testsite.Browser{} // of the inner cookie
		ask := func(f func(in, out *session2.Session)) *http.Response {
			do = f
			r := httptest.NewRequest("GET", "/", nil)
			b.Send(r)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			res := w.Result()
			for _, c := range res.Cookies() {
				if c.Name == "__Host-session" {
					b.Cookie = c
				}
			}
			return res
		}
		ask(func(in, _ *session2.Session) { in.SetUser("alice") })
		outerStore.FailSave.Store(true)
		res := ask(func(in, out *session2.Session) { in.Renew(); in.Set("order", 1); out.Set("k", 1) })
		outerStore.FailSave.Store(false)
		var user string
		ask(func(in, _ *session2.Session) { user = in.User() })
		if user != "alice" {
			t.Errorf("status %d: the inner session's token was replaced, and its cookie is lost: user %q",
				res.StatusCode, user)
		}
	})
}

func TestErrorHandlerHasTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		var told error
		cfg := session2.Config{CommitTimeout: time.Millisecond}
		cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			told = session2.FromContext(r.Context()).Err()
			w.WriteHeader(http.StatusTeapot)
		}
		st := testsite.NewSite(t, store, cfg)
		broken := errors.New("disk on fire")
		store.onSave = func(_ session2.Record, _ session2.Version, _ func() error) error { return broken }
		res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("k", 1) })
		if res.StatusCode != http.StatusTeapot || !errors.Is(told, broken) {
			t.Errorf("status %d, Err() = %v", res.StatusCode, told)
		}
	})
}

// gate is a ResponseWriter that calls f the first time that its header is asked for.
type gate struct {
	http.ResponseWriter
	f func()
}

func (g *gate) Header() http.Header {
	if f := g.f; f != nil {
		g.f = nil
		f()
	}
	return g.ResponseWriter.Header()
}

// A goroutine that begins a session while the response begins is told that no cookie can be
// sent any more.
func TestCommitBesideTheFirstByte(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	w := httptest.NewRecorder()
	g := &gate{ResponseWriter: w}
	h := st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, ctx := st.M.Session(r), r.Context()
		g.f = func() {
			done := make(chan error)
			go func() { s.Set("cart", 1); done <- s.Commit(ctx) }()
			if err := <-done; err == nil {
				t.Error("Commit has succeeded")
			}
		}
		io.WriteString(w, "hello")
	}))
	h.ServeHTTP(g, httptest.NewRequest("GET", "https://example.com/", nil))
	if w.Code != http.StatusOK || w.Result().Header.Get("Set-Cookie") != "" {
		t.Errorf("%d, %v", w.Code, w.Result().Header)
	}
}

// A cookie of what was committed goes out although a logout after it has failed.
func TestCommittedCookieOutlivesAFailedDestroy(t *testing.T) {
	for name, then := range map[string]func(s *session2.Session){
		"the store fails":     func(s *session2.Session) { s.Destroy() },
		"a value is wrong":    func(s *session2.Session) { s.Destroy(); s.Set("x", make(chan int)) },
		"nothing else is bad": func(s *session2.Session) { s.Set("x", make(chan int)) },
	} {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", 1) })
		res := st.Do(b, func(s *session2.Session) {
			s.SetUser("alice")
			testsite.Must(t, s.Commit(t.Context()))
			store.FailDelete.Store(true)
			then(s)
		})
		store.FailDelete.Store(false)
		if user := st.UserOf(b); user != "alice" || res.StatusCode < 500 {
			t.Errorf("%s: status %d, and the browser is %q", name, res.StatusCode, user)
		}
	}
}

// A line that tells of a token is left out in whatever letters it stands.
func TestPlantedInAnyLetters(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{
		Transport: session2.Transport{Header: "X-Session"},
	})
	srv := httptest.NewServer(st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["set-cookie"] = []string{"__Host-session=planted; Path=/; Secure"}
		h["Set-Cookie"] = []string{"__Host-session\r=planted", "\n__Host-session=planted", "other=kept"}
		h["x-session"] = []string{"planted"}
		h["Trailer"] = []string{"\rset-cookie"}
		h[http.TrailerPrefix+"set-cookie"] = []string{"__Host-session=planted"}
	})))
	defer srv.Close()
	res, err := http.Get(srv.URL)
	testsite.Must(t, err)
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	text := fmt.Sprint(res.Header, res.Trailer)
	if strings.Contains(text, "planted") || !strings.Contains(text, "other=kept") {
		t.Error(text)
	}
}
