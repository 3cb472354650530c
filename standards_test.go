package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// Each test here is one promise of docs/SECURITY.md, under the number that the
// standard gives it: OWASP ASVS 5.0, the OWASP Session Management Cheat Sheet (which
// has no numbers; O1 to O23 are ours) and NIST SP 800-63B-4. Much of it is tested in
// depth elsewhere.

// newSite is a site over a memory store.
func newSite(t *testing.T, cfg session2.Config) *testsite.Site {
	return testsite.NewSite(t, session2.NewMemoryStore(), cfg)
}

// page answers with a body, after f.
func page(f func(s *session2.Session)) func(*session2.Session, http.ResponseWriter, *http.Request) {
	return func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		f(s)
		fmt.Fprintf(w, "Hello, %s.", s.User())
	}
}

// opens reports whether a token opens a session.
func opens(t *testing.T, st *testsite.Site, token string) bool {
	_, err := st.M.Open(t.Context(), token)
	if err != nil && !errors.Is(err, session2.ErrNotFound) {
		t.Errorf("Open: %v", err)
	}
	return err == nil
}

func user(s *session2.Session) { s.User() }

// ASVS V7

func TestASVS_7_1_2_ALoginBeyondTheLimitEndsTheOldestOrIsRefused(t *testing.T) {
	for _, reject := range []bool{false, true} {
		store := []session2.Store{session2.NewMemoryStore()}
		wantExactly(t, store, 4, 8, reject)
	}
}

func TestASVS_7_2_1_EachRequestsTokenIsCheckedOnTheServer(t *testing.T) {
	st := newSite(t, session2.Config{})
	token := st.Login("alice").Token()
	for i := range token { // each character in turn
		other := byte('0')
		if token[i] == other {
			other = '1'
		}
		if opens(t, st, token[:i]+string(other)+token[i+1:]) {
			t.Errorf("a token opens the session with another character at %d", i)
		}
	}
	for _, bad := range []string{token[:len(token)-1], token + "A", token + token, strings.ToUpper(token), " ", "."} {
		if opens(t, st, bad) {
			t.Errorf("%d characters open the session", len(bad))
		}
	}
	if !opens(t, st, token) {
		t.Error("the token itself does not open it")
	}
}

func TestASVS_7_2_2_NoTokenIsStatic(t *testing.T) {
	seen := map[string]bool{}
	for range 3 { // sites of one configuration
		st := newSite(t, session2.Config{})
		for range 10 {
			seen[st.Login("alice").Token()] = true
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d tokens of 30 sessions", len(seen))
	}
}

func TestASVS_7_2_3_ATokenHas128BitsAndMoreOfRandomness(t *testing.T) {
	st := newSite(t, session2.Config{})
	id, secret, ok := strings.Cut(st.Login("alice").Token(), ".")
	if !ok || len(id) != 2*16 || len(secret) != 43 { // 128 bits, and 256 in base64
		t.Errorf("the token has %d and %d characters", len(id), len(secret))
	}
	seen := make([]map[byte]bool, 43)
	for range 200 {
		_, secret, _ := strings.Cut(st.Login("alice").Token(), ".")
		for i := range seen {
			if seen[i] == nil {
				seen[i] = map[byte]bool{}
			}
			seen[i][secret[i]] = true
		}
	}
	for i, chars := range seen { // the last one has four bits
		if len(chars) < 12 {
			t.Errorf("character %d takes %d values in 200 tokens", i, len(chars))
		}
	}
}

func TestASVS_7_2_4_TheOldTokenIsDeadAtOnce(t *testing.T) {
	changes := map[string]func(s *session2.Session){
		"login": func(s *session2.Session) { s.SetUser("alice") },
		"renew": func(s *session2.Session) { s.Renew() },
		"level": func(s *session2.Session) { s.SetLevel(2) },
	}
	for name, change := range changes {
		st := newSite(t, session2.Config{})
		b := st.Login("alice")
		old := b.Clone()
		res, err := st.During(old, func(s *session2.Session) { s.Set("k", 1) }, func() { // past its load
			st.Visit(b, page(change))
			if b.Token() == old.Token() || opens(t, st, old.Token()) {
				t.Errorf("%s: the old token lives", name)
			}
		}, func(*session2.Session) {})
		if res.StatusCode != 409 || !errors.Is(err, session2.ErrStale) {
			t.Errorf("%s: a request under way has status %d, %v", name, res.StatusCode, err)
		}
		if st.UserOf(b) != "alice" || st.Stored(b, "k") != nil {
			t.Errorf("%s: user %q", name, st.UserOf(b))
		}
	}
}

func TestASVS_7_3_1_AnIdleSessionEndsThoughNothingIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.Login("alice")
		for range 20 {
			time.Sleep(8 * time.Minute)
			if st.UserOf(b) != "alice" {
				t.Fatal("a session in use ended")
			}
		}
		time.Sleep(10 * time.Minute)
		if st.UserOf(b) != "" || opens(t, st, b.Token()) {
			t.Error("an idle session is alive")
		}
	})
}

func TestASVS_7_3_2_TheAbsoluteLimitIsNotExtendedByUseOrRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{Lifetime: time.Hour, RenewEvery: 5 * time.Minute})
		b := st.Login("alice")
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(5 * time.Minute) {
			st.Visit(b, page(func(s *session2.Session) { s.Set("k", time.Now()) }))
			st.Visit(b, page(func(s *session2.Session) { s.Renew() }))
			if st.UserOf(b) != "alice" {
				t.Fatalf("it ended after %v", time.Since(began))
			}
		}
		if st.UserOf(b) != "" {
			t.Error("it has outlived its limit")
		}
	})
}

func TestASVS_7_4_1_AfterALogoutNothingOpensOrSavesTheSession(t *testing.T) {
	inEachStore(t, func(t *testing.T, store houseStore) {
		st := testsite.NewSite(t, store, session2.Config{})
		elsewhere := testsite.NewSite(t, store, session2.Config{}) // another node
		b := st.Login("alice")
		running := b.Clone()
		_, err := elsewhere.During(running, func(s *session2.Session) { s.Set("k", 1) }, func() {
			st.Visit(b.Clone(), page(func(s *session2.Session) { s.Destroy() }))
		}, func(*session2.Session) {})
		if !errors.Is(err, session2.ErrNotFound) {
			t.Errorf("the request under way: %v", err)
		}
		if opens(t, st, b.Token()) || opens(t, elsewhere, b.Token()) || records(t, store) != 0 {
			t.Error("the session has come back")
		}
	})
}

func TestASVS_7_4_2_AllSessionsOfADisabledUserEnd(t *testing.T) {
	st := newSite(t, session2.Config{})
	a, b, other := st.Login("alice"), st.Login("alice"), st.Login("bob")
	if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 2 || err != nil {
		t.Errorf("RevokeUser = %d, %v", n, err)
	}
	if st.UserOf(a)+st.UserOf(b) != "" || st.UserOf(other) != "bob" {
		t.Error("not alice's sessions have ended, or not all")
	}
}

func TestASVS_7_4_3_ChangingThePasswordEndsTheOtherSessions(t *testing.T) {
	st := newSite(t, session2.Config{})
	a, b := st.Login("alice"), st.Login("alice")
	st.Visit(a, page(func(s *session2.Session) {
		s.Renew()
		if n, err := st.M.RevokeOthers(t.Context(), s); n != 1 || err != nil {
			t.Errorf("RevokeOthers = %d, %v", n, err)
		}
	}))
	if st.UserOf(a) != "alice" || st.UserOf(b) != "" {
		t.Error("not the other sessions have ended")
	}
}

func TestASVS_7_4_5_AnAdministratorEndsOneUsersSessionsOrAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		a, b := st.Login("alice"), st.Login("bob")
		if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 1 || err != nil || st.UserOf(a) != "" {
			t.Errorf("RevokeUser = %d, %v", n, err)
		}
		c := st.Login("carol")
		if n, err := st.M.RevokeAll(t.Context()); n != 2 || err != nil || st.UserOf(b)+st.UserOf(c) != "" {
			t.Errorf("RevokeAll = %d, %v", n, err)
		}
		d := st.Login("dave")
		time.Sleep(time.Second)
		restarted := testsite.NewSite(t, store, session2.Config{NotBefore: time.Now()})
		if restarted.UserOf(d) != "" || restarted.UserOf(restarted.Login("dave")) != "dave" {
			t.Error("NotBefore does not end what began before it, and that alone")
		}
	})
}

func TestASVS_7_5_1_And_7_5_3_ARecentAuthenticationCanBeAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{})
		b := st.Login("alice")
		within := func() (ok bool) {
			st.Visit(b, page(func(s *session2.Session) { ok = s.AuthenticatedWithin(5 * time.Minute) }))
			return ok
		}
		if !within() {
			t.Error("a login is no authentication")
		}
		time.Sleep(5 * time.Minute)
		st.Visit(b, page(func(s *session2.Session) { s.Renew() }))
		if within() {
			t.Error("an old one passes for a recent one")
		}
		st.Visit(b, page(func(s *session2.Session) { s.SetUser("alice") }))
		if !within() {
			t.Error("to sign in again is no authentication")
		}
		time.Sleep(5 * time.Minute)
		st.Visit(b, page(func(s *session2.Session) { s.SetLevel(2) }))
		if !within() {
			t.Error("a second factor is no authentication")
		}
		time.Sleep(31 * time.Minute)
		if within() {
			t.Error("an expired session is authenticated")
		}
	})
}

func TestASVS_7_5_2_AUserSeesTheirSessionsAndEndsOne(t *testing.T) {
	st := newSite(t, session2.Config{})
	a, b := st.Login("alice"), st.Login("alice")
	st.Login("bob")
	var mine session2.ID
	st.Visit(a, page(func(s *session2.Session) { mine = s.ID() }))
	n := 0
	for info, err := range st.M.Sessions(t.Context(), "alice") {
		testsite.Must(t, err)
		n++
		if info.Created.IsZero() || info.Accessed.IsZero() || info.RemoteAddr == "" {
			t.Errorf("%+v says too little", info)
		}
		if opens(t, st, info.ID.String()) || opens(t, st, session2.EncodeToken(info.ID, [32]byte{})) {
			t.Error("what is shown of a session opens it")
		}
		if info.ID != mine {
			testsite.Must(t, st.M.Revoke(t.Context(), info.ID))
		}
	}
	if n != 2 || st.UserOf(a) != "alice" || st.UserOf(b) != "" {
		t.Errorf("%d sessions listed; users %q and %q", n, st.UserOf(a), st.UserOf(b))
	}
}

func TestASVS_7_6_1_ASessionEndsWithTheIdentityProviders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{})
		exp := time.Now().Add(20 * time.Minute) // of the provider's token
		b := &testsite.Browser{}
		st.Visit(b, page(func(s *session2.Session) {
			s.SetUser("alice")
			s.SetLifetime(time.Until(exp))
		}))
		for time.Until(exp) > 0 {
			if st.UserOf(b) != "alice" {
				t.Fatal("it ended early")
			}
			time.Sleep(5 * time.Minute)
		}
		if st.UserOf(b) != "" {
			t.Error("it has outlived the provider's session")
		}
	})
}

func TestASVS_7_6_2_NoSessionWithoutTheUsersDoing(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	res := st.Visit(b, page(func(s *session2.Session) { s.User(); s.Get("k"); s.Keys(); s.Flashes() }))
	if len(res.Cookies()) != 0 || store.Calls() != 0 {
		t.Errorf("a visit that changes nothing: %d cookies, %d store calls", len(res.Cookies()), store.Calls())
	}
}

// ASVS, other chapters

func TestASVS_3_3_1_TheCookieIsSecureAndItsPrefixSaysSo(t *testing.T) {
	line := setCookieLine(t, newSite(t, session2.Config{}).Do(&testsite.Browser{}, func(s *session2.Session) { s.SetUser("a") }))
	if !strings.HasPrefix(line, "__Host-") || !strings.Contains(line, "; Secure") {
		t.Errorf("Set-Cookie: %s", line)
	}
	store := session2.NewMemoryStore()
	for _, name := range []string{"__Host-x", "__Secure-x", "__hOST-x"} { // development is asked for by name, without a prefix
		cfg := session2.Config{Cookie: session2.CookieConfig{Name: name, Insecure: true}}
		if _, err := session2.NewManager(store, cfg); err == nil {
			t.Errorf("%s without Secure is not refused", name)
		}
	}
}

func TestASVS_3_3_2_SameSiteIsAlwaysWritten(t *testing.T) {
	for same, want := range map[http.SameSite]string{0: "Lax", http.SameSiteDefaultMode: "", http.SameSiteLaxMode: "Lax",
		http.SameSiteStrictMode: "Strict", http.SameSiteNoneMode: "None"} {
		cfg := session2.Config{Cookie: session2.CookieConfig{SameSite: same}}
		m, err := session2.NewManager(session2.NewMemoryStore(), cfg)
		if want == "" { // which writes none
			if err == nil {
				t.Error("the browser's own default is not refused")
			}
			continue
		}
		testsite.Must(t, err)
		w := httptest.NewRecorder()
		m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.Session(r).SetUser("alice")
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if line := setCookieLine(t, w.Result()); !strings.Contains(line, "; SameSite="+want) {
			t.Errorf("Set-Cookie: %s", line)
		}
	}
}

func TestASVS_3_3_3_TheHostPrefixIsTheDefaultAndExcludesADomain(t *testing.T) {
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{})
	testsite.Must(t, err)
	if name := session2.Effective(m).Cookie.Name; name != "__Host-session" {
		t.Errorf("the cookie's name is %s", name)
	}
	cfg := session2.Config{Cookie: session2.CookieConfig{Name: "__Host-session", Domain: "example.com"}}
	if _, err := session2.NewManager(session2.NewMemoryStore(), cfg); err == nil {
		t.Error("a Domain with __Host- is not refused")
	}
}

func TestASVS_3_3_4_NoScriptReadsTheToken(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := &testsite.Browser{}
	w := httptest.NewRecorder()
	st.Handler(page(func(s *session2.Session) { s.SetUser("alice") })).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	b.Receive(w.Result())
	if !strings.Contains(setCookieLine(t, w.Result()), "; HttpOnly") {
		t.Error("the cookie is not HttpOnly")
	}
	for name, lines := range w.Result().Header {
		if name != "Set-Cookie" && strings.Contains(strings.Join(lines, " "), b.Token()) {
			t.Errorf("the token is in %s", name)
		}
	}
	if strings.Contains(w.Body.String(), b.Token()) {
		t.Error("the token is in the body")
	}
}

func TestASVS_3_3_5_TheCookieFitsIntoEveryBrowser(t *testing.T) {
	long := session2.CookieConfig{Name: strings.Repeat("n", 1024), Path: "/" + strings.Repeat("p", 1023),
		Domain: strings.TrimSuffix(strings.Repeat("d.", 120), ".")}
	st := newSite(t, session2.Config{Cookie: long})
	res := st.Do(&testsite.Browser{}, func(s *session2.Session) {
		s.SetUser(strings.Repeat("u", 1024))
		s.Set("k", strings.Repeat("v", 100_000))
	})
	line := setCookieLine(t, res)
	for i, part := range strings.Split(line, "; ") {
		if limit := 1024 + 5; i > 0 && len(part) > limit || i == 0 && len(part) > 4096 { // with "Path="
			t.Errorf("part %d of the cookie has %d bytes", i, len(part))
		}
	}
	long.Path += "p"
	if _, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Cookie: long}); err == nil {
		t.Error("an attribute of more than 1024 bytes is not refused")
	}
}

func TestASVS_3_5_1_To_3_5_3_CrossSiteRequestsChangeNothing(t *testing.T) {
	st := newSite(t, session2.Config{})
	h := http.NewCrossOriginProtection().Handler(st.Handler(page(func(s *session2.Session) { s.Set("paid", true) })))
	b := st.Login("alice")
	send := func(site string) int {
		r := httptest.NewRequest("POST", "https://example.com/pay", nil)
		r.Header.Set("Sec-Fetch-Site", site)
		b.Send(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	if code := send("cross-site"); code != http.StatusForbidden || st.Stored(b, "paid") != nil {
		t.Errorf("a request from another site has status %d", code)
	}
	if code := send("same-origin"); code != http.StatusOK || st.Stored(b, "paid") != true {
		t.Errorf("a request from the site itself has status %d", code)
	}
}

func TestASVS_11_4_1_NothingButAHashOfTheSecretIsStored(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	id, secret, _ := strings.Cut(b.Token(), ".")
	rec := testsite.RecordsOf(t, store)[0]
	if rec.ID.String() != id || bytes.Contains(rec.Data, []byte(secret)) {
		t.Error("the record holds the secret")
	}
	for i := 0; i+32 <= len(rec.Data); i++ {
		if opens(t, st, session2.EncodeToken(rec.ID, [32]byte(rec.Data[i:i+32]))) {
			t.Fatal("what the record holds opens the session")
		}
	}
}

func TestASVS_11_5_1_NoTwoTokensHaveAnythingInCommon(t *testing.T) {
	st := newSite(t, session2.Config{})
	seen := map[string]bool{}
	for range 500 {
		id, secret, _ := strings.Cut(st.Login("alice").Token(), ".")
		for _, part := range []string{id[:16], id[16:], secret[:20], secret[20:]} { // no time, no node, no counter
			if seen[part] {
				t.Fatalf("two tokens share %d characters", len(part))
			}
			seen[part] = true
		}
	}
}

func TestASVS_14_2_1_TokensAreTakenFromCookiesAlone(t *testing.T) {
	st := newSite(t, session2.Config{})
	token := st.Login("alice").Token()
	form := url.Values{"__Host-session": {token}, "session": {token}, "token": {token}}
	r := httptest.NewRequest("POST", "/"+token+"?"+form.Encode(), strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("X-Session", token)
	w := httptest.NewRecorder()
	st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if s.User() != "" {
			t.Error("a token outside of the cookie opens the session")
		}
		s.Flash("none")
		http.Redirect(w, r, "/next", http.StatusSeeOther)
	}).ServeHTTP(w, r)
	if location := w.Header().Get("Location"); location != "/next" {
		t.Errorf("Location: %s", location)
	}
}

func TestASVS_14_2_7_EveryRecordHasAnEndAndIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		st.Login("alice")
		st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("cart", "book") })
		st.Do(&testsite.Browser{}, func(s *session2.Session) { s.SetUser("bob"); s.Remember(10 * time.Hour) })
		for _, rec := range testsite.RecordsOf(t, store) {
			if left := time.Until(rec.Expires); left <= 0 || left > 10*time.Hour {
				t.Errorf("a record ends in %v", left)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- st.M.Cleanup(ctx, time.Minute) }()
		time.Sleep(31 * time.Minute) // the bound: IdleTimeout and the interval
		if n := records(t, store); n != 1 {
			t.Errorf("%d records after the idle limit", n)
		}
		time.Sleep(10 * time.Hour)
		if n := records(t, store); n != 0 {
			t.Errorf("%d records after all limits", n)
		}
		cancel()
		<-done
	})
}

func TestASVS_14_3_1_ALogoutClearsTheBrowser(t *testing.T) {
	st := newSite(t, session2.Config{ClearSiteData: true})
	res := st.Visit(st.Login("alice"), page(func(s *session2.Session) { s.Destroy() }))
	if got := res.Header.Get("Clear-Site-Data"); got != `"cache", "cookies", "storage"` {
		t.Errorf("Clear-Site-Data: %s", got)
	}
}

func TestASVS_14_2_2_And_14_3_2_NoCacheKeepsATokensResponse(t *testing.T) {
	for own, want := range map[string]string{"": "no-store", "public, max-age=60": "no-store", "private": "private",
		"no-store, private": "no-store, private"} {
		st := newSite(t, session2.Config{})
		res := st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.SetUser("alice")
			if own != "" {
				w.Header().Set("Cache-Control", own)
			}
			io.WriteString(w, "Welcome.")
		})
		if got := res.Header.Get("Cache-Control"); got != want {
			t.Errorf("Cache-Control %q becomes %q, want %q", own, got, want)
		}
	}
}

func TestASVS_15_4_1_To_15_4_4_CheckAndActIsOneStep(t *testing.T) {
	st := newSite(t, session2.Config{CommitTimeout: time.Minute})
	b := &testsite.Browser{}
	var token string
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	const n = 16
	spent := make(chan bool, n)
	for range n {
		go func() {
			st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				ok, err := s.UseFormToken(r.Context(), token)
				spent <- ok && err == nil
				io.WriteString(w, "done")
			})
		}()
	}
	count := 0
	for range n {
		if <-spent {
			count++
		}
	}
	if count != 1 {
		t.Errorf("a form token is spent %d times", count)
	}
}

func TestASVS_16_2_1_And_16_2_2_EventsSayWhoWhatAndWhen(t *testing.T) {
	log := &testsite.Log{}
	st := newSite(t, session2.Config{Logger: log.Logger()})
	b := st.Login("alice")
	var id session2.ID
	st.Visit(b, page(func(s *session2.Session) { id = s.ID(); s.Destroy() }))
	for _, want := range []string{"created", "destroyed"} {
		line := regexp.MustCompile(`(?m)^time=\S+ level=DEBUG msg="session2: ` + want + `" session=` + id.String() + ` user=alice$`)
		if !line.MatchString(log.String()) {
			t.Errorf("no line about %s in\n%s", want, log)
		}
	}
}

func TestASVS_16_2_5_NoSecretIsLogged(t *testing.T) {
	log := &testsite.Log{}
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{Logger: log.Logger(), CommitTimeout: testsite.TinyTimeout,
		Anomalies: true})
	b := st.Login("alice")
	_, secret, _ := strings.Cut(b.Token(), ".")
	st.Do(b, func(s *session2.Session) { s.Set("pin", "attribute-4711") })
	st.Cookies([]string{b.Token()[:60], b.Token() + "x"}, user)
	st.Cookies([]string{b.Token()}, func(s *session2.Session) { s.Set("f", func() {}); fmt.Fprint(log, s, s.Err()) })
	store.FailSave.Store(true)
	st.Do(b, func(s *session2.Session) {
		s.Set("pin", "attribute-4712")
		s.Commit(t.Context())
		fmt.Fprint(log, s.Err())
	})
	store.FailSave.Store(false)
	st.Do(b, func(s *session2.Session) { s.Renew(); s.Destroy() })
	for _, bad := range []string{secret[:20], "attribute"} {
		if strings.Contains(log.String(), bad) {
			t.Errorf("a secret is in the log:\n%s", log)
		}
	}
	if log.String() == "" {
		t.Error("nothing was logged")
	}
}

func TestASVS_16_3_1_And_16_3_3_And_16_3_4_EachStepOfASessionsLifeIsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{RenewEvery: time.Minute, RenewGrace: 10 * time.Second})
		login := func(s *session2.Session) { s.SetUser("alice") }
		b := st.Login("alice")
		once := func(kind session2.EventKind, f func()) {
			t.Helper()
			n := st.M.Count(kind)
			f()
			if got := st.M.Count(kind) - n; got != 1 {
				t.Errorf("%d events of the kind %v, want 1", got, kind)
			}
		}
		once(session2.EventCreated, func() { st.Login("alice") })
		once(session2.EventRenewed, func() { st.Do(b, login) })
		once(session2.EventDestroyed, func() { st.Do(b.Clone(), func(s *session2.Session) { s.Destroy() }) })
		once(session2.EventUnknown, func() { st.Do(b.Clone(), user) })
		once(session2.EventMalformed, func() { st.Cookies([]string{"none"}, user) })
		b = st.Login("alice")
		once(session2.EventRevoked, func() {
			st.Do(b, func(s *session2.Session) { testsite.Must(t, st.M.Revoke(t.Context(), s.ID())) })
		})
		b = st.Login("alice")
		once(session2.EventStoreError, func() {
			store.FailLoad.Store(true)
			st.Do(b, user)
			store.FailLoad.Store(false)
		})
		old := b.Clone()
		time.Sleep(time.Minute)
		once(session2.EventRenewed, func() { st.Do(b, user) })
		st.Do(b, user) // seen
		time.Sleep(time.Minute)
		once(session2.EventReuse, func() { st.Do(old, user) })
		b = st.Login("alice")
		time.Sleep(time.Hour)
		once(session2.EventExpired, func() { st.Do(b, user) })
	})
}

func TestASVS_16_4_1_WhatAClientSendsIsNotLogged(t *testing.T) {
	log := &testsite.Log{}
	st := newSite(t, session2.Config{Logger: log.Logger()})
	st.Cookies([]string{"evil%0alevel=ERROR", "evil\x01", strings.Repeat("evil", 100)}, user)
	if st.M.Count(session2.EventMalformed) == 0 || strings.Contains(log.String(), "evil") {
		t.Errorf("the log is\n%s", log)
	}
}

func TestASVS_16_5_1_To_16_5_3_AStoreThatFailsLetsNobodyIn(t *testing.T) {
	for name, fail := range map[string]func(*testsite.Brittle) func(bool){
		"load": func(b *testsite.Brittle) func(bool) { return b.FailLoad.Store },
		"save": func(b *testsite.Brittle) func(bool) { return b.FailSave.Store },
	} {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout})
		b := st.Login("alice")
		fail(store)(true)
		r := httptest.NewRequest("GET", "/", nil)
		b.Send(r)
		w := httptest.NewRecorder()
		st.Handler(page(func(s *session2.Session) { s.SetUser("mallory") })).ServeHTTP(w, r)
		fail(store)(false)
		if w.Code != 503 || strings.Contains(w.Body.String(), "mallory") || strings.Contains(w.Body.String(), "down") ||
			w.Header().Get("Set-Cookie") != "" {
			t.Errorf("%s: status %d: %s", name, w.Code, w.Body)
		}
	}
}

func TestASVS_1_5_2_DamagedBytesAreRefusedWithoutAPanic(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.SetLevel(2); s.Set("k", profile{}) })
	rec := testsite.RecordsOf(t, store)[0]
	for i := range rec.Data {
		for _, data := range [][]byte{rec.Data[:i], append(bytes.Clone(rec.Data[:i]), 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)} {
			damaged := rec
			damaged.Data = data
			if _, err := session2.Inspect(damaged); err != nil && !errors.Is(err, session2.ErrCorrupt) {
				t.Errorf("%d bytes: %v", i, err)
			}
		}
	}
	rec.Data, rec.Version = rec.Data[:len(rec.Data)-1], rec.Version+1
	testsite.Must(t, store.Delete(t.Context(), rec.ID))
	testsite.Must(t, store.Save(t.Context(), rec, 0))
	if st.UserOf(b) != "" || st.M.Count(session2.EventCorrupt) != 1 {
		t.Error("a damaged record opens a session")
	}
}

func TestASVS_2_3_3_And_2_3_4_ARequestsChangesAreAllStoredOrNone(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := st.Login("alice")
	change := func(s *session2.Session) {
		s.Set("from", 90)
		s.Set("to", 110)
		s.Flash("Paid.")
	}
	for _, fail := range []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(500) },
		func(w http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		testsite.RecordPanics(st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			change(s)
			fail(w)
		}), b)
		st.Do(b, func(s *session2.Session) {
			if len(s.Keys()) != 0 {
				t.Errorf("a failed request has left %v", s.Keys())
			}
		})
	}
	st.Visit(b, page(change))
	st.Do(b, func(s *session2.Session) {
		if s.Get("from") != 90 || s.Get("to") != 110 || len(s.Flashes()) != 1 {
			t.Error("not all was stored")
		}
	})
}

func TestASVS_8_2_4_ASessionUsedFromElsewhereIsAnEvent(t *testing.T) {
	st := newSite(t, session2.Config{Anomalies: true})
	b := st.Login("alice")
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "203.0.113.9:1"
	b.Send(r)
	st.Handler(page(func(s *session2.Session) { s.Get("k") })).ServeHTTP(httptest.NewRecorder(), r)
	if n := st.M.Count(session2.EventAnomaly); n != 1 {
		t.Errorf("%d events", n)
	}
	if st.UserOf(b) != "alice" {
		t.Error("it ends the session: that is the application's to decide")
	}
}

func TestASVS_8_3_2_AChangeOfPrivilegesReachesRunningSessions(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := st.Login("alice")
	var early, late error
	st.During(b, func(s *session2.Session) { early = s.Check(t.Context()) }, func() {
		_, err := st.M.RevokeUser(t.Context(), "alice")
		testsite.Must(t, err)
	}, func(s *session2.Session) { late = s.Check(t.Context()) })
	if early != nil || !errors.Is(late, session2.ErrNotFound) || st.UserOf(b) != "" {
		t.Errorf("Check = %v, then %v", early, late)
	}
}

func TestASVS_10_4_5_And_10_4_8_AReplacedTokensReuseEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{RenewEvery: 5 * time.Minute, Lifetime: time.Hour})
		b := st.Login("alice")
		thief := b.Clone()
		time.Sleep(6 * time.Minute)
		st.UserOf(b) // replaced
		st.UserOf(b) // and seen
		time.Sleep(time.Minute)
		if st.UserOf(thief) != "" || st.UserOf(b) != "" || st.M.Count(session2.EventReuse) != 1 {
			t.Error("both holders of the cookie go on")
		}
		c := st.Login("alice")
		for range 13 {
			time.Sleep(5 * time.Minute)
			st.UserOf(c)
		}
		if st.UserOf(c) != "" {
			t.Error("rotation has extended the session")
		}
	})
}
