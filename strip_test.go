package session2_test

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// former is a site whose cookie once had other names.
var former = session2.Config{Cookie: session2.CookieConfig{
	Former: []session2.CookieConfig{{Name: "sid"}, {Name: "session", Domain: "example.com"}},
}}

func TestStripCookie(t *testing.T) {
	m := testsite.NewSite(t, session2.NewMemoryStore(), former).M
	const ours = "__Host-session=" + "0123.abc"
	for _, c := range []struct{ lines, want []string }{
		{nil, nil},
		{[]string{}, []string{}},
		{[]string{ours}, nil},
		{[]string{ours + ";"}, nil},
		{[]string{" ; " + ours + " ;;\t"}, nil},
		{[]string{"a=1; " + ours + "; b=2"}, []string{"a=1; b=2"}},
		{[]string{"a=1;" + ours + ";b=2"}, []string{"a=1;b=2"}},
		{[]string{ours + "; a=1"}, []string{"a=1"}},
		{[]string{ours + ";\t  a=1 "}, []string{"a=1 "}},
		{[]string{"a=1; " + ours}, []string{"a=1"}},
		{[]string{ours + "; a=1; " + ours + "; b=2; " + ours}, []string{"a=1; b=2"}},
		{[]string{"sid=1; session=2; a=3"}, []string{"a=3"}},
		{[]string{"a=1", ours, "sid=2", "b=3"}, []string{"a=1", "b=3"}},
		{[]string{"__Host-session"}, nil},
		{[]string{"__Host-session =1"}, nil},
		{[]string{"__Host-session=a=b"}, nil},
		{[]string{`a="1; ` + ours + `"; b=2`}, []string{`a="1; b=2`}},
		// What is not ours stays as it is, however odd.
		{[]string{"  a = 1;;  b;=;\x00é=\"; ", ""}, []string{"  a = 1;;  b;=;\x00é=\"; ", ""}},
		{[]string{"__host-session=1; __Host-session2=2; my__Host-session=3"},
			[]string{"__host-session=1; __Host-session2=2; my__Host-session=3"}},
		{[]string{"a=__Host-session; b=x=" + ours}, []string{"a=__Host-session; b=x=" + ours}},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Cookie"], r.Header["X-Other"] = slices.Clone(c.lines), []string{ours}
		before := r.Header["Cookie"]
		m.StripCookie(r)
		got, there := r.Header["Cookie"]
		if !slices.Equal(got, c.want) || there != (c.want != nil || c.lines == nil) {
			t.Errorf("%q became %q, want %q", c.lines, got, c.want)
		}
		if !slices.Equal(before, c.lines) || r.Header.Get("X-Other") != ours {
			t.Errorf("%q: something else was changed", c.lines)
		}
		if len(r.CookiesNamed("__Host-session")) > 0 {
			t.Errorf("%q: the cookie is still there", c.lines)
		}
	}
}

// Whatever the header, nothing of ours is left of it that net/http finds, and nothing else
// is lost.
func FuzzStripCookie(f *testing.F) {
	for _, line := range []string{"", "__Host-session=1", "a=1; __Host-session=2; b=3", `a="1; sid=2"; ;=`, "\rsid", "a=1;\n session=2"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		m := testsite.NewSite(t, session2.NewMemoryStore(), former).M
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", line)
		var want []string
		for _, c := range r.Cookies() {
			if c.Name != "__Host-session" && c.Name != "sid" && c.Name != "session" {
				want = append(want, c.Name+"="+c.Value)
			}
		}
		m.StripCookie(r)
		var got []string
		for _, c := range r.Cookies() {
			got = append(got, c.Name+"="+c.Value)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %q the cookies %q are left, want %q", line, got, want)
		}
	})
}

// A reverse proxy inside of Wrap: the backend gets its own cookies, and the session works
// although the proxy looks at it only after the cookie was taken out.
func TestReverseProxyStripsTheCookie(t *testing.T) {
	got := make(chan string, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- strings.Join(r.Header["Cookie"], " | ")
		http.SetCookie(w, &http.Cookie{Name: "theirs", Value: "2"})
		io.WriteString(w, "from behind")
	}))
	defer backend.Close()
	target, err := url.Parse(backend.URL)
	testsite.Must(t, err)
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	for name, proxy := range map[string]*httputil.ReverseProxy{
		"Rewrite": {Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			st.M.StripCookie(pr.Out)
			pr.Out.Header.Set("X-User", st.M.Session(pr.In).User())
			counter.Update(st.M.Session(pr.In), inc)
		}},
		"Director": {Director: func(r *http.Request) {
			r.URL.Scheme, r.URL.Host = target.Scheme, target.Host
			st.M.StripCookie(r)
			counter.Update(st.M.Session(r), inc)
		}},
	} {
		b := st.Login("alice")
		front := testsite.Serve(t, st.M.Wrap(proxy), false)
		r, err := http.NewRequest("GET", front.URL, nil)
		testsite.Must(t, err)
		r.AddCookie(&http.Cookie{Name: "theirs", Value: "1"})
		b.Send(r)
		r.AddCookie(&http.Cookie{Name: "other", Value: "a b", Quoted: true})
		sent := r.Header.Get("Cookie")
		res, err := front.Client().Do(r)
		testsite.Must(t, err)
		page, err := io.ReadAll(res.Body)
		testsite.Must(t, err)
		res.Body.Close()
		token := "; __Host-session=" + b.Token()
		if cookies := <-got; cookies != strings.Replace(sent, token, "", 1) || strings.Contains(cookies, "session") {
			t.Errorf("%s: the backend got %q of %q", name, cookies, sent)
		}
		if string(page) != "from behind" || st.Stored(b, "counter") != 1 || st.UserOf(b) != "alice" {
			t.Errorf("%s: page %q, counter %v, user %q", name, page, st.Stored(b, "counter"), st.UserOf(b))
		}
	}
}

// The session is found by the incoming request, which keeps its cookie.
func TestStripCookieLeavesTheSession(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	for name, out := range map[string]func(r *http.Request) *http.Request{
		"a clone":        func(r *http.Request) *http.Request { return r.Clone(r.Context()) },
		"a shallow copy": func(r *http.Request) *http.Request { return r.WithContext(r.Context()) },
	} {
		b := st.Login("alice")
		st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			o := out(r)
			st.M.StripCookie(o)
			if len(o.Header["Cookie"]) > 0 || len(r.Header["Cookie"]) == 0 || s.User() != "alice" {
				t.Errorf("%s: cookies %q out, %d in; user %q", name, o.Header["Cookie"], len(r.Header["Cookie"]), s.User())
			}
		})
	}
	st.Visit(st.Login("alice"), func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() == nil || s.User() != "alice" {
				t.Error("the handler's own request was stripped")
			}
		}()
		st.M.StripCookie(r)
	})
	st.Visit(&testsite.Browser{}, func(_ *session2.Session, _ http.ResponseWriter, r *http.Request) {
		st.M.StripCookie(r) // there is nothing to do
	})
}

// What a request presents is taken out of it, whichever way it goes, and nothing else.
func TestStripCookieOfOtherTransports(t *testing.T) {
	token := "0123456789abcdef0123456789abcdef.dGhlIHZlcmlmaWVyIGlzIG9mIG5vIG1hdHRlciBoZXJl"
	bearer := session2.Config{Transport: session2.Transport{Header: "Authorization"}}
	for _, test := range []struct {
		cfg              session2.Config
		name, said, left string
	}{
		{bearer, "Authorization", "Bearer " + token, ""},
		{bearer, "Authorization", "Basic eA==", "Basic eA=="},
		{bearer, "Authorization", "Bearer a.b.c", "Bearer a.b.c"},
		{session2.Config{Transport: session2.Transport{Header: "X-Session"}}, "X-Session", token, ""},
		{session2.Config{}, "Authorization", "Bearer " + token, "Bearer " + token},
		{session2.Config{Cookie: session2.CookieConfig{SecureFunc: func(r *http.Request) bool { return r.TLS != nil }}},
			"Cookie", "session=x; a=b; __Host-session=y", "a=b"},
	} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), test.cfg)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set(test.name, test.said)
		st.M.StripCookie(r)
		if got := r.Header.Get(test.name); got != test.left {
			t.Errorf("%s: %s: got %q, want %q", test.name, test.said, got, test.left)
		}
	}
}

// What a backend answers plants no session: fields that tell a client of its token are the
// manager's, whichever way the request goes, and whether the session was looked at or not.
func TestABackendPlantsNoSession(t *testing.T) {
	secure := func(r *http.Request) bool { return r.TLS != nil }
	planted := http.Header{
		"Set-Cookie": {"__Host-session=planted; Path=/; Secure", "theirs=1", "__Host-Session=other", "session=planted",
			"=__Host-session=planted", "__Host-session =planted"},
		"X-Session": {"planted"}, "Session-Token": {"planted"},
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), planted)
		io.WriteString(w, "from behind")
	}))
	defer backend.Close()
	target, err := url.Parse(backend.URL)
	testsite.Must(t, err)
	theirs, plain := planted["Set-Cookie"][1:3], planted["Set-Cookie"][3]
	own, only := session2.Transport{Header: "X-Session"}, session2.Transport{Header: "X-Session", HeaderOnly: true}
	for _, test := range []struct {
		name    string
		cfg     session2.Config
		cookies []string // of the backend's that are left
		gone    string
	}{
		{"cookie", session2.Config{}, append(theirs[:2:2], plain), ""},
		{"SecureFunc", session2.Config{Cookie: session2.CookieConfig{SecureFunc: secure}}, theirs, ""},
		{"bearer", bearer(), append(theirs[:2:2], plain), "Session-Token"},
		{"header", session2.Config{Transport: own}, append(theirs[:2:2], plain), "X-Session"},
		{"header only", session2.Config{Transport: only}, planted["Set-Cookie"], "X-Session"},
	} {
		for _, line := range []string{"X: y", "Authorization: Bearer", "X-Session: "} {
			for _, do := range []func(*session2.Session){nil, look, func(s *session2.Session) { s.SetUser("alice") }} {
				var log testsite.Log
				test.cfg.Logger = log.Logger()
				st := testsite.NewSite(t, session2.NewMemoryStore(), test.cfg)
				res := send(st, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					if do != nil {
						do(s)
					}
					httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
				}, line)
				var cookies []string
				for _, cookie := range res.Header["Set-Cookie"] {
					if name, value, _ := strings.Cut(cookie, "="); name == "__Host-session" && !strings.HasPrefix(value, "planted") {
						continue // the manager's
					}
					cookies = append(cookies, cookie)
				}
				slices.Sort(cookies)
				want := slices.Sorted(slices.Values(test.cookies))
				token := res.Header.Get(test.gone)
				if res.StatusCode != 200 || !slices.Equal(cookies, want) || test.gone != "" && token == "planted" {
					t.Errorf("%s, %q: status %d, cookies %q, want %q; %s: %q",
						test.name, line, res.StatusCode, cookies, want, test.gone, token)
				}
				if n := strings.Count(log.String(), "left out"); test.name != "header only" && n != 1 {
					t.Errorf("%s: warned %d times: %s", test.name, n, log.String())
				}
			}
		}
	}
}

// Nor does it in what comes before the response, or after it.
func TestABackendPlantsNoSessionEarlyOrLate(t *testing.T) {
	cfg := bearer()
	cfg.Logger = slog.New(slog.DiscardHandler)
	st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
	srv := testsite.Serve(t, st.Handler(func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Set-Cookie", "__Host-session=planted")
		h.Set("Session-Token", "planted")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Trailer", "X-Sum, Session-Token")
		h.Add("Trailer", "set-cookie")
		io.WriteString(w, "a page")
		h.Set("X-Sum", "1")
		h.Set("Session-Token", "planted")
		h.Set("Set-Cookie", "__Host-session=planted")
		h.Set(http.TrailerPrefix+"Session-Token", "planted")
		h[http.TrailerPrefix+"set-cookie"] = []string{"__Host-session=planted"}
		h.Set(http.TrailerPrefix+"X-Late", "2")
	}), false)
	var early []textproto.MIMEHeader
	trace := &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		early = append(early, h)
		return nil
	}}
	r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", srv.URL, nil)
	res, err := srv.Client().Do(r)
	testsite.Must(t, err)
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	testsite.Must(t, err)
	if got := fmt.Sprint(early, res.Header, res.Trailer); len(early) != 1 || strings.Contains(got, "planted") {
		t.Errorf("%d early responses: %s", len(early), got)
	}
	if res.Trailer.Get("X-Sum") != "1" || res.Trailer.Get("X-Late") != "2" {
		t.Errorf("the backend's own trailers: %v", res.Trailer)
	}
}

// What a manager inside sets, and what was there before, is no backend's.
func TestWhatIsLeftOutIsTheHandlersAlone(t *testing.T) {
	for _, header := range []string{"", "X-Session"} {
		var sites [2]*testsite.Site
		for i, realm := range []string{"outer", "inner"} {
			sites[i] = testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Realm: realm,
				Logger: slog.New(slog.DiscardHandler), Transport: session2.Transport{Header: header}})
		}
		inner := sites[1].Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) { s.SetUser("bob") })
		h := sites[0].M.Wrap(inner)
		r := httptest.NewRequest("GET", "/", nil)
		if header != "" {
			r.Header.Set(header, "")
		}
		w := httptest.NewRecorder()
		w.Header().Set("Set-Cookie", "__Host-session=before")
		h.ServeHTTP(w, r)
		lines, token := w.Result().Header["Set-Cookie"], w.Header().Get(header)
		if header == "" && (len(lines) != 2 || lines[0] != "__Host-session=before") || header != "" && token == "" {
			t.Errorf("header %q: Set-Cookie %q, token %q", header, lines, token)
		}
	}
}

// Several lines of other schemes in the header of API clients are somebody else's.
func TestStripCookieLeavesOthersAuthorization(t *testing.T) {
	m := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{
		Transport: session2.Transport{Header: "Authorization"},
	}).M
	lines := []string{"Basic YTpi", "Digest x"}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Authorization"] = slices.Clone(lines)
	if m.StripCookie(r); !slices.Equal(r.Header["Authorization"], lines) {
		t.Errorf("left %q", r.Header["Authorization"])
	}
}
