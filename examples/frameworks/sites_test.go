package frameworks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/sessiontest"
)

func htmxTour(_ *testing.T, m *session2.Manager) http.Handler { return htmxApp(m) }

// htmxHeader is what the page has htmx send.
func htmxHeader(b *browser) []string {
	_, page := b.send("GET", "/")
	found := regexp.MustCompile(`"X-CSRF-Token": "([^"]+)"`).FindStringSubmatch(page)
	if found == nil {
		b.t.Fatalf("no token in %s", page)
	}
	return []string{"HX-Request", "true", "X-CSRF-Token", found[1]}
}

// A fragment without a session sends the whole page to the login, and one with the token
// of a page from before a login has it loaded again.
func TestAFragmentWithoutASession(t *testing.T) {
	b := open(t, htmxApp(manager(t, session2.Config{}))).stay()
	header := htmxHeader(b)
	if res, _ := b.send("POST", "/count", header...); res.StatusCode != 401 || res.Header.Get("HX-Redirect") != "/login" {
		t.Errorf("nobody's: %d %v", res.StatusCode, res.Header)
	}
	b.send("POST", "/login")
	if res, _ := b.send("POST", "/count", header...); res.StatusCode != 403 || res.Header.Get("HX-Refresh") != "true" {
		t.Errorf("with an old token: %d %v", res.StatusCode, res.Header)
	}
	b.want(200, "1", "POST", "/count", htmxHeader(b)...)
}

func proxyTour(t *testing.T, m *session2.Manager) http.Handler {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const planted = "__Host-session=planted; Path=/; Secure"
		if r.Header.Get("Upgrade") != "" {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
					"Set-Cookie: %s\r\n\r\n", planted)
				c.Close()
			}
			return
		}
		w.Header()["Set-Cookie"] = []string{planted, "own=1"}
		fmt.Fprint(w, r.Header["Cookie"], r.Header["X-User"])
	}))
	t.Cleanup(backend.Close)
	u, _ := url.Parse(backend.URL)
	return proxyApp(m, u)
}

// The backend gets its own cookies and the user, and no cookie of ours; nor does a client
// choose who it is.
func TestTheBackendGetsNoCookieOfOurs(t *testing.T) {
	b := open(t, proxyTour(t, manager(t, session2.Config{})))
	b.send("POST", "/login")
	u, _ := url.Parse(b.URL)
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: "theirs", Value: "1"}})
	b.want(200, "[theirs=1] [alice]", "GET", "/", "X-User", "root")
	b.another().want(200, "[] []", "GET", "/", "X-User", "root")
}

// A backend's cookie of our name does not reach the browser, by a WebSocket's handshake neither.
func TestTheBackendSetsNoCookieOfOurs(t *testing.T) {
	b := open(t, proxyTour(t, manager(t, session2.Config{})))
	for status, headers := range map[int][]string{200: nil, 101: {"Connection", "Upgrade", "Upgrade", "websocket"}} {
		res, _ := b.send("GET", "/", headers...)
		lines := res.Header["Set-Cookie"]
		if res.StatusCode != status || slices.ContainsFunc(lines, func(line string) bool { return line != "own=1" }) {
			t.Errorf("status %d, want %d; Set-Cookie %q", res.StatusCode, status, lines)
		}
	}
}

func tenantsTour(t *testing.T, _ *session2.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	h, err := tenantsApp(session2.NewMemoryStore(), mux, "a.example", "b.example")
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.Host, ".example") {
			r.Host = "a.example"
		}
		h.ServeHTTP(w, r)
	})
}

// A tenant's cookie opens nothing at another tenant.
func TestATenantsCookieElsewhere(t *testing.T) {
	b := open(t, tenantsTour(t, nil))
	res, _ := b.send("POST", "/login", "Host", "a.example")
	cookie := res.Cookies()[0].Name + "=" + res.Cookies()[0].Value
	b.another().want(200, "1", "POST", "/count", "Host", "a.example", "Cookie", cookie)
	b.another().want(200, "1", "POST", "/count", "Host", "b.example", "Cookie", cookie)
	b.another().want(200, "2", "POST", "/count", "Host", "a.example", "Cookie", cookie)
	b.want(421, "no such tenant", "POST", "/count", "Host", "c.example")
}

// Another site's request is refused before it comes to the session, but for the callback.
func TestCrossOriginRequestsAreRefused(t *testing.T) {
	m := manager(t, session2.Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /oauth/callback", count)
	b := open(t, protected(m, mux))
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		if res, _ := b.send("POST", "/count", header...); res.StatusCode != 403 || len(res.Cookies()) > 0 {
			t.Errorf("%v: %d", header, res.StatusCode)
		}
	}
	b.want(200, "1", "POST", "/count", "Sec-Fetch-Site", "same-origin")
	b.want(200, "2", "POST", "/oauth/callback", "Sec-Fetch-Site", "cross-site")
}

// "Remember me" is a cookie that outlives the browser, and a session that does.
func TestRememberMe(t *testing.T) {
	b := open(t, factorsApp(manager(t, session2.Config{}))).stay()
	r, _ := http.NewRequest("POST", b.URL+"/login", strings.NewReader("remember=on"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, _ := b.do(r)
	if c := res.Cookies()[0]; time.Duration(c.MaxAge)*time.Second < 29*24*time.Hour {
		t.Errorf("remembered for %d s", c.MaxAge)
	}
	for _, unasked := range []*browser{b.another().stay(), b} { // also where an earlier login has asked
		res, _ = unasked.send("POST", "/login")
		if c := res.Cookies()[0]; c.MaxAge != 0 {
			t.Errorf("remembered for %d s, unasked", c.MaxAge)
		}
	}
}

// A payment asks for the second factor, and brings the user back to it.
func TestStepUp(t *testing.T) {
	b := open(t, factorsApp(manager(t, session2.Config{}))).stay()
	to := func(method, path, want string) {
		t.Helper()
		if res, _ := b.send(method, path); res.StatusCode != 303 || res.Header.Get("Location") != want {
			t.Errorf("%s %s: %d to %q, want %q", method, path, res.StatusCode, res.Header.Get("Location"), want)
		}
	}
	to("POST", "/second-factor", "/login")
	to("GET", "/payment?to=bob", "/login")
	to("POST", "/login", "/payment?to=bob")
	to("GET", "/payment?to=bob", "/second-factor")
	password := b.cookies()[0].Value
	to("POST", "/second-factor", "/payment?to=bob")
	b.want(200, "paid", "GET", "/payment?to=bob")
	if b.cookies()[0].Value == password {
		t.Error("the second factor has left the token as it was")
	}
}

// A proof is good for five minutes.
func TestAProofGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manager(t, session2.Config{})
		h := factorsApp(m)
		r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/payment", nil), func(s *session2.Session) {
			s.SetUser("alice")
			s.SetLevel(2)
		})
		for _, want := range []int{200, 303} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%d, want %d", w.Code, want)
			}
			time.Sleep(6 * time.Minute)
		}
	})
}

// A prefetch does not keep a session from its idle limit, and takes no flash message.
func TestPrefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manager(t, session2.Config{IdleTimeout: 30 * time.Minute})
		h := m.Wrap(idlePrefetch(m, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, m.Session(r).User())
		})))
		taking := m.Wrap(noPrefetch(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, m.Session(r).Flashes())
		})))
		r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/", nil), func(s *session2.Session) {
			s.SetUser("alice")
			s.Flash("Saved.")
		})
		prefetch := r.Clone(r.Context())
		prefetch.Header.Set("Sec-Purpose", "prefetch;prerender")
		get := func(h http.Handler, r *http.Request) string {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return fmt.Sprint(w.Code, " ", w.Body)
		}
		if got := get(taking, prefetch); got != "503 " {
			t.Error("a prefetch of what it would take: ", got)
		}
		if got := get(taking, r); got != "200 [Saved.]" {
			t.Error("the page itself: ", got)
		}
		time.Sleep(20 * time.Minute)
		if got := get(h, prefetch); got != "200 alice" {
			t.Error("a prefetch: ", got)
		}
		time.Sleep(20 * time.Minute)
		if got := get(h, r); got != "200 " {
			t.Error("after 40 minutes of prefetching: ", got)
		}
	})
}

// provider says of each code whose it is.
func provider(_ context.Context, code, verifier string) (string, error) {
	if len(verifier) < 43 {
		return "", errors.New("no verifier")
	}
	return code, nil
}

// countOf is count for a session of m, whichever managers are inside it.
func countOf(t *testing.T, m *session2.Manager) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := visits.Commit(r.Context(), m.Session(r), plusOne)
		fmt.Fprint(w, n)
		if err != nil {
			t.Error(err)
		}
	}
}

func oauthApp(t *testing.T, m, state *session2.Manager) http.Handler {
	o := &oauth{m: m, state: state, provider: "https://id.example/authorize", exchange: provider}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /count", countOf(t, m))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := visits.Get(m.Session(r))
		fmt.Fprint(w, m.Session(r).User(), n)
	})
	return o.handler(mux)
}

func oauthTour(t *testing.T, m *session2.Manager) http.Handler { return oauthApp(t, m, m) }

// begin begins a login and returns the state that the provider is sent.
func begin(b *browser) string {
	res, _ := b.stay().send("GET", "/oauth/start")
	u, err := url.Parse(res.Header.Get("Location"))
	if err != nil || u.Query().Get("state") == "" || u.Query().Get("code_challenge") == "" {
		b.t.Fatalf("to %v, %v", u, err)
	}
	b.client.CheckRedirect = nil
	return u.Query().Get("state")
}

// A redirect from the provider is a GET: the session's own cookie comes with it.
func TestOAuthRedirect(t *testing.T) {
	m := manager(t, session2.Config{})
	b := open(t, oauthApp(t, m, m))
	b.want(200, "1", "POST", "/count")
	back := "/oauth/callback?code=bob&state=" + begin(b)
	b.another().want(403, "This login was not begun here.", "GET", back)
	b.want(200, "bob1", "GET", back)
	b.want(403, "This login was not begun here.", "GET", back)
}

// A form_post from the provider is another site's: the state has a cookie that comes along.
func TestOAuthFormPost(t *testing.T) {
	store := session2.NewMemoryStore()
	states, err := newStates(store)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, oauthApp(t, managerOf(t, store, session2.Config{}), states))
	b.want(200, "1", "POST", "/count")
	state := begin(b)
	var sent []string // the cookies that a browser sends with it
	for _, c := range b.cookies() {
		if c.Name == "__Host-oauth" {
			sent = append(sent, c.Name+"="+c.Value)
		}
	}
	post := func(cookies string) *http.Response {
		r, _ := http.NewRequest("POST", b.URL+"/oauth/callback", strings.NewReader("code=bob&state="+state))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Cookie", cookies)
		res, _ := b.another().stay().do(r)
		return res
	}
	if res := post(""); res.StatusCode != 403 {
		t.Errorf("from another browser: %d", res.StatusCode)
	}
	if res := post(strings.Join(sent, "; ")); res.Header.Get("Location") != "/oauth/done" {
		t.Fatalf("%d, to %q", res.StatusCode, res.Header.Get("Location"))
	}
	b.want(200, "bob1", "GET", "/oauth/done")
	b.want(403, "This login was not begun here.", "GET", "/oauth/done")
}

// A page that a template writes has the token of a new visitor's form, and the messages.
func TestTemplate(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /settings", settings)
	mux.HandleFunc("POST /settings", saveSettings)
	b := open(t, manager(t, session2.Config{}).Wrap(mux)).stay()
	if res, _ := b.send("POST", "/settings"); res.StatusCode != 403 {
		t.Errorf("without a token: %d", res.StatusCode)
	}
	_, page := b.send("GET", "/settings")
	_, token, _ := strings.Cut(page, `value="`)
	token, _, _ = strings.Cut(token, `"`)
	if res, _ := b.send("POST", "/settings", "X-CSRF-Token", token); res.StatusCode != 303 {
		t.Errorf("with the token: %d", res.StatusCode)
	}
	if _, page = b.send("GET", "/settings"); strings.Count(page, "Saved.") != 1 {
		t.Errorf("the page after it: %s", page)
	}
	if _, page = b.send("GET", "/settings"); strings.Contains(page, "Saved.") {
		t.Errorf("the page after that: %s", page)
	}
}
