package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
)

// site is the demo over a store, served over HTTP; restart ends both and
// starts them anew.
type site struct {
	t      testing.TB
	url    string // the store's
	store  session2.Store
	server *httptest.Server
}

func newSite(t testing.TB, url string) *site {
	st := &site{t: t, url: url}
	st.start()
	t.Cleanup(st.stop)
	return st
}

func (st *site) start() {
	st.t.Helper()
	store, _, err := openStore(context.Background(), st.url)
	if err != nil {
		st.t.Fatal(err)
	}
	d, err := newDemo(store)
	if err != nil {
		st.t.Fatal(err)
	}
	st.store, st.server = store, httptest.NewServer(d)
}

func (st *site) stop() {
	st.t.Helper()
	st.server.Close()
	if err := session2.Close(st.store); err != nil {
		st.t.Errorf("close: %v", err)
	}
}

// restart does nothing to the memory store, whose sessions end with it.
func (st *site) restart() {
	st.t.Helper()
	if st.url != "memory:" {
		st.stop()
		st.start()
	}
}

func (st *site) base() string { return st.server.URL }

// browser keeps its cookies, and the page that it is on.
type browser struct {
	t      testing.TB
	base   func() string
	client *http.Client
	status int
	body   string
}

func newBrowser(t testing.TB, base func() string) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, base: base, client: &http.Client{Jar: jar}}
}

func (b *browser) do(r *http.Request) {
	b.t.Helper()
	res, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.status, b.body = res.StatusCode, string(body)
}

func (b *browser) get(path string) {
	b.t.Helper()
	r, err := http.NewRequest("GET", b.base()+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.do(r)
}

// request returns the POST of a form of the page that the browser is on.
func (b *browser) request(path string, fields ...string) *http.Request {
	b.t.Helper()
	form := url.Values{}
	if token := b.field("csrf_token"); token != "" {
		form.Set("csrf_token", token)
	}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r, err := http.NewRequest("POST", b.base()+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

// post visits the page and presses a button on it.
func (b *browser) post(path string, fields ...string) {
	b.t.Helper()
	b.get("/")
	b.submit(path, fields...)
}

// submit presses a button on the page that the browser is on.
func (b *browser) submit(path string, fields ...string) {
	b.t.Helper()
	b.do(b.request(path, fields...))
}

// field returns the first hidden field of that name, "" if there is none.
func (b *browser) field(name string) string {
	return find(b.body, `name="`+name+`" value="([^"]*)"`)
}

// shows returns what the page shows, "" if it does not.
func (b *browser) shows(what string) string {
	return find(b.body, `data-is="`+what+`">([^<]*)<`)
}

func find(text, pattern string) string {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

func (b *browser) cookies() int {
	u, err := url.Parse(b.base())
	if err != nil {
		b.t.Fatal(err)
	}
	return len(b.client.Jar.Cookies(u))
}

// want checks the answer's status and then, on the page itself, pairs of what
// it shows and should.
func (b *browser) want(status int, pairs ...string) {
	b.t.Helper()
	if b.status != status {
		b.t.Errorf("status %d, want %d: %s", b.status, status, b.shows("problem"))
	}
	if len(pairs) > 0 {
		b.get("/")
	}
	for i := 0; i < len(pairs); i += 2 {
		if got := b.shows(pairs[i]); got != pairs[i+1] {
			b.t.Errorf("the page shows %s %q, want %q", pairs[i], got, pairs[i+1])
		}
	}
}

func (b *browser) wantCookies(want int) {
	b.t.Helper()
	if got := b.cookies(); got != want {
		b.t.Errorf("the browser has %d cookies, want %d", got, want)
	}
}

// id returns the browser's session's ID.
func (b *browser) id() session2.ID {
	b.t.Helper()
	b.get("/")
	id, err := session2.ParseID(b.shows("id"))
	if err != nil {
		b.t.Fatalf("no session ID on the page: %v", err)
	}
	return id
}

// checks are what a person would try, each with a restart in between.
var checks = []struct {
	name string
	run  func(t *testing.T, st *site, b *browser)
}{
	{"an empty session has no cookie", checkEmpty},
	{"a login creates a session", checkLogin},
	{"a session persists", checkPersists},
	{"the counter counts", checkCounter},
	{"an increment that fails leaves the count", checkIncrementFail},
	{"the details show keys and sizes", checkDetails},
	{"a logout ends the session", checkLogout},
	{"the record is gone after a logout", checkRecordGone},
	{"a form is accepted once", checkForm},
	{"old sessions are deleted", checkDeleteOld},
	{"a record deleted behind the back gives a new session", checkDeletedBehind},
	{"a logout that fails leaves the user logged in", checkLogoutFail},
	{"a logout everywhere ends both browsers' sessions", checkLogoutEverywhere},
	{"a session is ended from the list", checkEnd},
	{"the list is of this realm", checkRealm},
	{"a message is shown once", checkFlash},
	{"a request without a token or from another site is refused", checkForgery},
	{"nonsense is refused", checkNonsense},
	{"a failed request shows before and after", checkFailed},
	{"64 increments at once count", checkAtOnce},
	{"a slow request does not undo a logout", checkSlowLogout},
	{"a stolen cookie opens nothing after a rotation", checkStolen},
	{"a stream ends with its session", checkLive},
	{"experiments need a session, and their requests an experiment", checkOutside},
}

func TestDemo(t *testing.T) {
	for _, scheme := range []string{"memory", "file", "bolt", "gob", "postgres", "mysql"} {
		t.Run(scheme, func(t *testing.T) {
			for _, c := range checks {
				t.Run(c.name, func(t *testing.T) {
					st := newSite(t, storeURL(t, scheme))
					c.run(t, st, newBrowser(t, st.base))
				})
			}
		})
	}
}

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError) // what the tests do on purpose is no news
	testdb.Main(m)
}

// storeURL returns the URL of a fresh store.
func storeURL(t testing.TB, scheme string) string {
	table := fmt.Sprintf("demo_%d", time.Now().UnixNano())
	switch scheme {
	case "memory":
		return "memory:"
	case "postgres":
		return testdb.Postgres(t) + "&table=" + table
	case "mysql":
		return testdb.MySQLURL(t, testdb.MySQL(t)) + "table=" + table
	}
	dir := filepath.ToSlash(filepath.Join(t.TempDir(), "sessions"))
	u := url.URL{Scheme: scheme, Opaque: (&url.URL{Path: dir}).EscapedPath()}
	return u.String()
}

func count(t testing.TB, store session2.Store) (n int) {
	t.Helper()
	for _, err := range store.(session2.IterStore).Iter(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func checkEmpty(t *testing.T, st *site, b *browser) {
	for _, path := range []string{"/", "/details", "/"} {
		b.get(path)
		b.want(200)
		if b.shows("none") == "" {
			t.Errorf("%s does not say that there is no session", path)
		}
		st.restart()
	}
	b.post("/increment-fail")
	b.want(500, "counter", "")
	b.post("/delete-old", "minutes", "0")
	b.want(200, "id", "")
	b.wantCookies(0)
	if n := count(t, st.store); n != 0 {
		t.Errorf("%d records, want none", n)
	}
}

func checkRealm(t *testing.T, st *site, b *browser) {
	m, err := session2.NewManager(st.store, session2.Config{Realm: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := m.Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	other.SetUser("carol")
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.post("/login", "user", "alice")
	mine := b.id().String()
	if !strings.Contains(b.body, `data-row="`+mine) ||
		strings.Contains(b.body, "carol") || strings.Contains(b.body, "\x1f") {
		t.Errorf("the list is not of %s alone:\n%s", mine, b.body)
	}
}

func checkLogin(t *testing.T, st *site, b *browser) {
	b.get("/")
	b.wantCookies(0)
	b.submit("/login", "user", "alice")
	b.wantCookies(1)
	st.restart()
	b.want(200, "user", "alice")
	if n := count(t, st.store); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

func checkPersists(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	b.post("/keep", "value", "a < b & \"c\"")
	before := b.id()
	st.restart()
	b.want(200, "user", "alice", "kept", "a < b & \"c\"", "id", before.String())
	for _, what := range []string{"created", "accessed", "expires"} {
		if b.shows(what) == "" {
			t.Errorf("the page does not show %s", what)
		}
	}
}

func checkCounter(t *testing.T, st *site, b *browser) {
	for n := 1; n <= 4; n++ {
		b.post("/increment")
		b.want(200, "counter", fmt.Sprint(n))
		if n == 2 {
			st.restart()
		}
	}
}

func checkIncrementFail(t *testing.T, st *site, b *browser) {
	b.post("/increment")
	b.post("/increment-fail")
	b.want(500, "counter", "1")
	st.restart()
	b.post("/increment-fail")
	b.want(500, "counter", "1")
	b.post("/increment")
	b.want(200, "counter", "2")
}

func checkDetails(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	b.post("/keep", "value", "a-private-text")
	id := b.id()
	st.restart()
	b.get("/details")
	dump := b.shows("dump")
	for _, want := range []string{id.String(), "alice", `"kept"`, "bytes"} {
		if !strings.Contains(dump, want) {
			t.Errorf("the details do not show %s:\n%s", want, dump)
		}
	}
	if strings.Contains(b.body, "a-private-text") {
		t.Error("the details show a value")
	}
}

func checkLogout(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	b.post("/increment")
	st.restart()
	b.post("/logout")
	b.want(200, "user", "", "id", "", "counter", "")
	b.wantCookies(0)
}

func checkRecordGone(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	id := b.id()
	if ok, err := st.store.Has(t.Context(), id); !ok || err != nil {
		t.Fatalf("Has before the logout = %v, %v", ok, err)
	}
	b.post("/logout")
	st.restart()
	if ok, err := st.store.Has(t.Context(), id); ok || err != nil {
		t.Errorf("Has after the logout = %v, %v, want false", ok, err)
	}
}

func checkForm(t *testing.T, st *site, b *browser) {
	b.get("/form")
	token := b.field("form_token")
	st.restart()
	b.submit("/form", "form_token", token)
	b.want(200)
	if got := b.shows("message"); !strings.HasPrefix(got, "The form was accepted") {
		t.Errorf("the first submit's message is %q", got)
	}
	if again := b.field("form_token"); again != token {
		t.Error("the page does not offer the same form again")
	}
	for range 2 {
		b.post("/form", "form_token", token)
		b.want(409)
		st.restart()
	}
	b.post("/form", "form_token", "made-up")
	b.want(409)
}

func checkDeleteOld(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	other := newBrowser(t, st.base)
	other.post("/login", "user", "bob")
	st.restart()
	other.post("/delete-old", "minutes", "30")
	if got := other.shows("message"); got != "Deleted: 0." {
		t.Errorf("the message is %q", got)
	}
	b.want(200, "user", "alice")
	other.post("/delete-old", "minutes", "0")
	other.want(200, "user", "", "id", "")
	b.want(200, "user", "", "id", "")
	if n := count(t, st.store); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

func checkDeletedBehind(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	b.post("/increment")
	before := b.id()
	if err := st.store.Delete(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	st.restart()
	b.want(200, "user", "", "counter", "")
	b.post("/increment")
	b.want(200, "counter", "1")
	if after := b.id(); after == before {
		t.Error("the new session has the deleted one's ID")
	}
	if ok, err := st.store.Has(t.Context(), before); ok || err != nil {
		t.Errorf("Has of the deleted one = %v, %v, want false", ok, err)
	}
}

func checkLogoutFail(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	before := b.id()
	b.post("/logout-fail")
	b.want(500, "user", "alice")
	st.restart()
	b.want(200, "user", "alice", "id", before.String())
	b.wantCookies(1)
}

func checkLogoutEverywhere(t *testing.T, st *site, b *browser) {
	second, bob := newBrowser(t, st.base), newBrowser(t, st.base)
	b.post("/login", "user", "alice")
	second.post("/login", "user", "alice")
	bob.post("/login", "user", "bob")
	st.restart()
	b.post("/logout-everywhere")
	b.want(200, "user", "")
	b.wantCookies(0)
	second.want(200)
	second.get("/")
	second.want(200, "user", "", "id", "")
	bob.want(200, "user", "bob")
	if n := count(t, st.store); n != 1 {
		t.Errorf("%d records, want bob's", n)
	}
}

func checkEnd(t *testing.T, st *site, b *browser) {
	victim := newBrowser(t, st.base)
	victim.post("/login", "user", "mallory")
	victim.post("/keep", "value", "a-private-text")
	id := victim.id()
	b.post("/login", "user", "alice")
	st.restart()
	b.get("/")
	if !strings.Contains(b.body, `data-row="`+id.String()+`"`) || !strings.Contains(b.body, "mallory") {
		t.Error("the list does not show the other session")
	}
	if strings.Contains(b.body, "a-private-text") {
		t.Error("the list shows what another session holds")
	}
	b.submit("/end", "id", id.String())
	if strings.Contains(b.body, `data-row="`+id.String()+`"`) {
		t.Error("the list shows a session that has ended")
	}
	victim.get("/")
	victim.want(200, "user", "", "id", "")
	b.post("/end", "id", b.id().String())
	b.want(200, "user", "")
	b.wantCookies(0)
}

func checkFlash(t *testing.T, st *site, b *browser) {
	b.get("/")
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	b.submit("/flash")
	b.want(303)
	st.restart()
	b.want(303, "message", "This message is shown once. Reload, and it is gone.")
	b.want(200, "message", "")
}

func checkForgery(t *testing.T, st *site, b *browser) {
	b.post("/increment")
	b.get("/")
	good := b.field("csrf_token")
	st.restart()
	for _, token := range []string{"", "x", strings.Repeat("A", len(good))} {
		b.submit("/increment", "csrf_token", token)
		b.want(403)
	}
	b.get("/")
	forged := b.request("/increment")
	forged.Header.Set("Sec-Fetch-Site", "cross-site")
	b.do(forged)
	b.want(403, "counter", "1")

	other := newBrowser(t, st.base)
	other.submit("/increment", "csrf_token", good) // no session, so nothing to protect
	other.want(200, "counter", "1")
	other.submit("/increment", "csrf_token", good)
	other.want(403, "counter", "1")

	visitor := newBrowser(t, st.base) // who is to be logged in as somebody else
	forged = visitor.request("/login", "user", "mallory")
	forged.Header.Set("Sec-Fetch-Site", "cross-site")
	visitor.do(forged)
	visitor.want(403, "user", "")
	visitor.wantCookies(0)
}

func checkNonsense(t *testing.T, st *site, b *browser) {
	b.post("/increment")
	for _, c := range [][]string{
		{"/login", "user", " "},
		{"/login", "user", strings.Repeat("x", maxText+1)},
		{"/keep", "value", ""},
		{"/end", "id", "../../etc"},
		{"/delete-old", "minutes", "-1"},
		{"/delete-old", "minutes", "99999999999999999999"},
	} {
		b.post(c[0], c[1:]...)
		b.want(400)
	}
	st.restart()
	b.post("/keep", "value", strings.Repeat("x", maxBody+1)) // is not read, token and all
	b.want(403, "counter", "1", "kept", "")
	b.get("/nowhere")
	b.want(404)
}
