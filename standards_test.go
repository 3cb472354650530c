package session2_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
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
	st := newSite(t, session2.Config{})
	line := setCookieLine(t, st.Do(&testsite.Browser{}, func(s *session2.Session) { s.SetUser("a") }))
	if !strings.HasPrefix(line, "__Host-") || !strings.Contains(line, "; Secure") {
		t.Errorf("Set-Cookie: %s", line)
	}
	store := session2.NewMemoryStore()
	for _, name := range []string{"__Host-x", "__Secure-x", "__hOST-x"} { // development is asked for, without a prefix
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
		line := regexp.MustCompile(`(?m)^time=\S+ level=DEBUG msg="session2: ` + want + `" session=` + id.String() +
			` user=alice$`)
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
	r := httptest.NewRequest("GET", "http://evil.example/evil?evil", nil)
	r.Header.Set("User-Agent", "evil")
	mux := http.NewServeMux()
	mux.HandleFunc("/{page}", func(w http.ResponseWriter, r *http.Request) {
		st.M.Session(r).Set("k", 1) // over plain HTTP
		w.WriteHeader(http.StatusOK)
		st.M.Session(r).SetUser("late")
	})
	mux.HandleFunc("/late/{page}", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		st.M.Session(r).User()
	})
	for _, path := range []string{"/evil", "/late/evil"} {
		r.URL.Path = path
		st.M.Wrap(mux).ServeHTTP(httptest.NewRecorder(), r)
	}
	if st.M.Count(session2.EventMalformed) == 0 || strings.Contains(log.String(), "evil") ||
		!strings.Contains(log.String(), "request=/{page}") {
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

// The OWASP Session Management Cheat Sheet

func TestOWASP_O1_TheCookiesNameSaysNothingOfTheProgram(t *testing.T) {
	st := newSite(t, session2.Config{})
	res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.SetUser("alice") })
	name := strings.ToLower(res.Cookies()[0].Name)
	for _, tell := range []string{"session2", "go", "sid", "sess2"} {
		if strings.Contains(name, tell) {
			t.Errorf("the cookie's name is %s", name)
		}
	}
}

func TestOWASP_O2_IDsAreUniqueAndLong(t *testing.T) {
	st := newSite(t, session2.Config{})
	ids := map[session2.ID]bool{}
	for range 300 {
		st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("k", 1); ids[s.ID()] = true })
	}
	if len(ids) != 300 || len(session2.ID{})*8 < 128 {
		t.Errorf("%d IDs of 300 sessions", len(ids))
	}
}

func TestOWASP_O3_ATokenCarriesNoMeaning(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Set("k", 1) })
	one := b.Token()
	if !regexp.MustCompile(`^[0-9a-f]{32}\.[\w-]{43}$`).MatchString(one) || strings.Contains(one, "alice") {
		t.Error("the token is more than random characters")
	}
	st.Do(b, func(s *session2.Session) { s.Set("k", strings.Repeat("v", 10_000)) })
	if b.Token() != one {
		t.Error("the token depends on what the session holds")
	}
}

func TestOWASP_O4_OnlyCookiesAreTaken(t *testing.T) {
	st := newSite(t, session2.Config{})
	token := st.Login("alice").Token()
	for _, name := range []string{"session", "__host-session", "__Host-session2", "Session"} {
		st.Request([]string{name + "=" + token}, func(s *session2.Session) {
			if s.User() != "" {
				t.Errorf("a cookie of the name %s opens the session", name)
			}
		})
	}
}

func TestOWASP_O5_TheCookiesAttributesAreTheSafeOnes(t *testing.T) {
	st := newSite(t, session2.Config{})
	c := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.SetUser("alice") }).Cookies()[0]
	if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Domain != "" || c.Path != "/" {
		t.Errorf("Set-Cookie: %s", c.Raw)
	}
	insecure := session2.CookieConfig{SameSite: http.SameSiteNoneMode, Insecure: true}
	if _, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Cookie: insecure}); err == nil {
		t.Error("SameSite=None without Secure is not refused")
	}
}

func TestOWASP_O6_TheCookieGoesWithTheBrowser(t *testing.T) {
	st := newSite(t, session2.Config{})
	line := setCookieLine(t, st.Do(&testsite.Browser{}, func(s *session2.Session) { s.SetUser("alice") }))
	if strings.Contains(line, "Max-Age") || strings.Contains(line, "Expires") {
		t.Errorf("Set-Cookie: %s", line)
	}
	remember := func(s *session2.Session) { s.SetUser("alice"); s.Remember(time.Hour) }
	line = setCookieLine(t, st.Do(&testsite.Browser{}, remember))
	if !strings.Contains(line, "Max-Age=3") {
		t.Errorf("to be remembered: %s", line)
	}
}

func TestOWASP_O7_AnUnknownIDIsNeverAdopted(t *testing.T) {
	st := newSite(t, session2.Config{})
	planted := session2.EncodeToken(session2.ID{1, 2, 3}, [32]byte{4, 5, 6})
	res := st.Cookies([]string{planted}, func(s *session2.Session) { s.SetUser("alice") })
	b := &testsite.Browser{}
	b.Receive(res)
	if id, _, _ := strings.Cut(planted, "."); b.Token() == "" || strings.HasPrefix(b.Token(), id) {
		t.Error("the planted ID was adopted")
	}
	if opens(t, st, planted) || st.M.Count(session2.EventUnknown) == 0 {
		t.Error("the planted token opens a session, or raises no event")
	}
}

func TestOWASP_O8_AnIDIsCheckedBeforeTheStoreIsAsked(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	for _, bad := range []string{"", "x", "../../etc/passwd", "' OR 1=1 --",
		strings.Repeat("a", 76), strings.Repeat("0", 5000),
		strings.Repeat("A", 32) + "." + strings.Repeat("A", 43), strings.Repeat("0", 32) + "." + strings.Repeat("=", 43)} {
		st.Cookies([]string{bad}, user)
	}
	if n := store.Calls(); n != 0 {
		t.Errorf("%d store calls for what is no token", n)
	}
}

func TestOWASP_O9_TheTokenIsRenewedWithEachChangeOfPrivileges(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	for _, change := range []func(s *session2.Session){
		func(s *session2.Session) { s.SetUser("alice") },
		func(s *session2.Session) { s.SetLevel(2) },
		func(s *session2.Session) { s.SetLevel(1) },
		func(s *session2.Session) { s.SetUser("bob") },
		func(s *session2.Session) { s.SetUser(""); s.Set("cart", "pen") },
	} {
		old := b.Token()
		st.Visit(b, page(change))
		if b.Token() == old || opens(t, st, old) {
			t.Error("a change of privileges leaves the token")
		}
	}
}

func TestOWASP_O10_AnotherCookieAfterTheLogin(t *testing.T) {
	store := session2.NewMemoryStore()
	before := testsite.NewSite(t, store, session2.Config{Cookie: session2.CookieConfig{Name: "__Host-a"}})
	after := testsite.NewSite(t, store, session2.Config{Realm: "in", Cookie: session2.CookieConfig{Name: "__Host-b"}})
	h := before.M.Wrap(after.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before.M.Session(r).Set("cart", "book")
		after.M.Session(r).SetUser("alice")
	})))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	names := map[string]string{}
	for _, c := range w.Result().Cookies() {
		names[c.Name] = c.Value
	}
	if len(names) != 2 || opens(t, before, names["__Host-b"]) || opens(t, after, names["__Host-a"]) {
		t.Errorf("%d cookies; one of them opens the other's session", len(names))
	}
}

func TestOWASP_O11_TwoCookiesOfOneNameAreBothJudged(t *testing.T) {
	st := newSite(t, session2.Config{})
	alice, bob := st.Login("alice").Token(), st.Login("bob").Token()
	for _, order := range [][]string{{alice, bob}, {bob, alice}} {
		n := st.M.Count(session2.EventMalformed)
		st.Cookies(order, func(s *session2.Session) {
			if s.User() != "" {
				t.Errorf("one of two is preferred: %s", s.User())
			}
		})
		if st.M.Count(session2.EventMalformed) != n+1 {
			t.Error("no event")
		}
	}
	st.Cookies([]string{"tossed-in", alice}, func(s *session2.Session) {
		if s.User() != "alice" {
			t.Error("a cookie tossed in beside it locks the user out")
		}
	})
}

func TestOWASP_O12_TheDefaultLimitsAreModerate(t *testing.T) {
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{})
	testsite.Must(t, err)
	if c := session2.Effective(m); c.IdleTimeout > 30*time.Minute || c.Lifetime > 24*time.Hour {
		t.Errorf("idle %v, absolute %v", c.IdleTimeout, c.Lifetime)
	}
	if c := session2.AAL3(); c.IdleTimeout > 15*time.Minute || c.Lifetime > 12*time.Hour {
		t.Errorf("AAL3: idle %v, absolute %v", c.IdleTimeout, c.Lifetime)
	}
}

func TestOWASP_O13_ARenewedTokenHasASafetyInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{RenewEvery: 5 * time.Minute, RenewGrace: 20 * time.Second, KeepOnReuse: true})
		b := st.Login("alice")
		old := b.Clone()
		time.Sleep(5 * time.Minute)
		st.UserOf(b)
		st.UserOf(b) // the successor is seen
		time.Sleep(19 * time.Second)
		if st.UserOf(old.Clone()) != "alice" {
			t.Error("a request that was under way has lost its session")
		}
		time.Sleep(2 * time.Second)
		if st.UserOf(old.Clone()) != "" {
			t.Error("the old token outlives its interval")
		}
	})
}

func TestOWASP_O14_TheServerEnforcesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Remember(time.Hour) })
		time.Sleep(time.Hour) // the browser has the cookie on
		if opens(t, st, b.Token()) || st.M.Count(session2.EventExpired) != 1 {
			t.Error("the session lives as long as the cookie is kept")
		}
	})
}

func TestOWASP_O15_ALogoutEndsTheSessionAndItsCookie(t *testing.T) {
	for _, cookie := range []session2.CookieConfig{{}, {Domain: "example.com"}, {Path: "/app"}, {Partitioned: true}} {
		st := newSite(t, session2.Config{Cookie: cookie})
		b := &testsite.Browser{}
		set := st.Do(b, func(s *session2.Session) { s.SetUser("alice") }).Cookies()[0]
		token := b.Token()
		gone := st.Visit(b, page(func(s *session2.Session) { s.Destroy() })).Cookies()[0]
		if gone.Name != set.Name || gone.Domain != set.Domain || gone.Path != set.Path ||
			gone.MaxAge >= 0 || gone.Value != "" ||
			gone.Secure != set.Secure || gone.Partitioned != set.Partitioned {
			t.Errorf("the cookie %s is revoked by %s", set.Raw, gone.Raw)
		}
		if opens(t, st, token) {
			t.Error("the session lives on")
		}
	}
}

func TestOWASP_O16_ResponsesWithATokenAreNotStored(t *testing.T) {
	st := newSite(t, session2.Config{ClearSiteData: true})
	b := &testsite.Browser{}
	for _, f := range []func(s *session2.Session){
		func(s *session2.Session) { s.SetUser("alice") },
		func(s *session2.Session) { s.Renew() },
		func(s *session2.Session) { s.Destroy() },
	} {
		if res := st.Visit(b, page(f)); res.Header.Get("Cache-Control") != "no-store" || len(res.Cookies()) != 1 {
			t.Errorf("Cache-Control: %s", res.Header.Get("Cache-Control"))
		}
	}
}

func TestOWASP_O17_ARiskAsksForAnotherAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{})
		transfer := func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			if s.Level() < 2 || !s.AuthenticatedWithin(5*time.Minute) {
				http.Redirect(w, r, "/second-factor", http.StatusSeeOther)
				return
			}
			io.WriteString(w, "Done.")
		}
		b := st.Login("alice")
		if res := st.Visit(b, transfer); res.StatusCode != http.StatusSeeOther {
			t.Error("a password is enough")
		}
		st.Do(b, func(s *session2.Session) { s.SetLevel(2) })
		if res := st.Visit(b, transfer); res.StatusCode != http.StatusOK {
			t.Error("a second factor is not enough")
		}
		time.Sleep(5 * time.Minute)
		if res := st.Visit(b, transfer); res.StatusCode != http.StatusSeeOther {
			t.Error("an old second factor is enough")
		}
	})
}

func TestOWASP_O18_GuessesAreCounted(t *testing.T) {
	st := newSite(t, session2.Config{})
	for i := range 50 {
		st.Cookies([]string{session2.EncodeToken(session2.ID{byte(i)}, [32]byte{})}, user)
		st.Cookies([]string{fmt.Sprint("guess", i)}, user)
	}
	if u, m := st.M.Count(session2.EventUnknown), st.M.Count(session2.EventMalformed); u != 50 || m != 50 {
		t.Errorf("%d unknown and %d malformed of 50 each", u, m)
	}
}

func TestOWASP_O19_AnomaliesAreTheApplicationsToJudge(t *testing.T) {
	var m *session2.Manager
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Anomalies: true,
		OnEvent: func(ctx context.Context, e session2.Event) {
			if e.Kind == session2.EventAnomaly && errors.Is(e.Err, session2.ErrOtherAgent) {
				session2.FromContext(ctx).Destroy()
			}
		}})
	testsite.Must(t, err)
	st := &testsite.Site{T: t, M: m}
	b := st.Login("alice")
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", "another")
	b.Send(r)
	st.Handler(page(user)).ServeHTTP(httptest.NewRecorder(), r)
	if st.UserOf(b) != "" {
		t.Error("the application's callback could not end the session")
	}
}

func TestOWASP_O20_TheLogNamesASessionByWhatOpensNothing(t *testing.T) {
	log := &testsite.Log{}
	st := newSite(t, session2.Config{Logger: log.Logger()})
	st.Login("alice")
	logged := regexp.MustCompile(`session=([0-9a-f]{32})`).FindStringSubmatch(log.String())
	if len(logged) != 2 {
		t.Fatalf("the log is\n%s", log)
	}
	if opens(t, st, logged[1]) || opens(t, st, logged[1]+"."+strings.Repeat("A", 43)) {
		t.Error("what the log says opens the session")
	}
}

func TestOWASP_O21_SimultaneousSessionsAreListedLimitedAndEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{MaxPerUser: 2})
		for range 5 {
			st.Login("alice")
			time.Sleep(time.Second)
		}
		list := liveSessions(t, st.M, "alice")
		if len(list) != 2 {
			t.Fatalf("%d sessions at once", len(list))
		}
		testsite.Must(t, st.M.Revoke(t.Context(), list[0]))
		if n := len(liveSessions(t, st.M, "alice")); n != 1 {
			t.Errorf("%d sessions after one was ended", n)
		}
	})
}

func TestOWASP_O23_TheStoreHoldsAHashOfTheSecret(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	secrets := []string{b.Token()}
	st.Do(b, func(s *session2.Session) { s.Renew() })
	secrets = append(secrets, b.Token())
	rec := testsite.RecordsOf(t, store)[0]
	for i, token := range secrets {
		_, secret, _ := strings.Cut(token, ".")
		raw, err := base64.RawURLEncoding.DecodeString(secret)
		testsite.Must(t, err)
		sum := sha256.Sum256(raw)
		if bytes.Contains(rec.Data, raw) || !bytes.Contains(rec.Data, sum[:]) {
			t.Errorf("token %d: the record holds the secret, or not its hash", i)
		}
	}
}

// NIST SP 800-63B-4

func TestNIST_5_1_1_TheSecretIsMadeByTheAuthentication(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	before := b.Token()
	st.Visit(b, page(func(s *session2.Session) { s.SetUser("alice") }))
	if _, was, _ := strings.Cut(before, "."); strings.Contains(b.Token(), was) || opens(t, st, before) {
		t.Error("the secret from before the login is the session's")
	}
}

func TestNIST_5_1_2_TheSecretIsLong(t *testing.T) {
	_, secret, _ := strings.Cut(newSite(t, session2.Config{}).Login("alice").Token(), ".")
	raw, err := base64.RawURLEncoding.DecodeString(secret)
	if err != nil || len(raw)*8 < 64 {
		t.Errorf("%d bits, %v", len(raw)*8, err)
	}
}

func TestNIST_5_1_3_ALogoutInvalidatesTheSecret(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := st.Login("alice")
	token := b.Token()
	logout := st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Destroy() }) // one line
	r := httptest.NewRequest("POST", "/logout", nil)
	b.Send(r)
	logout.ServeHTTP(httptest.NewRecorder(), r)
	if opens(t, st, token) {
		t.Error("the secret is valid after the logout")
	}
}

func TestNIST_5_1_4_TheSecretGoesOverTLSAlone(t *testing.T) {
	log := &testsite.Log{}
	st := newSite(t, session2.Config{Logger: log.Logger()})
	r := httptest.NewRequest("GET", "http://example.com/", nil)
	w := httptest.NewRecorder()
	st.Handler(page(func(s *session2.Session) { s.SetUser("alice") })).ServeHTTP(w, r)
	// The browser refuses it by __Host- and Secure, and the log says so.
	line := setCookieLine(t, w.Result())
	if !strings.HasPrefix(line, "__Host-") || !strings.Contains(line, "; Secure") ||
		!strings.Contains(log.String(), "over plain HTTP") {
		t.Errorf("Set-Cookie: %s; the log: %s", line, log)
	}
}

func TestNIST_5_1_5_TheSecretTimesOut(t *testing.T) {
	for _, limits := range []session2.Config{{Lifetime: time.Hour, IdleTimeout: -1}, {IdleTimeout: time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			st := newSite(t, limits)
			b := st.Login("alice")
			time.Sleep(time.Hour - time.Second)
			if !opens(t, st, b.Token()) {
				t.Error("it ended early")
			}
			time.Sleep(time.Second)
			if opens(t, st, b.Token()) {
				t.Error("it is accepted after its limit")
			}
		})
	}
}

func TestNIST_5_1_6_NoIntermediaryLearnsTheSecret(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := st.Login("alice")
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/next?id="+s.ID().String(), http.StatusSeeOther)
	})
	_, secret, _ := strings.Cut(b.Token(), ".")
	if strings.Contains(fmt.Sprint(res.Header), secret) {
		t.Error("the secret is in a header that nobody asked for")
	}
}

func TestNIST_5_1_FormsCarryATokenOfTheSession(t *testing.T) {
	st := newSite(t, session2.Config{})
	b, other := st.Login("alice"), st.Login("mallory")
	var token, foreign string
	st.Do(b, func(s *session2.Session) { token = s.CSRFToken() })
	st.Do(other, func(s *session2.Session) { foreign = s.CSRFToken() })
	for tok, want := range map[string]bool{token: true, foreign: false, "": false} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("X-CSRF-Token", tok)
		st.Do(b, func(s *session2.Session) {
			if s.ValidCSRFToken(r) != want {
				t.Errorf("a token is valid: %t, want %t", !want, want)
			}
		})
	}
}

func TestNIST_5_1_ToBeRememberedIsNoAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Remember(30 * 24 * time.Hour) })
		time.Sleep(7 * 24 * time.Hour)
		st.Do(b, func(s *session2.Session) {
			if s.User() != "alice" || s.AuthenticatedWithin(time.Hour) || s.Level() > 1 {
				t.Error("a cookie that was kept passes for a login")
			}
		})
	})
}

func TestNIST_5_2_OnlyAnAuthenticationResetsBothLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.Config{Lifetime: time.Hour, IdleTimeout: 20 * time.Minute})
		b := st.Login("alice")
		for range 3 {
			time.Sleep(15 * time.Minute)
			st.Visit(b, page(func(s *session2.Session) { s.Renew() }))
		}
		var end time.Time
		st.Do(b, func(s *session2.Session) { end = s.Expires() }) // what a warning would say
		if left := time.Until(end); left > 15*time.Minute || left <= 0 {
			t.Errorf("%v are left after 45 min", left)
		}
		st.Visit(b, page(func(s *session2.Session) { s.SetUser("alice") }))
		for range 3 {
			time.Sleep(15 * time.Minute)
			if st.UserOf(b) != "alice" {
				t.Fatal("to sign in again has not begun the limit anew")
			}
		}
		time.Sleep(15 * time.Minute)
		if st.UserOf(b) != "" {
			t.Error("the overall limit is not kept after a login")
		}
	})
}

func TestNIST_2_ThePresetsKeepTheLimits(t *testing.T) {
	for i, c := range []session2.Config{session2.AAL1(), session2.AAL2(), session2.AAL3()} {
		overall := []time.Duration{30 * 24 * time.Hour, 24 * time.Hour, 12 * time.Hour}[i]
		idle := []time.Duration{-1, time.Hour, 15 * time.Minute}[i]
		if c.Lifetime > overall || c.IdleTimeout > idle {
			t.Errorf("AAL%d: %v overall, %v idle", i+1, c.Lifetime, c.IdleTimeout)
		}
		if _, err := session2.NewManager(session2.NewMemoryStore(), c); err != nil {
			t.Error(err)
		}
	}
}

func TestNIST_5_ASessionsLevelIsNeverAboveItsAuthentication(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := st.Login("alice")
	level := func() (n int) {
		st.Visit(b, page(func(s *session2.Session) { n = s.Level() }))
		return n
	}
	st.Do(b, func(s *session2.Session) { s.SetLevel(2) })
	if level() != 2 {
		t.Error("a second factor is not kept")
	}
	st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
	if level() != 1 {
		t.Error("a password keeps the level of two factors")
	}
}

// Cookies and caches

func TestRFC6265bis_ADeletionMatchesAndMaxAgeIsBounded(t *testing.T) {
	st := newSite(t, session2.Config{})
	line := setCookieLine(t, st.Do(&testsite.Browser{}, func(s *session2.Session) {
		s.SetUser("alice")
		s.Remember(10_000 * 24 * time.Hour)
	}))
	if !strings.Contains(line, fmt.Sprintf("; Max-Age=%d", 400*24*60*60)) {
		t.Errorf("Set-Cookie: %s", line)
	}
}

func TestRFC6265bis_TheHttpPrefixIsOfferedByName(t *testing.T) {
	st := newSite(t, session2.Config{Cookie: session2.CookieConfig{Name: "__Host-Http-session", Partitioned: true}})
	line := setCookieLine(t, st.Do(&testsite.Browser{}, func(s *session2.Session) { s.SetUser("alice") }))
	if !strings.HasPrefix(line, "__Host-Http-session=") || !strings.HasSuffix(line, "; Partitioned") ||
		!strings.Contains(line, "; Path=/; HttpOnly; Secure") {
		t.Errorf("Set-Cookie: %s", line)
	}
	cfg := session2.Config{Cookie: session2.CookieConfig{Partitioned: true, Insecure: true}}
	if _, err := session2.NewManager(session2.NewMemoryStore(), cfg); err == nil {
		t.Error("Partitioned without Secure is not refused")
	}
}

func TestRFC6750_TheTokenIsTheBearersAlone(t *testing.T) {
	st := newSite(t, bearer())
	token := signIn(st, "alice")
	for line, want := range map[string]string{
		"Bearer " + token: "alice", "bearer  " + token: "alice", "Basic " + token: "", token: "",
		"Bearer " + token + ",": "", "Bearer " + token + ", Basic x": "",
	} {
		if user := userBy(st, "Authorization: "+line); user != want {
			t.Errorf("%.10s...: user %q, want %q", line, user, want)
		}
	}
	form := strings.NewReader("access_token=" + token) // RFC 6750, 2.2 and 2.3: neither body nor URL
	r := httptest.NewRequest("POST", "/?access_token="+token, form)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	st.Handler(page(func(s *session2.Session) {
		if s.User() != "" {
			t.Error("a token in the body or the URL opens the session")
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
}

func TestRFC9111_APageThatDependsOnTheSessionSaysSo(t *testing.T) {
	st := newSite(t, session2.Config{})
	b := st.Login("alice")
	if res := st.Visit(b, page(func(s *session2.Session) { s.Get("k") })); res.Header.Get("Vary") != "Cookie" {
		t.Errorf("Vary: %s", res.Header.Get("Vary"))
	}
	res := st.Visit(b, func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "static") })
	if res.Header.Get("Vary") != "" {
		t.Error("a page that does not look at it says that it does")
	}
}

func TestSecurityNamesEachTestHere(t *testing.T) {
	text, err := os.ReadFile("docs/SECURITY.md")
	testsite.Must(t, err)
	source, err := os.ReadFile("standards_test.go")
	testsite.Must(t, err)
	for _, m := range regexp.MustCompile(`(?m)^func (Test(?:ASVS|OWASP|NIST|RFC)\w+)`).FindAllSubmatch(source, -1) {
		if !bytes.Contains(text, append([]byte("`"), append(m[1], '`')...)) {
			t.Errorf("docs/SECURITY.md does not name %s", m[1])
		}
	}
}
