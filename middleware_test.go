package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

type sessionHandler = func(s *session2.Session, w http.ResponseWriter, r *http.Request)

// doors are the ways to let the first byte of a response out.
var doors = map[string]func(w http.ResponseWriter, r *http.Request) error{
	"end of the handler": func(http.ResponseWriter, *http.Request) error { return nil },
	"WriteHeader":        func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil },
	"Write":              func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write([]byte("x")); return err },
	"WriteString":        func(w http.ResponseWriter, _ *http.Request) error { _, err := io.WriteString(w, "x"); return err },
	"ReadFrom": func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
		return err
	},
	"Flush":      func(w http.ResponseWriter, _ *http.Request) error { w.(http.Flusher).Flush(); return nil },
	"FlushError": func(w http.ResponseWriter, _ *http.Request) error { return http.NewResponseController(w).Flush() },
	"ServeContent": func(w http.ResponseWriter, r *http.Request) error {
		http.ServeContent(w, r, "a.txt", time.Time{}, strings.NewReader("content"))
		return nil
	},
	"Redirect": func(w http.ResponseWriter, r *http.Request) error {
		http.Redirect(w, r, "#", http.StatusSeeOther)
		return nil
	},
}

// A flush before the first write must not leave a row without a cookie: behind
// every door the cookie goes out, and the record was stored before.
func TestEveryDoorCommitsFirst(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for name, door := range doors {
			t.Run(fmt.Sprintf("%s/http2=%v", name, http2), func(t *testing.T) {
				store := testsite.NewBrittle()
				st := testsite.NewSite(t, store, session2.Config{})
				srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/read" {
						fmt.Fprint(w, s.Get("color"))
						return
					}
					s.Set("color", "green")
					err := door(w, r)
					if saves := store.Saves.Load(); err != nil || saves != 1 && name != "end of the handler" {
						t.Errorf("%d saves once the first byte has left, want 1; error %v", saves, err)
					}
				}), http2)
				srv.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				b := &testsite.Browser{}
				res, _ := testsite.Get(t, srv, b, "/")
				if want := map[bool]int{false: 1, true: 2}[http2]; res.ProtoMajor != want {
					t.Fatalf("HTTP/%d, want %d", res.ProtoMajor, want)
				}
				if n := len(res.Header["Set-Cookie"]); n != 1 {
					t.Errorf("%d Set-Cookie lines, want 1", n)
				}
				if _, body := testsite.Get(t, srv, b, "/read"); body != "green" {
					t.Errorf("the next request reads %q, want green", body)
				}
			})
		}
	}
}

// An informational response must not freeze the session.
func TestEarlyHintsDoNotCommit(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{})
		srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			for range 3 {
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(http.StatusEarlyHints)
			}
			if store.Saves.Load() != 0 {
				t.Error("Early Hints committed the session")
			}
			s.Set("color", "green")
			w.WriteHeader(200)
			if store.Saves.Load() != 1 {
				t.Error("the 200 after Early Hints did not commit")
			}
		}), http2)
		hints := 0
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints++; return nil }}
		r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", srv.URL, nil)
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if hints != 3 || len(res.Cookies()) != 1 {
			t.Errorf("http2=%v: %d hints and %d cookies, want 3 and 1", http2, hints, len(res.Cookies()))
		}
	}
}

// 101 is final, though informational.
func TestSwitchingProtocolsCommits(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	res := st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.Set("color", "green")
		w.WriteHeader(http.StatusSwitchingProtocols)
		if store.Saves.Load() != 1 {
			t.Error("101 did not commit")
		}
	})
	if len(res.Cookies()) != 1 {
		t.Errorf("101 with %d cookies, want 1", len(res.Cookies()))
	}
}

// sendfileConn notes what the server hands to the connection as a whole.
type sendfileConn struct {
	*net.TCPConn
	n *atomic.Int64
}

func (c sendfileConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	c.n.Add(n)
	return n, err
}

type sendfileListener struct {
	net.Listener
	n atomic.Int64
}

func (l *sendfileListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return sendfileConn{c.(*net.TCPConn), &l.n}, nil
}

// sendfile must not be lost behind the wrapper: a file goes through the server's own
// ReadFrom down to the connection's.
func TestSendfile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "big")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	ways := map[string]func(w http.ResponseWriter, r *http.Request, f *os.File) error{
		"io.Copy": func(w http.ResponseWriter, _ *http.Request, f *os.File) error {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, err := io.Copy(w, f)
			return err
		},
		"ServeContent": func(w http.ResponseWriter, r *http.Request, f *os.File) error {
			http.ServeContent(w, r, "big", time.Time{}, f)
			return nil
		},
	}
	for way, send := range ways {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		srv := httptest.NewUnstartedServer(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.Set("color", "green")
			f, err := os.Open(name)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if err := send(w, r, f); err != nil {
				t.Error(err)
			}
		}))
		l := &sendfileListener{Listener: srv.Listener}
		srv.Listener = l
		srv.Start()
		res, body := testsite.Get(t, srv, &testsite.Browser{}, "/")
		srv.Close()
		if body != string(content) || len(res.Cookies()) != 1 {
			t.Errorf("%s: %d bytes and %d cookies, want %d and 1", way, len(body), len(res.Cookies()), len(content))
		}
		if n := l.n.Load(); n < int64(len(content)-1024) {
			t.Errorf("%s: %d of %d bytes by the connection's ReadFrom", way, n, len(content))
		}
	}
}

// A reader that fails at its first byte lets nothing out: the handler's 500
// then leaves no trace.
func TestReadFromThatFailsAtOnce(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	res := st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.Set("color", "green")
		if _, err := w.(io.ReaderFrom).ReadFrom(badReader{}); !errors.Is(err, testsite.ErrDown) {
			t.Errorf("ReadFrom = %v", err)
		}
		http.Error(w, "broken", 500)
	})
	if res.StatusCode != 500 || store.Calls() != 0 || len(res.Cookies()) != 0 {
		t.Errorf("status %d, %d store calls, cookies %v", res.StatusCode, store.Calls(), res.Cookies())
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, testsite.ErrDown }

// Hijack of an existing session stores before the connection is handed over;
// what needs a cookie cannot be sent by then, and fails.
func TestHijack(t *testing.T) {
	store, book := testsite.NewBrittle(), &testsite.Log{}
	st := testsite.NewSite(t, store, session2.Config{Logger: book.Logger()})
	var sessionErr atomic.Value
	ended := make(chan struct{}, 3) // the server does not wait for a handler that hijacked
	h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			s.SetUser("alice")
			return
		}
		before := store.Saves.Load()
		s.Set("color", "green")
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			sessionErr.Store(s.Err())
			io.WriteString(w, "handler's own") // must not get out
			return
		}
		defer conn.Close()
		if store.Saves.Load() != before+1 {
			t.Error("the connection was handed over before the commit")
		}
		fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		rw.Flush()
		s.Set("size", "large") // committed at the end
	})
	srv := testsite.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		ended <- struct{}{}
	}), false)

	res, body := testsite.Get(t, srv, &testsite.Browser{}, "/")
	if res.StatusCode != 500 || strings.Contains(body, "own") || len(res.Cookies()) != 0 || store.Saves.Load() != 0 {
		t.Errorf("Hijack of a new session: %d %q, cookies %v, %d saves", res.StatusCode, body, res.Cookies(), store.Saves.Load())
	}
	if err, _ := sessionErr.Load().(error); err == nil || !strings.Contains(book.String(), "changes lost") {
		t.Errorf("Err() = %v, log %q", err, book.String())
	}
	b := &testsite.Browser{}
	testsite.Get(t, srv, b, "/login")
	if _, body := testsite.Get(t, srv, b, "/"); body != "ok" {
		t.Errorf("hijacked answer %q, want ok", body)
	}
	for range cap(ended) {
		<-ended
	}
	if st.Stored(b, "color") != "green" || st.Stored(b, "size") != "large" {
		t.Error("what a hijacking handler set is not stored")
	}
}

// http.ResponseController works through the wrapper, on both protocols.
func TestResponseController(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			c := http.NewResponseController(w)
			s.Set("color", "green")
			deadline := time.Now().Add(time.Minute)
			if err := errors.Join(c.SetReadDeadline(deadline), c.SetWriteDeadline(deadline), c.EnableFullDuplex(), c.Flush()); err != nil {
				t.Error(err)
			}
			_, hijacker := w.(http.Hijacker)
			_, pusher := w.(http.Pusher)
			if hijacker == http2 || pusher != http2 {
				t.Errorf("http2=%v: Hijacker %v, Pusher %v", http2, hijacker, pusher)
			}
			if _, _, err := c.Hijack(); http2 && !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("Hijack on HTTP/2: %v", err)
			}
		}), http2)
		if http2 {
			if res, _ := testsite.Get(t, srv, &testsite.Browser{}, "/"); len(res.Cookies()) != 1 {
				t.Error("no cookie")
			}
		} else if res, err := srv.Client().Get(srv.URL); err == nil {
			res.Body.Close() // the connection was hijacked in the middle of the response
		}
	}
}

// plainWriter can do nothing but what it must.
type plainWriter struct{ rec *httptest.ResponseRecorder }

func (p plainWriter) Header() http.Header         { return p.rec.Header() }
func (p plainWriter) WriteHeader(status int)      { p.rec.WriteHeader(status) }
func (p plainWriter) Write(b []byte) (int, error) { return p.rec.Write(b) }

// What the server cannot do is not claimed, and trying it begins no response.
func TestWriterWithoutExtras(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	rec := httptest.NewRecorder()
	st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		_, flusher := w.(http.Flusher)
		_, hijacker := w.(http.Hijacker)
		_, pusher := w.(http.Pusher)
		if flusher || hijacker || pusher {
			t.Errorf("claimed: Flusher %v, Hijacker %v, Pusher %v", flusher, hijacker, pusher)
		}
		s.Set("color", "green")
		if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Flush = %v", err)
		}
		w.WriteHeader(500)
	}).ServeHTTP(plainWriter{rec}, httptest.NewRequest("GET", "/", nil))
	if store.Calls() != 0 || rec.Header().Get("Set-Cookie") != "" {
		t.Error("a flush that could not be done committed the session of a failing request")
	}
}

// coat is another middleware's wrapper.
type coat struct{ http.ResponseWriter }

func (c coat) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestInsideOtherWrappers(t *testing.T) {
	outer := map[string]func(http.Handler) http.Handler{
		"TimeoutHandler": func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "late") },
		"Unwrap": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(coat{w}, r) })
		},
	}
	for name, wrap := range outer {
		for _, inside := range []bool{true, false} {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				st.M.Session(r).Set("color", "green")
				if name == "Unwrap" {
					if err := http.NewResponseController(w).Flush(); err != nil {
						t.Error(err)
					}
				}
				io.WriteString(w, "page")
			}))
			if inside {
				h = wrap(st.M.Wrap(h))
			} else {
				h = st.M.Wrap(wrap(h))
			}
			b := &testsite.Browser{}
			res, body := testsite.Get(t, testsite.Serve(t, h, false), b, "/")
			if body != "page" || len(res.Cookies()) != 1 || st.Stored(b, "color") != "green" {
				t.Errorf("%s, Wrap inside %v: %q, %d cookies", name, inside, body, len(res.Cookies()))
			}
		}
	}
}

// A commit that fails must not be followed by the page: nothing of the handler's
// is left, and what was set outside of Wrap is.
func TestFailedCommit(t *testing.T) {
	for name, door := range doors {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/http2=%v", name, http2), func(t *testing.T) {
				store := testsite.NewBrittle()
				store.FailSave.Store(true)
				st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout, Logger: (&testsite.Log{}).Logger()})
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
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{MaxBytes: 500, Logger: (&testsite.Log{}).Logger()})
		res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("big", make([]byte, 1000)) })
		if res.StatusCode != 500 || len(res.Cookies()) != 0 {
			t.Errorf("status %d, cookies %v", res.StatusCode, res.Cookies())
		}
	})
	t.Run("custom", func(t *testing.T) {
		store := testsite.NewBrittle()
		store.FailSave.Store(true)
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout, Logger: (&testsite.Log{}).Logger(),
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				if !errors.Is(err, testsite.ErrDown) {
					t.Errorf("err = %v", err)
				}
				w.Header().Set("Retry-After", "3")
				w.WriteHeader(599)
			}})
		res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("color", "green") })
		if res.StatusCode != 599 || res.Header.Get("Retry-After") != "3" {
			t.Errorf("status %d, header %v", res.StatusCode, res.Header)
		}
	})
}

// An error handler that writes nothing must not end in the server's 200.
func TestErrorHandlerThatWritesNothing(t *testing.T) {
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
			res, _ := st.During(b.Clone(), func(s *session2.Session) { s.Set("x", 1) }, renew, func(*session2.Session) {})
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
		res, body := testsite.Get(t, testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Set("color", "green")
			io.WriteString(w, "page")
		}), false), &testsite.Browser{}, "/")
		hints := name == "Early Hints"
		if hints != (res.StatusCode == 503) || !hints && (res.StatusCode >= 300 || body != "" && body != "sorry") {
			t.Errorf("%s: %d %q is not the error handler's response", name, res.StatusCode, body)
		}
	}
}

// An outage must not read as "new session, no error": what the handler said to
// somebody it took for anonymous does not go out, but its own 500 does.
func TestFailedLoadFailsClosed(t *testing.T) {
	for status, want := range map[int]int{200: 503, 302: 503, 401: 503, 500: 500, 502: 502} {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout, Logger: (&testsite.Log{}).Logger()})
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
				if len(after) != 1 || after[0].Version != before.Version || store.Saves.Load() != saves || b.Token() != token {
					t.Errorf("a trace: %d records, %d saves", len(after), store.Saves.Load()-saves)
				}
				if got := st.Stored(b, "color"); got != "green" {
					t.Errorf("color = %v, want green", got)
				}
			})
		}
	}
}

// Whoever recovers from a panic after an explicit Commit answers with its cookie:
// the old one may be dead by then.
func TestPanicAfterCommitKeepsTheCookie(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	h := st.Handler(func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.SetUser("alice")
		if err := s.Commit(r.Context()); err != nil {
			t.Error(err)
		}
		s.Set("color", "green")
		panic("oops")
	})
	rec, b := httptest.NewRecorder(), &testsite.Browser{}
	func() {
		defer func() { recover(); rec.WriteHeader(500) }()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	}()
	b.Receive(rec.Result())
	st.Do(b, func(s *session2.Session) {
		if s.User() != "alice" || s.Has("color") {
			t.Errorf("User() = %q, Has(color) = %v, want alice and false", s.User(), s.Has("color"))
		}
	})
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

func TestCacheHeaders(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	tests := []struct {
		name             string
		do               sessionHandler
		vary, cache, own string
	}{
		{"no look", func(*session2.Session, http.ResponseWriter, *http.Request) {}, "", "", ""},
		{"created", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Set("a", 1) }, "Cookie", "no-store", ""},
		{"read", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Get("a") }, "Cookie", "", ""},
		{"varied already", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Vary", "Accept, cookie")
			s.Get("a")
		}, "Accept, cookie", "", ""},
		{"varied by all", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Vary", "*")
			s.Get("a")
		}, "*", "", ""},
		{"own cache rule and cookie", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "private, max-age=1")
			http.SetCookie(w, &http.Cookie{Name: "own", Value: "kept"})
			s.Renew()
		}, "Cookie", "private, max-age=1", "own=kept"},
		{"failed", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Renew()
			w.WriteHeader(500)
		}, "Cookie", "", ""},
	}
	for _, c := range tests {
		res := st.Visit(b, c.do)
		vary, cache := strings.Join(res.Header["Vary"], ", "), res.Header.Get("Cache-Control")
		if vary != c.vary || cache != c.cache {
			t.Errorf("%s: Vary %q, Cache-Control %q; want %q, %q", c.name, vary, cache, c.vary, c.cache)
		}
		if lines := strings.Join(res.Header["Set-Cookie"], "\n"); !strings.Contains(lines, c.own) {
			t.Errorf("%s: Set-Cookie %q without %q", c.name, lines, c.own)
		}
	}
}

// However often a request commits, the browser gets one line.
func TestOneSetCookieLine(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			s.Set("a", i)
			s.Renew()
			if err := s.Commit(r.Context()); err != nil {
				t.Error(err)
			}
		}
		s.SetUser("alice")
		w.WriteHeader(200)
	})
	if lines := res.Header["Set-Cookie"]; len(lines) != 1 {
		t.Errorf("Set-Cookie lines %d, want 1", len(lines))
	}
	if st.Stored(b, "a") != 2 {
		t.Error("the one cookie is not the last one")
	}
}

func TestNestedManagers(t *testing.T) {
	outer := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	inner := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Cookie: session2.CookieConfig{Name: "__Host-admin"}})
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
		{"asks only whether something went wrong", b, func(s *session2.Session) { s.Err(); s.Dirty(); _ = s.String() }, 0},
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
			t.Errorf("%s: %d records, %d EventDestroyed; want 0 and 1", name, n, st.Events.Count(session2.EventDestroyed))
		}
	}
}
