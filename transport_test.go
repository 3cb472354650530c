package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// TestHeaderSuites runs the tests of the manager a second time, with the token in an
// Authorization header: what holds for cookies holds for the header. Those that look at
// cookies themselves are left out, or ask for several of them.
func TestHeaderSuites(t *testing.T) {
	runAgain(t, testsite.HeaderEnv, "^TestSetCookieLines$|^TestMaxAge|^TestCacheHeaders$|^TestOneSetCookieLine$|"+
		"^TestCookieIs|^TestFormerCookies|^TestASVS|^TestOWASP|^TestRFC|^TestRemember$|^TestNIST_5_1|"+
		"^TestOnEvent|^TestExclusiveMeanwhile$|^TestALogoutAlwaysRevokes|^TestACookieThatAnEarlier|"+
		"^TestASuccessorThatCannotBeChecked|^TestStreamsEndThoughOnEvent|^TestLazy$|^TestNestedManagersLose|"+
		"^TestClearSiteData$|^TestALogoutEndsWhatTheConfiguration|^TestEveryDoor|^TestSwitchingProtocols|"+
		"^TestSendfile$|^TestResponseController$|^TestInsideOtherWrappers$|"+
		"^TestStripCookie|^TestReverseProxy|"+
		"^TestCSRFToken", // whoever comes with the header needs none
		"LoginClickedTwice", "ThreeLoginsAtOnce", "PeriodicRotation", "RotationsFollowOneAnother", "LostAnswerOfASave",
		"LostAnswerOfACreate", "LoserOfARaceLeavesTheCookieAlone", "RandomHistories", "StreamEndsWithItsSession",
		"ASuccessorIsSeenWhenAClientComesWithIt", "FailedRequestLeavesNoTrace", "ExclusiveIncrements", "FailedCommit",
		"StaleRequestIsRefused", "ALogoutThatComesTooLateForTheCookie", "FailingStoreFailsClosed", "EveryCallCanFail")
}

// bearer is a configuration for both kinds of clients.
func bearer() session2.Config {
	return session2.Config{Transport: session2.Transport{Header: "Authorization"}}
}

const cookieName = "__Host-session="

// send serves one request over TLS with these lines of "Name: value".
func send(st *testsite.Site, f sessionHandler, lines ...string) *http.Response {
	st.T.Helper()
	r := httptest.NewRequest("POST", "https://example.com/", nil)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		name = textproto.CanonicalMIMEHeaderKey(name)
		r.Header[name] = append(r.Header[name], strings.TrimPrefix(value, " "))
	}
	w := httptest.NewRecorder()
	st.Handler(f).ServeHTTP(w, r)
	return w.Result()
}

// use is send for a handler that needs the session only.
func use(st *testsite.Site, f func(s *session2.Session), lines ...string) *http.Response {
	st.T.Helper()
	return send(st, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { f(s) }, lines...)
}

// told returns the token that a response tells, and whether it says anything of one.
func told(res *http.Response) (token string, says bool) {
	lines, says := res.Header["Session-Token"]
	return strings.Join(lines, ","), says
}

// signIn signs user in as an API client does, and returns the token.
func signIn(st *testsite.Site, user string) string {
	st.T.Helper()
	token, _ := told(use(st, func(s *session2.Session) { s.SetUser(user) }, "Authorization: Bearer"))
	if _, ok := session2.ParseToken(token); !ok {
		st.T.Fatal("no token after a login")
	}
	return token
}

// userBy returns whose session a request with these lines has.
func userBy(st *testsite.Site, lines ...string) (user string) {
	st.T.Helper()
	use(st, func(s *session2.Session) { user = s.User() }, lines...)
	return user
}

// An API client's life, by a real server.
func TestHeaderTellsTheToken(t *testing.T) {
	for _, name := range []string{"Authorization", "x-session"} {
		st := testsite.NewSite(t, session2.NewMemoryStore(),
			session2.Config{Transport: session2.Transport{Header: name}})
		mux := http.NewServeMux()
		mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { st.M.Session(r).SetUser("alice") })
		mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { st.M.Session(r).Destroy() })
		mux.HandleFunc("/renew", func(w http.ResponseWriter, r *http.Request) { st.M.Session(r).Renew() })
		mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, st.M.Session(r).User()) })
		srv := testsite.Serve(t, st.M.Wrap(mux), name == "x-session")
		reply, before, token := "X-Session", "", ""
		if name == "Authorization" {
			reply, before = "Session-Token", "Bearer "
		}
		ask := func(method, path string) (*http.Response, string) {
			r, err := http.NewRequest(method, srv.URL+path, nil)
			testsite.Must(t, err)
			r.Header.Set(name, before+token)
			res, err := srv.Client().Do(r)
			testsite.Must(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			testsite.Must(t, err)
			if len(res.Cookies()) > 0 {
				t.Errorf("%s, %s: a cookie for an API client", name, path)
			}
			if vary := strings.Join(res.Header["Vary"], ", "); !strings.EqualFold(vary, "Cookie, "+name) {
				t.Errorf("%s, %s: Vary: %s", name, path, vary)
			}
			if lines := res.Header[reply]; len(lines) > 0 {
				if res.Header.Get("Cache-Control") != "no-store" || len(lines) > 1 {
					t.Errorf("%s, %s: %d tokens, Cache-Control: %s", name, path, len(lines), res.Header.Get("Cache-Control"))
				}
				token = lines[0]
			}
			return res, string(body)
		}
		who := func(want string) {
			t.Helper()
			before := token
			if _, body := ask("GET", "/who"); body != want || token != before {
				t.Errorf("%s: user %q, want %q; told a token: %v", name, body, want, token != before)
			}
		}
		who("")
		ask("POST", "/login")
		first := token
		who("alice")
		ask("HEAD", "/renew")
		if token == first || token == "" {
			t.Errorf("%s: Renew told no other token", name)
		}
		who("alice")
		res, _ := ask("POST", "/logout")
		if _, says := res.Header[reply]; !says || token != "" {
			t.Errorf("%s: the logout does not take the token", name)
		}
		who("")
		if n := len(testsite.RecordsOf(t, st.Store.(session2.IterStore))); n != 0 {
			t.Errorf("%s: %d records are left", name, n)
		}
	}
}

// What the header may look like, and what becomes of a cookie beside it.
func TestPresentedHeaders(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, bearer())
	a, b := signIn(st, "alice"), signIn(st, "bob")
	id, secret, _ := strings.Cut(a, ".")
	cookie := "Cookie: " + cookieName + b
	jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	none := []session2.EventKind(nil)
	malformed := []session2.EventKind{session2.EventMalformed}
	unknown := []session2.EventKind{session2.EventUnknown}
	tests := []struct {
		lines  []string
		user   string // with the header alone
		beside string // with bob's cookie beside it
		loads  int64
		events []session2.EventKind
	}{
		{[]string{"Bearer " + a}, "alice", "alice", 1, none},
		{[]string{"bearer " + a}, "alice", "alice", 1, none},
		{[]string{"BEARER   " + a}, "alice", "alice", 1, none},
		{[]string{"Bearer"}, "", "", 0, none},
		{[]string{"Bearer "}, "", "", 0, none},
		{[]string{"Bearer " + a, "Bearer " + a}, "", "", 0, malformed},
		{[]string{"Bearer " + a, "Bearer " + b}, "", "", 0, malformed},
		{[]string{"Basic YTpi", "Bearer " + a}, "", "", 0, malformed},
		{[]string{"Bearer " + a, "Basic YTpi"}, "", "", 0, malformed},
		{[]string{"Bearer", "Bearer"}, "", "", 0, malformed},
		{[]string{"Bearer " + a + ", Bearer " + b}, "", "", 0, malformed},
		{[]string{"Bearer " + a + " "}, "", "", 0, malformed},
		{[]string{"Bearer " + a + "A"}, "", "", 0, malformed},
		{[]string{"Bearer " + a[:len(a)-1]}, "", "", 0, malformed},
		{[]string{"Bearer " + strings.ToUpper(id) + "." + secret}, "", "", 0, malformed},
		{[]string{"Bearer " + id + "."}, "", "", 0, malformed},
		{[]string{"Bearer " + id + "." + strings.Repeat("A", 43)}, "", "", 1, unknown},
		{[]string{"Bearer " + session2.EncodeToken(session2.ID{1}, [32]byte{1})}, "", "", 1, unknown},
		// Somebody else's, so that the cookie counts.
		{[]string{""}, "", "bob", 0, none},
		{[]string{"Basic YTpi"}, "", "bob", 0, none},
		{[]string{"Basic YTpi", "Basic YTpi"}, "", "bob", 0, none},
		{[]string{"Digest username=\"Bearer " + a + "\""}, "", "bob", 0, none},
		{[]string{a}, "", "bob", 0, none},
		{[]string{"Bearer\t" + a}, "", "bob", 0, none},
		{[]string{"Bearer" + a}, "", "bob", 0, none},
		{[]string{"Token " + a}, "", "bob", 0, none},
		{[]string{"Bearer " + jwt}, "", "bob", 0, none},
		{[]string{"Bearer " + jwt, "Bearer opaque"}, "", "bob", 0, none},
		{[]string{"Bearer " + strings.Repeat("x", 1<<16)}, "", "bob", 0, none},
		{[]string{"Bearer " + id}, "", "bob", 0, none},
	}
	for _, c := range tests {
		lines := slices.Clone(c.lines)
		for i := range lines {
			lines[i] = "Authorization: " + lines[i]
		}
		loads, events := store.Loads.Load(), len(st.Events.List)
		var user string
		res := use(st, func(s *session2.Session) { user = s.User() }, lines...)
		var kinds []session2.EventKind
		for _, e := range st.Events.List[events:] {
			kinds = append(kinds, e.Kind)
		}
		if user != c.user || !slices.Equal(kinds, c.events) || store.Loads.Load()-loads != c.loads {
			t.Errorf("%.90q: user %q, events %v, %d loads; want %q, %v, %d",
				c.lines, user, kinds, store.Loads.Load()-loads, c.user, c.events, c.loads)
		}
		if _, says := told(res); says || len(res.Cookies()) > 0 {
			t.Errorf("%.90q: a read tells something of a token", c.lines)
		}
		if user := userBy(st, append(lines, cookie)...); user != c.beside {
			t.Errorf("%.90q and a cookie: user %q, want %q", c.lines, user, c.beside)
		}
	}
}

// FuzzAuthorization: nothing but one line of the scheme and a token opens a session, and
// what is for us is so with other lines around it, too.
func FuzzAuthorization(f *testing.F) {
	token := session2.EncodeToken(session2.ID{1}, [32]byte{2})
	f.Add("Bearer "+token, "")
	f.Add("bEARER    "+token, "Basic YTpi")
	f.Add("Bearer", "Bearer "+token[:50])
	f.Add("Basic YTpi, Bearer "+token, "\x00\xff")
	f.Fuzz(func(t *testing.T, line, other string) {
		text, ours := session2.HeaderSays("Authorization", line)
		again, ok := session2.ParseToken(text)
		if ok {
			scheme, rest := line[:min(6, len(line))], strings.TrimLeft(line[min(6, len(line)):], " ")
			if !ours || !strings.EqualFold(scheme, "bearer") || rest != again || rest == line[6:] {
				t.Errorf("%q is taken for the token %q", line, text)
			}
		}
		text, with := session2.HeaderSays("Authorization", line, other)
		if _, ok := session2.ParseToken(text); ok || text == "" && with {
			t.Errorf("%q and %q are taken for a token, or for none", line, other)
		}
		if _, others := session2.HeaderSays("Authorization", other); with != (ours || others) {
			t.Errorf("%q and %q: for us: %v, alone: %v, %v", line, other, with, ours, others)
		}
		if text, ours := session2.HeaderSays("X-Session", line); !ours || text != line {
			t.Errorf("a header of one's own: %q, %v, of %q", text, ours, line)
		}
	})
}

// What a header has brought becomes no cookie, what a cookie has brought leaves by no
// header, and of a request with both the header alone counts: the cookie's session is
// neither used, nor ended, nor taken from the browser.
func TestTransportsDoNotMix(t *testing.T) {
	doings := map[string]func(*session2.Session){
		"read":         func(s *session2.Session) { s.User() },
		"set":          func(s *session2.Session) { s.Set("k", 1) },
		"login":        func(s *session2.Session) { s.SetUser("carol") },
		"the same":     func(s *session2.Session) { s.SetUser(s.User() + "x") },
		"renew":        (*session2.Session).Renew,
		"level":        func(s *session2.Session) { s.Set("k", 1); s.SetLevel(2) },
		"logout":       (*session2.Session).Destroy,
		"logout, more": func(s *session2.Session) { s.Destroy(); s.Flash("bye") },
		"remember":     func(s *session2.Session) { s.Set("k", 1); s.Remember(time.Hour) },
		"form":         func(s *session2.Session) { s.FormToken() },
		"commit": func(s *session2.Session) {
			s.Renew()
			s.Set("k", 1)
			s.Commit(context.Background())
			s.Renew()
		},
	}
	unknown := session2.EncodeToken(session2.ID{1}, [32]byte{1})
	for name, do := range doings {
		for _, cookie := range []string{"", "alice", unknown, "garbage"} {
			for _, header := range []string{"", "bob", unknown, "none", "garbage", "foreign"} {
				cfg := bearer()
				cfg.Cookie.Former = []session2.CookieConfig{{Name: "sid"}}
				st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
				alice := st.Login("alice").Token()
				bob := signIn(st, "bob")
				var lines []string
				if cookie != "" {
					lines = append(lines, "Cookie: "+cookieName+map[bool]string{true: alice, false: cookie}[cookie == "alice"])
				}
				byHeader := true
				switch header {
				case "":
					byHeader = false
				case "bob":
					lines = append(lines, "Authorization: Bearer "+bob)
				case "none":
					lines = append(lines, "Authorization: Bearer")
				case "garbage":
					lines = append(lines, "Authorization: Bearer "+bob+"x")
				case "foreign":
					lines, byHeader = append(lines, "Authorization: Bearer ey.ey.ey"), false
				default:
					lines = append(lines, "Authorization: Bearer "+header)
				}
				what := fmt.Sprintf("%s, cookie %q, header %q", name, cookie, header)
				res := use(st, do, lines...)
				_, says := told(res)
				if byHeader && len(res.Header["Set-Cookie"]) > 0 || !byHeader && says {
					t.Errorf("%s: told the other way: %v, token in a header: %v", what, res.Cookies(), says)
				}
				if byHeader && userBy(st, "Cookie: "+cookieName+alice) != "alice" {
					t.Errorf("%s: the cookie's session has gone", what)
				}
				if !byHeader && userBy(st, "Authorization: Bearer "+bob) != "bob" {
					t.Errorf("%s: another's session has gone", what)
				}
				if header != "bob" && !byHeader && cookie == "" && name == "read" && (says || len(res.Cookies()) > 0) {
					t.Errorf("%s: a token for nothing", what)
				}
			}
		}
	}
}

// A periodic rotation whose answer was lost is told again, to all requests the same,
// until the client has come with it; then the old token's use ends the session.
func TestHeaderRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := bearer()
		cfg.RenewEvery, cfg.IdleTimeout = time.Minute, time.Hour
		st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		old := signIn(st, "alice")
		time.Sleep(2 * time.Minute)
		successors := make(map[string]bool)
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range 8 { // at once
			wg.Go(func() {
				token, says := told(use(st, func(s *session2.Session) { s.User() }, "Authorization: Bearer "+old))
				mu.Lock()
				defer mu.Unlock()
				successors[token] = says
			})
		}
		wg.Wait()
		time.Sleep(10 * time.Minute) // much later: no answer has come
		token, _ := told(use(st, func(s *session2.Session) { s.User() }, "Authorization: Bearer "+old))
		if len(successors) != 1 || !successors[token] || token == old {
			t.Fatalf("%d different answers", len(successors))
		}
		if userBy(st, "Authorization: Bearer "+token) != "alice" || userBy(st, "Authorization: Bearer "+old) != "alice" {
			t.Error("the successor is not good, or the old token is not within the grace")
		}
		time.Sleep(31 * time.Second)
		if userBy(st, "Authorization: Bearer "+old) != "" || st.Events.Count(session2.EventReuse) != 1 ||
			userBy(st, "Authorization: Bearer "+token) != "" {
			t.Error("the reuse did not end the session")
		}
	})
}

// A login whose answer was lost is sent again.
func TestHeaderLoginTwice(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), bearer())
	cart, _ := told(use(st, func(s *session2.Session) { s.Set("cart", "book") }, "Authorization: Bearer"))
	login := func(s *session2.Session) { s.SetUser("alice") }
	first, _ := told(use(st, login, "Authorization: Bearer "+cart))
	second, _ := told(use(st, login, "Authorization: Bearer "+cart))
	if first != second || userBy(st, "Authorization: Bearer "+second) != "alice" {
		t.Error("the login that was sent again was told another token")
	}
	var s *session2.Session
	res := use(st, func(in *session2.Session) { s = in; in.User() }, "Authorization: Bearer "+cart)
	if _, says := told(res); says || !errors.Is(s.Err(), session2.ErrStale) {
		t.Errorf("a request with the replaced token was told one: %v, Err() = %v", says, s.Err())
	}
}

// A response that fails tells no token, but of what was committed before.
func TestHeaderFailedResponses(t *testing.T) {
	store := testsite.NewBrittle()
	cfg := bearer()
	cfg.CommitTimeout = testsite.TinyTimeout
	st := testsite.NewSite(t, store, cfg)
	token := signIn(st, "alice")
	line := "Authorization: Bearer " + token
	for name, f := range map[string]sessionHandler{
		"store": func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Renew()
			store.FailSave.Store(true)
			w.Header().Set("Session-Token", "what the handler wrote")
		},
		"status": func(s *session2.Session, w http.ResponseWriter, _ *http.Request) { s.Renew(); w.WriteHeader(500) },
		"value":  func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Renew(); s.Set("f", func() {}) },
	} {
		res := send(st, f, line)
		store.FailSave.Store(false)
		if text, says := told(res); res.StatusCode < 500 || says {
			t.Errorf("%s: status %d, Session-Token: %q", name, res.StatusCode, text)
		}
		if userBy(st, line) != "alice" {
			t.Fatalf("%s: the token is no longer good", name)
		}
	}
	res := send(st, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Renew()
		testsite.Must(t, s.Commit(r.Context()))
		s.Set("f", func() {})
	}, line)
	text, _ := told(res)
	if res.StatusCode != 500 || userBy(st, "Authorization: Bearer "+text) != "alice" ||
		res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("status %d: the token of an earlier Commit was lost", res.StatusCode)
	}
}

// A token that is owed when the response has begun is an error, and nothing is stored.
func TestHeaderOfAStream(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), bearer())
	token := signIn(st, "alice")
	for name, do := range map[string]func(*session2.Session){
		"Renew": (*session2.Session).Renew, "login": func(s *session2.Session) { s.SetUser("bob") },
	} {
		var err error
		res := send(st, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			io.WriteString(w, "begun")
			do(s)
			err = s.Commit(r.Context())
		}, "Authorization: Bearer "+token)
		if _, says := told(res); says || err == nil || !strings.Contains(err.Error(), "begun") {
			t.Errorf("%s: told: %v, Commit: %v", name, says, err)
		}
	}
	if userBy(st, "Authorization: Bearer "+token) != "alice" {
		t.Error("the token was replaced, and nobody was told")
	}
}

// The token leaves with the final response, and not with one before it; with Hijack it
// cannot, but for what was committed before.
func TestHeaderOfOtherResponses(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), bearer())
	mux := http.NewServeMux()
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		st.M.Session(r).Renew()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		st.M.Session(r).Renew()
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		st.M.Session(r).Renew()
		if _, _, err := http.NewResponseController(w).Hijack(); err == nil {
			t.Error("Hijack with a token to tell: no error")
		}
	})
	mux.HandleFunc("/commit", func(w http.ResponseWriter, r *http.Request) {
		st.M.Session(r).Renew()
		testsite.Must(t, st.M.Session(r).Commit(r.Context()))
		c, buf, err := http.NewResponseController(w).Hijack()
		testsite.Must(t, err)
		defer c.Close()
		buf.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n")
		w.Header().Write(buf)
		buf.WriteString("\r\n")
		buf.Flush()
	})
	srv := testsite.Serve(t, st.M.Wrap(mux), false)
	c := srv.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	token := signIn(st, "alice")
	for path, want := range map[string]int{"/redirect": 303, "/hints": 204, "/hijack": 500, "/commit": 200} {
		early := false
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
				early = early || h.Get("Session-Token") != ""
				return nil
			}})
		r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+path, nil)
		testsite.Must(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := c.Do(r)
		testsite.Must(t, err)
		res.Body.Close()
		next, says := told(res)
		if res.StatusCode != want || early || says != (want != 500) {
			t.Errorf("%s: status %d, told: %v, early: %v", path, res.StatusCode, says, early)
		}
		if says {
			token = next
		}
		if userBy(st, "Authorization: Bearer "+token) != "alice" {
			t.Fatalf("%s: the token is not good", path)
		}
	}
}

// With HeaderOnly no cookie counts, none is set, and nobody needs to ask.
func TestHeaderOnly(t *testing.T) {
	store := session2.NewMemoryStore()
	cfg := bearer()
	cfg.Transport.HeaderOnly, cfg.Anomalies = true, true
	st := testsite.NewSite(t, store, cfg)
	for _, lines := range [][]string{nil, {"Authorization: Basic YTpi"}, {"Authorization: Bearer"}} {
		res := use(st, func(s *session2.Session) { s.SetUser("alice") }, lines...)
		token, _ := told(res)
		if len(res.Cookies()) > 0 || res.Header.Get("Vary") != "Authorization" {
			t.Errorf("%q: cookies %v, Vary %q", lines, res.Cookies(), res.Header["Vary"])
		}
		if userBy(st, "Authorization: Bearer "+token) != "alice" || userBy(st, "Cookie: "+cookieName+token) != "" {
			t.Errorf("%q: the header does not count, or a cookie does", lines)
		}
		res = use(st, (*session2.Session).Destroy, "Cookie: "+cookieName+token)
		if _, says := told(res); says || len(res.Cookies()) > 0 {
			t.Errorf("%q: a logout by a cookie that does not count is told", lines)
		}
	}
}

// subprotocol reads a token as WebSocket clients in browsers send one.
func subprotocol(r *http.Request) string {
	for p := range strings.SplitSeq(r.Header.Get("Sec-WebSocket-Protocol"), ",") {
		if token, ok := strings.CutPrefix(strings.TrimSpace(p), "session."); ok {
			return token
		}
	}
	return ""
}

// What a read-only source has brought is used, changed and ended, and neither becomes a
// cookie nor leaves by a header: what needs a new token fails.
func TestReadOnlyTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := bearer()
		cfg.RenewEvery, cfg.IdleTimeout = time.Minute, time.Hour
		cfg.Transport.ReadOnly = subprotocol
		st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		token, other := signIn(st, "alice"), st.Login("bob").Token()
		time.Sleep(2 * time.Minute) // a rotation is due
		by := "Sec-WebSocket-Protocol: chat, session." + token
		beside := "Cookie: " + cookieName + other
		for _, c := range []struct {
			name   string
			do     func(*session2.Session)
			status int
		}{
			{"read", func(s *session2.Session) { s.User() }, 200},
			{"set", func(s *session2.Session) { s.Set("k", "v") }, 200},
			{"limits", func(s *session2.Session) { s.SetLifetime(5 * time.Hour); s.SetPersistent(true) }, 200},
			{"Renew", (*session2.Session).Renew, 500},
			{"login", func(s *session2.Session) { s.SetUser("carol") }, 500},
			{"logout by SetUser", func(s *session2.Session) { s.SetUser(""); s.Flash("bye") }, 500},
		} {
			res := use(st, c.do, by, beside)
			if _, says := told(res); res.StatusCode != c.status || says || len(res.Header["Set-Cookie"]) > 0 {
				t.Errorf("%s: status %d, told: %v, cookies: %v", c.name, res.StatusCode, says, res.Cookies())
			}
			if vary := strings.Join(res.Header["Vary"], ", "); c.status == 200 && !strings.HasSuffix(vary, "*") {
				t.Errorf("%s: Vary: %s", c.name, vary)
			}
			if user := userBy(st, by, beside); user != "alice" {
				t.Fatalf("%s: then the session is %q's", c.name, user)
			}
		}
		use(st, func(s *session2.Session) {
			if s.Get("k") != "v" || s.ValidCSRFToken(httptest.NewRequest("POST", "/", nil)) {
				t.Error("what was set is not there, or no CSRF token is asked for")
			}
		}, by)
		for name, text := range map[string]string{
			"unknown": session2.EncodeToken(session2.ID{9}, [32]byte{9}), "garbage": "garbage"} {
			res := use(st, func(s *session2.Session) { s.Set("k", "v") }, "Sec-WebSocket-Protocol: session."+text, beside)
			if _, says := told(res); res.StatusCode != 500 || says || len(res.Cookies()) > 0 {
				t.Errorf("a new session for a token that is %s: status %d", name, res.StatusCode)
			}
		}
		if n := st.Events.Count(session2.EventMalformed); n != 1 {
			t.Errorf("%d EventMalformed, want 1", n)
		}
		if token, says := told(use(st, func(s *session2.Session) { s.User() }, "Authorization: Bearer "+token, by)); !says {
			t.Errorf("the rotation has not waited for the header: %q", token)
		}
		successor, _ := told(use(st, func(s *session2.Session) { s.User() }, "Authorization: Bearer "+token))
		userBy(st, "Authorization: Bearer "+successor)
		time.Sleep(50 * time.Second) // after the grace, and before the next rotation
		if userBy(st, by) != "" || st.Events.Count(session2.EventReuse) != 1 ||
			userBy(st, "Authorization: Bearer "+successor) != "alice" {
			t.Error("a replaced token whose client could not be told opens the session, or ends it")
		}
		by = "Sec-WebSocket-Protocol: session." + successor
		if user := userBy(st, beside); user != "bob" {
			t.Errorf("without the subprotocol, the cookie is %q's", user)
		}
		res := use(st, (*session2.Session).Destroy, by, beside)
		if _, says := told(res); res.StatusCode != 200 || says || len(res.Cookies()) > 0 || userBy(st, by) != "" {
			t.Errorf("logout: status %d, told: %v, %v", res.StatusCode, says, res.Cookies())
		}
		if userBy(st, beside) != "bob" {
			t.Error("the logout ended the session of the cookie that did not count")
		}
	})
}

// A stream by a read-only source ends its session although it cannot say so.
func TestReadOnlyLogoutInAStream(t *testing.T) {
	cfg := bearer()
	cfg.Transport.ReadOnly = subprotocol
	st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
	by := "Sec-WebSocket-Protocol: session." + signIn(st, "alice")
	var err error
	send(st, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		io.WriteString(w, "begun")
		s.Destroy()
		err = errors.Join(s.Commit(r.Context()), s.Err())
	}, by)
	if err != nil || userBy(st, by) != "" {
		t.Errorf("Commit and Err: %v", err)
	}
}

// A request that goes by the header needs no CSRF token: no other site's page can send it.
func TestHeaderNeedsNoCSRFToken(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), bearer())
	token, cookie := signIn(st, "alice"), st.Login("bob").Token()
	for lines, want := range map[string]bool{
		"Authorization: Bearer " + token: true,
		"Authorization: Bearer":          true, // a login form of both kinds of clients
		"Authorization: Bearer " + token + "\nCookie: __Host-session=" + cookie: true,
		"Cookie: __Host-session=" + cookie:                                      false,
		"Cookie: __Host-session=" + cookie + "\nAuthorization: Basic YTpi":      false,
		"Cookie: __Host-session=" + cookie + "\nAuthorization: Bearer x":        false,
		"Accept: */*": false,
	} {
		var valid bool
		send(st, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) { valid = s.ValidCSRFToken(r) },
			strings.Split(lines, "\n")...)
		if valid != want {
			t.Errorf("%q: valid: %v, want %v", lines, valid, want)
		}
	}
	// A request that the handler makes up is not the one that came.
	send(st, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		if s.ValidCSRFToken(r) {
			t.Error("the header of another request counts")
		}
	}, "Cookie: "+cookieName+cookie)
}

// A logout clears an API client's cache and storage, and no cookie, which may be another
// session's.
func TestHeaderClearSiteData(t *testing.T) {
	cfg := bearer()
	cfg.ClearSiteData = true
	st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
	res := use(st, (*session2.Session).Destroy, "Authorization: Bearer "+signIn(st, "alice"))
	if got := res.Header.Get("Clear-Site-Data"); got != `"cache", "storage"` {
		t.Errorf("Clear-Site-Data: %s", got)
	}
}

// What an inner manager tells survives the outer one's failure; two that tell by one
// header are warned of.
func TestNestedHeaders(t *testing.T) {
	for name, warned := range map[string]int{"X-Inner": 0, "Authorization": 1} {
		log := &testsite.Log{}
		outer := testsite.NewSite(t, session2.NewMemoryStore(), bearer())
		cfg := session2.Config{Logger: log.Logger(), Transport: session2.Transport{Header: name}}
		inner := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		var broken atomic.Bool
		h := outer.M.Wrap(inner.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inner.M.Session(r).SetUser("admin")
			outer.M.Session(r).SetUser("alice")
			if broken.Load() {
				outer.M.Session(r).Set("f", func() {})
			}
		})))
		for _, fails := range []bool{false, true} {
			broken.Store(fails)
			r := httptest.NewRequest("GET", "https://example.com/", nil)
			r.Header.Set("Authorization", "Bearer")
			r.Header.Set("X-Inner", "")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if _, ok := session2.ParseToken(w.Header().Get("X-Inner")); ok != (name == "X-Inner") {
				t.Errorf("%s, fails: %v: the inner manager's token: %v", name, fails, ok)
			}
		}
		if n := strings.Count(log.String(), "each replaces the other's"); n != warned {
			t.Errorf("%s: warned %d times: %s", name, n, log)
		}
	}
}

// A token that goes over plain HTTP is read on the way: the log says so, once.
func TestHeaderOverPlainHTTP(t *testing.T) {
	for _, c := range []struct {
		url, forwarded string
		insecure       bool
		want           int
	}{
		{"http://example.com/", "", false, 1}, {"http://example.com/", "http", false, 1},
		{"http://example.com/", "https", false, 0}, {"https://example.com/", "", false, 0},
		{"http://localhost/", "", false, 0}, {"http://example.com/", "", true, 0},
	} {
		log, cfg := &testsite.Log{}, bearer()
		cfg.Logger, cfg.Cookie.Insecure = log.Logger(), c.insecure
		st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		for range 2 {
			r := httptest.NewRequest("GET", c.url, nil)
			r.Header.Set("Authorization", "Bearer")
			if c.forwarded != "" {
				r.Header.Set("X-Forwarded-Proto", c.forwarded)
			}
			w := httptest.NewRecorder()
			st.Handler(page(func(s *session2.Session) { s.SetUser("alice") })).ServeHTTP(w, r)
			if token, _ := told(w.Result()); token == "" || strings.Contains(log.String(), token[33:]) {
				t.Error("no token, or it is in the log")
			}
		}
		if n := strings.Count(log.String(), "level=WARN"); n != c.want {
			t.Errorf("%s, %s: %d warnings, want %d: %s", c.url, c.forwarded, n, c.want, log)
		}
	}
}

// With SecureFunc the application knows that a cookie goes over plain HTTP; that a token
// in a header does is said all the same.
func TestPlainHTTPWithSecureFunc(t *testing.T) {
	log, cfg := &testsite.Log{}, bearer()
	cfg.Logger, cfg.Cookie.SecureFunc = log.Logger(), func(r *http.Request) bool { return r.TLS != nil }
	st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
	for want, header := range []string{"", "Bearer"} {
		r := httptest.NewRequest("GET", "http://example.com/", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		st.Handler(page(func(s *session2.Session) { s.SetUser("alice") })).ServeHTTP(httptest.NewRecorder(), r)
		if n := strings.Count(log.String(), "level=WARN"); n != want {
			t.Errorf("Authorization: %q: %d warnings, want %d: %s", header, n, want, log)
		}
	}
}

func TestTransportsThatAreRefused(t *testing.T) {
	for _, tr := range []session2.Transport{
		{HeaderOnly: true}, {Header: "Cookie"}, {Header: "set-cookie"}, {Header: "Accept"}, {Header: "content-type"},
		{Header: "Range"}, {Header: "Sec-Session"}, {Header: "X Session"}, {Header: "X-Session:"}, {Header: "Ünicode"},
		{Header: "Accept-Encoding"}, {Header: "save-data"}, {Header: "Priority"}, {Header: "Host"}, {Header: "X\r\nY"}, {Header: "X-CSRF-Token"},
	} {
		_, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Transport: tr})
		if err == nil || !strings.Contains(err.Error(), "Config.Transport.") {
			t.Errorf("%q, HeaderOnly %v: %v", tr.Header, tr.HeaderOnly, err)
		}
	}
}

// secureSite is a site with a SecureFunc that counts.
func secureSite(t *testing.T, cookie session2.CookieConfig) (st *testsite.Site, calls *atomic.Int64) {
	calls = new(atomic.Int64)
	cookie.SecureFunc = func(r *http.Request) bool { calls.Add(1); return r.TLS != nil }
	return testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Cookie: cookie}), calls
}

// visit serves one request with a Cookie header, and returns its Set-Cookie lines.
func visit(st *testsite.Site, url, cookie string, f func(*session2.Session)) []string {
	r := httptest.NewRequest("GET", url, nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	r.Header.Set("X-Forwarded-Proto", "https") // anybody can say so
	w := httptest.NewRecorder()
	st.Handler(page(f)).ServeHTTP(w, r)
	return w.Result().Header["Set-Cookie"]
}

// With SecureFunc an application has two cookies, and neither is taken for the other.
func TestSecureFunc(t *testing.T) {
	for _, c := range []struct {
		cookie                    session2.CookieConfig
		secure, plain, attributes string
	}{
		{session2.CookieConfig{}, "__Host-session", "session", "; Path=/; HttpOnly"},
		{session2.CookieConfig{Name: "__host-http-id"}, "__host-http-id", "id", "; Path=/; HttpOnly"},
		{session2.CookieConfig{Path: "/app"}, "__Secure-session", "session", "; Path=/app; HttpOnly"},
	} {
		st, calls := secureSite(t, c.cookie)
		login := func(s *session2.Session) { s.SetUser("alice") }
		secure := visit(st, "https://example.com/", "", login)
		plain := visit(st, "http://example.com/", "", login)
		line := func(lines []string, name, rest string) (cookie string) {
			t.Helper()
			if len(lines) != 1 || !strings.HasPrefix(lines[0], name+"=") || !strings.HasSuffix(lines[0], rest) {
				t.Fatalf("%s: Set-Cookie %q, want one line of %s and %s", c.secure, lines, name, rest)
			}
			cookie, _, _ = strings.Cut(lines[0], ";")
			return cookie
		}
		a := line(secure, c.secure, c.attributes+"; Secure; SameSite=Lax")
		b := line(plain, c.plain, c.attributes+"; SameSite=Lax")
		if n := calls.Load(); n != 2 {
			t.Errorf("SecureFunc was called %d times by 2 requests", n)
		}
		who := func(url, cookie string) (user string) {
			visit(st, url, cookie, func(s *session2.Session) { user = s.User() })
			return user
		}
		planted := strings.Replace(b, c.plain+"=", c.secure+"=", 1)
		for _, v := range []struct{ url, cookie, want string }{
			{"https://example.com/", a, "alice"}, {"http://example.com/", b, "alice"},
			{"https://example.com/", b, ""}, {"http://example.com/", a, ""},
			{"https://example.com/", a + "; " + b, "alice"},
			{"http://example.com/", strings.Replace(a, c.secure+"=", "x=", 1), ""},
			{"https://example.com/", planted, "alice"}, // whoever can set the Secure cookie can do so without us, too
		} {
			if got := who(v.url, v.cookie); got != v.want {
				t.Errorf("%s: user %q over %s, want %q", c.secure, got, v.url, v.want)
			}
		}
		gone := visit(st, "https://example.com/", a+"; "+b, (*session2.Session).Destroy)
		if len(gone) != 1 || !strings.HasPrefix(gone[0], c.secure+"=;") || who("http://example.com/", b) != "alice" {
			t.Errorf("%s: a logout over TLS revokes %q, and ends the other session", c.secure, gone)
		}
		gone = visit(st, "http://example.com/", b, (*session2.Session).Destroy)
		if len(gone) != 1 || !strings.HasPrefix(gone[0], c.plain+"=;") || strings.Contains(gone[0], "Secure") {
			t.Errorf("%s: a logout over plain HTTP revokes %q", c.secure, gone)
		}
	}
}

// A logout ends the session of its own kind, and RevokeUser what is left.
func TestSecureFuncLogout(t *testing.T) {
	st, _ := secureSite(t, session2.CookieConfig{})
	const tls, plain = "https://example.com/", "http://example.com/"
	cookies := map[string]string{}
	for _, url := range []string{tls, plain} {
		lines := visit(st, url, "", func(s *session2.Session) { s.SetUser("alice") })
		cookies[url], _, _ = strings.Cut(lines[0], ";")
	}
	visit(st, tls, cookies[tls]+"; "+cookies[plain], func(s *session2.Session) {
		if n, err := st.M.RevokeUser(t.Context(), s.User()); n != 2 || err != nil {
			t.Errorf("RevokeUser = %d, %v, want both", n, err)
		}
		s.Destroy()
	})
	for url, cookie := range cookies {
		visit(st, url, cookie, func(s *session2.Session) {
			if s.User() != "" {
				t.Errorf("%s: still signed in", url)
			}
		})
	}
}

// A session that somebody has planted over plain HTTP is nobody's over TLS.
func TestSecureFuncTakesNoPlantedCookie(t *testing.T) {
	st, _ := secureSite(t, session2.CookieConfig{})
	lines := visit(st, "http://example.com/", "", func(s *session2.Session) { s.Set("planted", true) })
	cookie, _, _ := strings.Cut(lines[0], ";")
	var seen any
	visit(st, "https://example.com/", cookie, func(s *session2.Session) {
		seen = s.Get("planted")
		s.SetUser("alice")
	})
	visit(st, "http://example.com/", cookie, func(s *session2.Session) {
		if seen != nil || s.User() != "" {
			t.Error("the login went into the planted session")
		}
	})
}

// A SecureFunc that panics fails its request, and no other.
func TestTransportFunctionsMayPanic(t *testing.T) {
	bad := func() { panic("of the application") }
	for name, cfg := range map[string]session2.Config{
		"SecureFunc": {Cookie: session2.CookieConfig{SecureFunc: func(r *http.Request) bool {
			if r.URL.Path == "/bad" {
				bad()
			}
			return true
		}}},
		"ReadOnly": {Transport: session2.Transport{ReadOnly: func(r *http.Request) string {
			if r.URL.Path == "/bad" {
				bad()
			}
			return ""
		}}},
	} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		reached := 0
		h := st.Handler(page(func(s *session2.Session) { reached++; s.SetUser("alice") }))
		serve := func(path string) (panicked any) {
			defer func() { panicked = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
			return nil
		}
		if serve("/bad") == nil || serve("/good") != nil || reached != 1 {
			t.Errorf("%s: the handler was reached %d times", name, reached)
		}
	}
}

func TestSecureFuncsThatAreRefused(t *testing.T) {
	yes := func(*http.Request) bool { return true }
	for _, c := range []session2.CookieConfig{
		{Name: "sid"}, {Name: "__Host-"}, {Name: "__Secure-__Host-x"}, {Insecure: true},
		{SameSite: http.SameSiteNoneMode}, {Partitioned: true}, {Former: []session2.CookieConfig{{Name: "session"}}},
		{Former: []session2.CookieConfig{{Name: "old", SecureFunc: yes}}},
	} {
		c.SecureFunc = yes
		_, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Cookie: c})
		if err == nil || !strings.Contains(err.Error(), "Config.Cookie.") {
			t.Errorf("%+v: %v", c.Name, err)
		}
	}
}
