package session2_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// closeNotifier is http.CloseNotifier, which is deprecated.
type closeNotifier interface{ CloseNotify() <-chan bool }

// extras names the optional methods of a ResponseWriter.
func extras(w http.ResponseWriter) string {
	var b strings.Builder
	if _, ok := w.(http.Flusher); ok {
		b.WriteString("F")
	}
	if _, ok := w.(http.Hijacker); ok {
		b.WriteString("H")
	}
	if _, ok := w.(http.Pusher); ok {
		b.WriteString("P")
	}
	if _, ok := w.(closeNotifier); ok {
		b.WriteString("C")
	}
	return b.String()
}

func TestEachCombinationOfExtras(t *testing.T) {
	for has := range 16 {
		want := ""
		for i, letter := range []string{"F", "H", "P", "C"} {
			if has&(1<<i) != 0 {
				want += letter
			}
		}
		if got := extras(session2.WriterWith(has)); got != want {
			t.Errorf("%04b: %q, want %q", has, got, want)
		}
	}
}

// hijackOnly can hijack, and not flush.
type hijackOnly struct{ plainWriter }

func (hijackOnly) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, testsite.ErrDown }

// What the writer outside can, the handler's can, and nothing else, through any
// number of Wraps and of other middleware's wrappers.
func TestWriterHasWhatTheServersHas(t *testing.T) {
	over := func(wrap func(http.Handler) http.Handler, http2 bool) func(http.Handler) {
		return func(h http.Handler) { testsite.Get(t, testsite.Serve(t, wrap(h), http2), &testsite.Browser{}, "/") }
	}
	direct := func(h http.Handler) http.Handler { return h }
	fake := func(w http.ResponseWriter) func(http.Handler) {
		return func(h http.Handler) { h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil)) }
	}
	plain := plainWriter{httptest.NewRecorder()}
	timeout := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Hour, "late") }
	coated := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(coat{coat{w}}, r) })
	}
	tests := map[string]struct {
		serve func(http.Handler)
		want  string
	}{
		"HTTP/1.1":                   {over(direct, false), "FHC"},
		"HTTP/2":                     {over(direct, true), "FPC"},
		"HTTP/1.1, Unwrap":           {over(coated, false), "FHC"},
		"HTTP/2, Unwrap":             {over(coated, true), "FPC"},
		"HTTP/1.1 in TimeoutHandler": {over(timeout, false), "P"},
		"HTTP/2 in TimeoutHandler":   {over(timeout, true), "P"},
		"ResponseRecorder":           {fake(httptest.NewRecorder()), "F"},
		"nothing":                    {fake(plain), ""},
		"Hijack alone":               {fake(hijackOnly{plain}), "H"},
	}
	for name, c := range tests {
		for n := 1; n <= 2; n++ {
			got := make(chan string, 1)
			c.serve(nested(t, n, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { got <- extras(w) })))
			if got := <-got; got != c.want {
				t.Errorf("%s, %d Wraps: the handler's writer has %q, want %q", name, n, got, c.want)
			}
		}
	}
}

// A handler that streams learns that its client has gone, as by gin's Stream.
func TestCloseNotify(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		told := make(chan bool, 1)
		srv := testsite.Serve(t, nested(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			session2.FromContext(r.Context()).Set("color", "green")
			gone := w.(closeNotifier).CloseNotify()
			io.WriteString(w, "first")
			w.(http.Flusher).Flush()
			told <- <-gone
		})), http2)
		res, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if !<-told || len(res.Cookies()) != 1 {
			t.Errorf("http2=%v: %d cookies, want 1", http2, len(res.Cookies()))
		}
	}
}

// A proxy inside Wrap takes the connection over for another protocol.
func TestReverseProxyUpgrade(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(rw, "echo %s", line)
		rw.Flush()
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	srv := httptest.NewServer(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Set("color", "blue")
		proxy.ServeHTTP(w, r)
	}))
	defer srv.Close()
	r, _ := http.NewRequest("GET", srv.URL, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	b.Send(r)
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("status %d and no connection", res.StatusCode)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "echo hello\n" || st.Stored(b, "color") != "blue" {
		t.Errorf("%q, %v; color = %v", line, err, st.Stored(b, "color"))
	}
}

// http.MaxBytesReader cannot tell a writer that is not the server's own to close
// the connection. The server does so by itself where much of the body is left.
func TestMaxBytesReader(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Set("color", "green")
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1000)); err == nil {
			t.Error("more was read than is allowed")
		}
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}), false)
	res, err := srv.Client().Post(srv.URL, "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 413 || !res.Close || len(res.Cookies()) != 1 {
		t.Errorf("status %d, closed %v, %d cookies; want 413, true, 1", res.StatusCode, res.Close, len(res.Cookies()))
	}
}

// doors are the ways to let the first byte of a response out.
var doors = map[string]func(w http.ResponseWriter, r *http.Request) error{
	"end of the handler": func(http.ResponseWriter, *http.Request) error { return nil },
	"WriteHeader":        func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil },
	"Write": func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write([]byte("x"))
		return err
	},
	"WriteString": func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, "x")
		return err
	},
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
				srv.Client().CheckRedirect = func(*http.Request, []*http.Request) error {
					return http.ErrUseLastResponse
				}
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
		trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil }}
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
		h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
		})
		srv := httptest.NewUnstartedServer(h)
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
		t.Errorf("Hijack of a new session: %d %q, cookies %v, %d saves",
			res.StatusCode, body, res.Cookies(), store.Saves.Load())
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
			err := errors.Join(c.SetReadDeadline(deadline), c.SetWriteDeadline(deadline),
				c.EnableFullDuplex(), c.Flush())
			if err != nil {
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
