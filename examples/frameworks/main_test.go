package frameworks

import (
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	testsite.Exit(m.Run())
}

func manager(t *testing.T, cfg session2.Config) *session2.Manager {
	t.Helper()
	return managerOf(t, session2.NewMemoryStore(), cfg)
}

func managerOf(t *testing.T, store session2.Store, cfg session2.Config) *session2.Manager {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := session2.NewManager(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newLogger logs into w.
func newLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// browser is a client with a cookie jar, at a server with TLS.
type browser struct {
	t testing.TB
	*httptest.Server
	client *http.Client
}

func open(t testing.TB, h http.Handler) *browser {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that were given up
	server.StartTLS()
	t.Cleanup(server.Close)
	return (&browser{t: t, Server: server}).another()
}

// another is a second browser at the same server.
func (b *browser) another() *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{b.t, b.Server, &http.Client{Transport: b.Server.Client().Transport, Jar: jar}}
}

// stay has redirects shown instead of followed.
func (b *browser) stay() *browser {
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

// send sends a request with header lines as pairs, and returns the response and its body.
func (b *browser) send(method, path string, header ...string) (*http.Response, string) {
	r, err := http.NewRequest(method, b.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for pair := range slices.Chunk(header, 2) {
		r.Header.Set(pair[0], pair[1])
		if pair[0] == "Host" {
			r.Host = pair[1]
		}
	}
	return b.do(r)
}

func (b *browser) do(r *http.Request) (*http.Response, string) {
	res, err := b.client.Do(r)
	if err != nil {
		b.t.Error(err)
		return &http.Response{Header: http.Header{}}, ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Error(err)
	}
	return res, string(body)
}

// want sends a request and checks how it is answered.
func (b *browser) want(status int, body, method, path string, header ...string) {
	b.t.Helper()
	res, got := b.send(method, path, header...)
	if res.StatusCode != status || strings.TrimSpace(got) != body {
		b.t.Errorf("%s %s: %d %q, want %d %q", method, path, res.StatusCode, got, status, body)
	}
}

func (b *browser) cookies() []*http.Cookie {
	u, _ := url.Parse(b.URL)
	return b.client.Jar.Cookies(u)
}

// apps have /login, /count and /logout, each in its own way.
var apps = map[string]func(t *testing.T, m *session2.Manager) http.Handler{
	"net/http": plain(netHTTP),
	"chi":      plain(chiApp),
	"gin":      plain(ginApp),
	"echo":     plain(echoApp),
	"mux":      plain(muxApp),
	"in order": plain(func(m *session2.Manager) http.Handler {
		return inOrder(m, netHTTP(m), slog.New(slog.DiscardHandler))
	}),
	"htmx":          htmxTour,
	"proxy":         proxyTour,
	"oauth":         oauthTour,
	"tenants":       tenantsTour,
	"factors":       plain(factorsApp),
	"cross-origin":  plain(func(m *session2.Manager) http.Handler { return protected(m, netHTTP(m)) }),
	"idle prefetch": plain(func(m *session2.Manager) http.Handler { return m.Wrap(idlePrefetch(m, netHTTP(m))) }),
}

func plain(app func(*session2.Manager) http.Handler) func(*testing.T, *session2.Manager) http.Handler {
	return func(_ *testing.T, m *session2.Manager) http.Handler { return app(m) }
}

// Each application logs in, counts, counts 16 at once, and logs out.
func TestTour(t *testing.T) {
	for name, app := range apps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, app(t, manager(t, session2.Config{}))).stay()
			for range 2 { // after a logout all begins anew
				if res, _ := b.send("POST", "/login"); res.StatusCode >= 400 {
					t.Fatalf("login: %d", res.StatusCode)
				}
				var header []string
				if name == "htmx" {
					header = htmxHeader(b)
				}
				b.want(200, "1", "POST", "/count", header...)
				crowdFrom(b, 1, header...)
				if res, _ := b.send("POST", "/logout", header...); res.StatusCode >= 400 || len(b.cookies()) != 0 {
					t.Fatalf("logout: %d, cookies %v", res.StatusCode, b.cookies())
				}
			}
		})
	}
}

// crowdFrom counts from n on by 16 requests at once.
func crowdFrom(b *browser, from int, header ...string) {
	var mu sync.Mutex
	var got []int
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, body := b.send("POST", "/count", header...)
			n, _ := strconv.Atoi(strings.TrimSpace(body))
			mu.Lock()
			defer mu.Unlock()
			got = append(got, n)
		})
	}
	wg.Wait()
	slices.Sort(got)
	for i, n := range got {
		if n != from+1+i {
			b.t.Errorf("16 requests at once were told %v, after %d", got, from)
			return
		}
	}
}
