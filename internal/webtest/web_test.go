package webtest

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/felixge/httpsnoop"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/session2/session2"
)

type wrapper = func(http.Handler) http.Handler

// apps serve the same routes, each by a framework's own means.
var apps = map[string]func(wrap wrapper) http.Handler{
	"gin in Wrap":           func(wrap wrapper) http.Handler { return wrap(ginApp(gin.WrapH, ginEvents)) },
	"Wrap in gin":           func(wrap wrapper) http.Handler { return ginApp(ginWrapped(wrap), nil) },
	"chi in Wrap":           func(wrap wrapper) http.Handler { return wrap(chiApp()) },
	"Wrap in chi":           func(wrap wrapper) http.Handler { return chiApp(wrap) },
	"echo in Wrap":          func(wrap wrapper) http.Handler { return wrap(echoApp()) },
	"Wrap in echo":          func(wrap wrapper) http.Handler { return echoApp(echo.WrapMiddleware(wrap)) },
	"otelhttp in Wrap":      func(wrap wrapper) http.Handler { return wrap(otelhttp.NewHandler(muxApp(), "app")) },
	"Wrap in otelhttp":      func(wrap wrapper) http.Handler { return otelhttp.NewHandler(wrap(muxApp()), "app") },
	"httpsnoop around Wrap": func(wrap wrapper) http.Handler { return snoop(wrap(snoop(muxApp()))) },
}

var routes = map[string]http.HandlerFunc{
	"/login": func(w http.ResponseWriter, r *http.Request) {
		session2.FromContext(r.Context()).SetUser("alice")
		http.Redirect(w, r, "/read", http.StatusSeeOther)
	},
	"/read": func(w http.ResponseWriter, r *http.Request) {
		s := session2.FromContext(r.Context())
		fmt.Fprintf(w, "%s %v", s.User(), s.Get("step"))
	},
	"/events": func(w http.ResponseWriter, r *http.Request) {
		session2.FromContext(r.Context()).Set("step", "/events")
		for range 3 {
			io.WriteString(w, "event:message\ndata:x\n\n")
			w.(http.Flusher).Flush()
		}
	},
	"/panic": func(_ http.ResponseWriter, r *http.Request) {
		session2.FromContext(r.Context()).Set("step", "/panic")
		panic("oops")
	},
	"/upload": func(w http.ResponseWriter, r *http.Request) {
		if s := session2.FromContext(r.Context()); s != nil {
			s.Set("step", "/upload")
		}
		err := r.ParseMultipartForm(1)
		list, _ := os.ReadDir(os.TempDir())
		fmt.Fprint(w, len(list), err)
	},
	"/hijack": func(w http.ResponseWriter, r *http.Request) {
		session2.FromContext(r.Context()).Set("step", "/hijack")
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhijack")
		rw.Flush()
	},
}

func ginWrapped(wrap wrapper) func(http.Handler) gin.HandlerFunc {
	return func(h http.Handler) gin.HandlerFunc { return gin.WrapH(wrap(h)) }
}

// ginEvents streams as gin does, by CloseNotify.
func ginEvents(c *gin.Context) {
	session2.FromContext(c.Request.Context()).Set("step", "/events")
	n := 0
	c.Stream(func(io.Writer) bool {
		c.SSEvent("message", "x")
		n++
		return n < 3
	})
}

func ginApp(adapt func(http.Handler) gin.HandlerFunc, events gin.HandlerFunc) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.AbortWithStatus(500) }))
	for path, h := range routes {
		if path == "/events" && events != nil {
			g.GET(path, events)
		} else {
			g.Any(path, adapt(h))
		}
	}
	return g
}

func chiApp(wrap ...wrapper) http.Handler {
	c := chi.NewRouter()
	c.Use(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(middleware.NewWrapResponseWriter(w, r.ProtoMajor), r)
		})
	}, middleware.Compress(5), middleware.Timeout(time.Hour), recoverer)
	c.Use(wrap...)
	for path, h := range routes {
		c.HandleFunc(path, h)
	}
	return c
}

// recoverer is chi's, without the print.
func recoverer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(500)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

func echoApp(wrap ...echo.MiddlewareFunc) http.Handler {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	e.Use(echomiddleware.Gzip())
	e.Use(echomiddleware.RecoverWithConfig(echomiddleware.RecoverConfig{DisablePrintStack: true}))
	e.Use(wrap...)
	for path, h := range routes {
		e.Any(path, func(c echo.Context) error {
			h(c.Response(), c.Request())
			return nil
		})
	}
	return e
}

func muxApp() http.Handler {
	mux := http.NewServeMux()
	for path, h := range routes {
		mux.HandleFunc(path, h)
	}
	return recoverer(mux)
}

// snoop wraps the writer as most middleware for metrics does.
func snoop(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { httpsnoop.CaptureMetrics(h, w, r) })
}

func TestFrameworks(t *testing.T) {
	for name, app := range apps {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/http2=%v", name, http2), func(t *testing.T) {
				bare := filesLeft(t, func() {
					srv := start(app(func(h http.Handler) http.Handler { return h }), http2)
					defer srv.Close()
					form, kind := upload()
					ask(t, srv.Client(), srv.URL+"/upload", kind, form)
				})
				if n := filesLeft(t, func() { tour(t, app, http2) }); n != bare {
					t.Errorf("%d uploaded files are left, and %d without Wrap", n, bare)
				}
			})
		}
	}
}

// filesLeft returns how many uploaded files f leaves behind. Middleware that gives
// its handlers a copy of the request and copies nothing back, as chi does,
// leaves them with net/http alone.
func filesLeft(t *testing.T, f func()) int {
	t.Setenv("TMPDIR", t.TempDir())
	f()
	list, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Error(err)
	}
	return len(list)
}

func start(h http.Handler, http2 bool) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = http2
	srv.StartTLS()
	return srv
}

// tour goes through an application's routes as a browser, and waits for its end.
func tour(t *testing.T, app func(wrapper) http.Handler, http2 bool) {
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv := start(app(m.Wrap), http2)
	defer srv.Close()
	c := srv.Client()
	c.Jar, _ = cookiejar.New(nil)
	form, kind := upload()
	steps := []struct {
		path   string
		status int
		body   string
		stored string
	}{
		{"/login", 200, "alice <nil>", "<nil>"},
		{"/events", 200, strings.Repeat("event:message\ndata:x\n\n", 3), "/events"},
		{"/panic", 500, "", "/events"},
		{"/upload", 200, "1 <nil>", "/upload"},
		{"/hijack", 200, "hijack", "/hijack"},
	}
	for _, step := range steps {
		if step.path == "/hijack" && http2 {
			continue
		}
		status, body := ask(t, c, srv.URL+step.path, kind, form)
		if status != step.status || status == 200 && body != step.body {
			t.Errorf("%s: %d %q, want %d %q", step.path, status, body, step.status, step.body)
		}
		if _, body := ask(t, c, srv.URL+"/read", kind, form); body != "alice "+step.stored {
			t.Errorf("the request after %s reads %q, want %s", step.path, body, step.stored)
		}
	}
}

// ask sends form to /upload, and asks for anything else.
func ask(t *testing.T, c *http.Client, url, kind string, form []byte) (int, string) {
	t.Helper()
	get := func() (*http.Response, error) { return c.Get(url) }
	if strings.HasSuffix(url, "/upload") {
		get = func() (*http.Response, error) { return c.Post(url, kind, bytes.NewReader(form)) }
	}
	res, err := get()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// upload returns a form with a file, and its media type.
func upload() ([]byte, string) {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	part, _ := m.CreateFormFile("file", "a.bin")
	part.Write(make([]byte, 100_000))
	m.Close()
	return b.Bytes(), m.FormDataContentType()
}
