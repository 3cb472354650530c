package session2_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

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
				srv.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
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
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n%s\r\n"+
			"1\r\nx\r\n0\r\nX-Sum: 7\r\n\r\n", announced)
		if answer, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
			t.Errorf("%q, %v", answer, err)
		}
		conn.Close()
		srv.Close()
	}
}
