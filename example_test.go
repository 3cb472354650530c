package session2_test

import (
	"context"
	"database/sql"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/session2/session2"
)

// manager is a Manager for an example.
func manager(cfg session2.Config) *session2.Manager {
	m, err := session2.NewManager(session2.NewMemoryStore(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	return m
}

// client sends requests to h over TLS, and keeps cookies as a browser does.
func client(h http.Handler) (get func(path string), stop func()) {
	server := httptest.NewTLSServer(h)
	c := server.Client()
	c.Jar, _ = cookiejar.New(nil)
	return func(path string) {
		res, err := c.Get(server.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		res.Body.Close()
		fmt.Println(path, res.StatusCode)
	}, server.Close
}

func ExampleManager() {
	m := manager(session2.Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { m.Session(r).SetUser("alice") })
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { m.Session(r).Destroy() })
	mux.HandleFunc("/account", func(w http.ResponseWriter, r *http.Request) {
		if m.Session(r).User() == "" {
			http.Error(w, "please log in", http.StatusUnauthorized)
		}
	})
	get, stop := client(m.Wrap(mux))
	defer stop()
	get("/account")
	get("/login")
	get("/account")
	get("/logout")
	get("/account")
	// Output:
	// /account 401
	// /login 200
	// /account 200
	// /logout 200
	// /account 401
}

func ExampleNewManager() {
	_, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{
		Lifetime: -time.Hour,
		Cookie:   session2.CookieConfig{Name: "__Host-id", Domain: "example.com"},
		Require:  session2.Capabilities{Durable: true},
	})
	fmt.Println(err)
	// Output:
	// session2: Config.Lifetime: -1h0m0s is negative
	// session2: Config.Cookie.Domain: browsers refuse "__Host-id" with a Domain
	// session2: Config.Require.Durable: the store is not
}

func ExampleManager_Open() {
	ctx := context.Background()
	m := manager(session2.Config{})
	s, err := m.Open(ctx, "") // a new session, over a transport of your own
	if err != nil {
		log.Fatal(err)
	}
	s.SetUser("alice")
	if err := s.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	token := s.Token() // for the client to keep

	s, err = m.Open(ctx, token)
	fmt.Println(s.User(), err)
	// Output: alice <nil>
}

func ExampleManager_Exclusive() {
	m := manager(session2.Config{})
	n := session2.NewKey[int]("n")
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { m.Session(r).SetUser("alice") })
	mux.Handle("/checkout", m.Exclusive(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		orders, _ := n.Get(s)
		// Take your time: whatever else is sent to /checkout with this session waits.
		n.Set(s, orders+1)
		fmt.Fprintln(w, "order", orders+1)
	})))
	get, stop := client(m.Wrap(mux))
	defer stop()
	get("/login")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { get("/checkout") })
	}
	wg.Wait()
	// Output:
	// /login 200
	// /checkout 200
	// /checkout 200
	// /checkout 200
}

// counts are what a manager has counted so far, by the events' names.
func counts(m *session2.Manager) expvar.Func {
	return func() any {
		list := make(map[string]uint64)
		for kind := session2.EventCreated; kind <= session2.EventAnomaly; kind++ {
			list[kind.String()] = m.Count(kind)
		}
		return list
	}
}

// In a program, expvar.Publish("session2", counts(m)) shows this under /debug/vars.
func ExampleManager_Count() {
	m := manager(session2.Config{})
	m.Open(context.Background(), "not a token")
	fmt.Println(strings.ReplaceAll(counts(m).String(), ",", "\n"))
	// Output:
	// {"anomaly":0
	// "conflict":0
	// "corrupt":0
	// "created":0
	// "destroyed":0
	// "dropped":0
	// "expired":0
	// "malformed":1
	// "renewed":0
	// "reuse":0
	// "revoked":0
	// "store error":0
	// "unknown":0}
}

func ExampleManager_Cleanup() {
	m := manager(session2.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	done := make(chan error)
	go func() { done <- m.Cleanup(ctx, time.Minute) }() // for as long as the application runs
	fmt.Println(<-done)
	// Output: context deadline exceeded
}

// A backend behind a proxy gets its own cookies, and not the session's.
func ExampleManager_StripCookie() {
	m := manager(session2.Config{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("cookies:", r.Header["Cookie"], "user:", r.Header["X-User"])
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { m.Session(r).SetUser("alice") })
	mux.Handle("/", &httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(target)
		m.StripCookie(pr.Out)
		pr.Out.Header.Set("X-User", m.Session(pr.In).User())
	}})
	get, stop := client(m.Wrap(mux))
	defer stop()
	get("/login")
	get("/")
	// Output:
	// /login 200
	// cookies: [] user: [alice]
	// / 200
}

func ExampleConfig() {
	m := manager(session2.Config{
		Lifetime:    12 * time.Hour,
		IdleTimeout: 15 * time.Minute,
		RenewEvery:  10 * time.Minute, // shows the theft of a cookie
		Codec:       session2.JSON{},
		OnEvent: func(_ context.Context, e session2.Event) {
			fmt.Println(e.Kind, e.User)
		},
	})
	get, stop := client(m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session2.FromContext(r.Context()).SetUser("alice")
	})))
	defer stop()
	get("/")
	// Output:
	// created alice
	// / 200
}

func ExampleConfig_sealed() {
	store := session2.NewMemoryStore()
	m, err := session2.NewManager(store, session2.Config{Sealed: true})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	s, _ := m.Open(ctx, "")
	s.SetUser("alice")
	s.Set("diagnosis", "none of anybody's business")
	fmt.Println(s.Commit(ctx))

	for rec := range store.Iter(ctx) { // what a thief of the database has
		contents, err := session2.Inspect(rec)
		fmt.Println(contents.User, contents.Sealed, contents.Values, err)
	}
	s, _ = m.Open(ctx, s.Token()) // what the client has
	fmt.Println(s.Get("diagnosis"))
	// Output:
	// <nil>
	// alice true [] <nil>
	// none of anybody's business
}

func ExampleCookieConfig() {
	m := manager(session2.Config{Cookie: session2.CookieConfig{SameSite: http.SameSiteStrictMode}})
	w := httptest.NewRecorder()
	m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Session(r).SetUser("alice")
	})).ServeHTTP(w, httptest.NewRequest("GET", "https://example.com/", nil))
	name, rest, _ := strings.Cut(w.Header().Get("Set-Cookie"), "=")
	_, attributes, _ := strings.Cut(rest, ";")
	fmt.Println(name + attributes)
	// Output: __Host-session Path=/; HttpOnly; Secure; SameSite=Strict
}

// An API client beside browsers: it asks for a token by a header without one, keeps what
// it is told, and forgets it when it is told nothing.
func ExampleTransport() {
	m := manager(session2.Config{Transport: session2.Transport{Header: "Authorization"}})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		m.Session(r).SetUser("alice") // if the password was right
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { m.Session(r).Destroy() })
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		user := m.Session(r).User()
		if user == "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, user)
	})
	server := httptest.NewTLSServer(m.Wrap(mux))
	defer server.Close()

	token := "" // the client keeps it where other programs do not read it
	call := func(method, path string) {
		r, _ := http.NewRequest(method, server.URL+path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := server.Client().Do(r)
		if err != nil {
			log.Fatal(err)
		}
		defer res.Body.Close()
		if told, ok := res.Header["Session-Token"]; ok { // in any response: a login, a rotation, a logout
			token = told[0]
		}
		body, _ := io.ReadAll(res.Body)
		fmt.Println(path, res.StatusCode, string(body), len(res.Cookies()), "cookies; a token:", token != "")
	}
	call("GET", "/me")
	call("POST", "/login")
	call("GET", "/me")
	call("POST", "/logout")
	call("GET", "/me")
	// Output:
	// /me 401  0 cookies; a token: false
	// /login 200  0 cookies; a token: true
	// /me 200 alice 0 cookies; a token: true
	// /logout 200  0 cookies; a token: false
	// /me 401  0 cookies; a token: false
}

// Browsers and API clients on the same routes.
func ExampleTransport_both() {
	m := manager(session2.Config{Transport: session2.Transport{Header: "Authorization"}})
	login := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.Session(r).SetUser("alice") }))
	for _, header := range []string{"", "Bearer"} {
		r := httptest.NewRequest("POST", "https://example.com/login", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		w := httptest.NewRecorder()
		login.ServeHTTP(w, r)
		fmt.Printf("%q: a cookie: %v, a token in a header: %v\n",
			header, w.Header().Get("Set-Cookie") != "", w.Header().Get("Session-Token") != "")
	}
	// Output:
	// "": a cookie: true, a token in a header: false
	// "Bearer": a cookie: false, a token in a header: true
}

// A WebSocket's client in a browser of another origin can set no header but this one.
func ExampleTransport_readOnly() {
	m := manager(session2.Config{Transport: session2.Transport{
		ReadOnly: func(r *http.Request) string {
			_, token, _ := strings.Cut(r.Header.Get("Sec-WebSocket-Protocol"), "session.")
			return token
		},
	}})
	ctx := context.Background()
	s, _ := m.Open(ctx, "")
	s.SetUser("alice")
	fmt.Println(s.Commit(ctx))

	r := httptest.NewRequest("GET", "https://example.com/socket", nil)
	r.Header.Set("Sec-WebSocket-Protocol", "chat, session."+s.Token())
	m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(m.Session(r).User())
	})).ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// <nil>
	// alice
}

// An application that is served over TLS, and over plain HTTP within a building.
func ExampleCookieConfig_secureFunc() {
	m := manager(session2.Config{Cookie: session2.CookieConfig{
		SecureFunc: func(r *http.Request) bool { return r.TLS != nil },
	}})
	h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.Session(r).Set("color", "green") }))
	for _, url := range []string{"https://example.com/", "http://example.com/"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
		name, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), "=")
		fmt.Println(url, name, strings.Contains(w.Header().Get("Set-Cookie"), "Secure"))
	}
	// Output:
	// https://example.com/ __Host-session true
	// http://example.com/ session false
}

func ExampleSession() {
	m := manager(session2.Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("/save", func(w http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		s.Set("color", "green")
		s.Flash("Saved.")
	})
	mux.HandleFunc("/show", func(w http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		fmt.Println(s.Get("color"), s.Flashes())
	})
	get, stop := client(m.Wrap(mux))
	defer stop()
	get("/save")
	get("/show")
	get("/show")
	// Output:
	// /save 200
	// green [Saved.]
	// /show 200
	// green []
	// /show 200
}

func ExampleSession_UseFormToken() {
	ctx := context.Background()
	m := manager(session2.Config{})
	s, _ := m.Open(ctx, "")
	token := s.FormToken() // hidden in the form
	s.Commit(ctx)

	for range 2 { // the form is submitted twice
		s, _ := m.Open(ctx, s.Token())
		fmt.Println(s.UseFormToken(ctx, token))
	}
	// Output:
	// true <nil>
	// false <nil>
}

// A stream ends with its session.
func ExampleManager_Wrap() {
	m := manager(session2.Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { m.Session(r).SetUser("alice") })
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { m.Session(r).Destroy() })
	news := make(chan string)
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: hello %s\n", m.Session(r).User())
		w.(http.Flusher).Flush()
		for {
			select {
			case text := <-news:
				fmt.Fprintf(w, "data: %s\n", text)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				if errors.Is(context.Cause(r.Context()), session2.ErrNotFound) {
					fmt.Fprintln(w, "event: signed-out")
				}
				return
			}
		}
	})
	server := httptest.NewTLSServer(m.Wrap(mux))
	defer server.Close()
	browser := server.Client()
	browser.Jar, _ = cookiejar.New(nil)
	browser.Get(server.URL + "/login")
	stream, err := browser.Get(server.URL + "/events")
	if err != nil {
		log.Fatal(err)
	}
	news <- "something new"
	browser.Get(server.URL + "/logout") // in another tab
	io.Copy(os.Stdout, stream.Body)
	// Output:
	// data: hello alice
	// data: something new
	// event: signed-out
}

func ExampleFromContext() {
	m := manager(session2.Config{})
	get, stop := client(m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session2.FromContext(r.Context())
		fmt.Println(s.IsNew())
	})))
	defer stop()
	get("/")
	fmt.Println(session2.FromContext(context.Background()))
	// Output:
	// true
	// / 200
	// <nil>
}

// Cart is what a shop's sessions hold.
type Cart struct{ Items []string }

var cart = session2.NewKey[Cart]("cart")

func ExampleKey() {
	ctx := context.Background()
	s, _ := manager(session2.Config{}).Open(ctx, "")
	_, ok := cart.Get(s)
	fmt.Println(ok)
	cart.Update(s, func(c Cart) Cart {
		c.Items = append(c.Items, "book")
		return c
	})
	if err := s.Commit(ctx); err != nil { // what is read after it is what is stored
		log.Fatal(err)
	}
	c, ok := cart.Get(s)
	fmt.Println(c.Items, ok)
	// Output:
	// false
	// [book] true
}

// A value is shown as it is stored, and never goes beyond its limit, however many
// requests are sent at once.
func ExampleKey_Commit() {
	m := manager(session2.Config{})
	coupons := session2.NewKey[int]("coupons")
	errNone := errors.New("no coupon is left")
	take := func(used int) (int, error) {
		if used == 2 {
			return used, errNone
		}
		return used + 1, nil
	}
	get, stop := client(m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		used, err := coupons.Commit(r.Context(), m.Session(r), take)
		switch {
		case errors.Is(err, errNone):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, "please try again", http.StatusServiceUnavailable)
		default:
			fmt.Println("coupon", used)
		}
	})))
	defer stop()
	for range 3 {
		get("/")
	}
	// Output:
	// coupon 1
	// / 200
	// coupon 2
	// / 200
	// / 409
}

func ExampleNewKey() {
	lastSeen := session2.NewKey[time.Time]("last seen")
	s, _ := manager(session2.Config{}).Open(context.Background(), "")
	lastSeen.Set(s, time.Date(2005, 5, 5, 0, 0, 0, 0, time.UTC))
	t, _ := lastSeen.Get(s)
	fmt.Println(t.Year())
	// Output: 2005
}

func ExampleGob() {
	s, _ := manager(session2.Config{Codec: session2.Gob{}}).Open(context.Background(), "")
	s.Set("cart", Cart{}) // without gob.Register, and not by a Key
	fmt.Println(s.Err())
	// Output: session2: set "cart": a session2_test.Cart cannot be encoded: gob.Register its type; a Key of that type itself needs no registration (*errors.errorString)
}

func ExampleJSON() {
	s, _ := manager(session2.Config{Codec: session2.JSON{}}).Open(context.Background(), "")
	s.Set("cart", Cart{Items: []string{"book"}})
	fmt.Println(s.Get("cart"))
	fmt.Println(cart.Get(s))
	// Output:
	// map[Items:[book]]
	// {[book]} true
}

// upper is a Codec for strings of a named type, in capitals.
type upper struct{}

type shout string

func (upper) Marshal(v any) ([]byte, error) { return []byte(strings.ToUpper(fmt.Sprint(v))), nil }

func (upper) Unmarshal(data []byte, v any) error {
	p, ok := v.(*shout)
	if !ok {
		return errors.New("not a shout")
	}
	*p = shout(data)
	return nil
}

func ExampleCodec() {
	s, _ := manager(session2.Config{Codec: upper{}}).Open(context.Background(), "")
	motto := session2.NewKey[shout]("motto")
	motto.Set(s, "no lost update")
	fmt.Println(motto.Get(s))
	// Output: NO LOST UPDATE true
}

func ExampleEvent() {
	ctx := context.Background()
	m := manager(session2.Config{OnEvent: func(_ context.Context, e session2.Event) {
		fmt.Println(e.Kind, e.ID == session2.ID{}, e.Err)
	}})
	m.Open(ctx, "not a token")
	m.Open(ctx, strings.Repeat("1", 32)+"."+strings.Repeat("A", 43))
	// Output:
	// malformed true <nil>
	// unknown false <nil>
}

func ExampleEventKind() {
	fmt.Println(session2.EventCreated, session2.EventReuse, session2.EventStoreError)
	// Output: created reuse store error
}

func ExampleID() {
	fmt.Println(session2.ID{0xab, 1})
	// Output: ab010000000000000000000000000000
}

func ExampleParseID() {
	id, err := session2.ParseID("ab010000000000000000000000000000")
	fmt.Println(id[0], err)
	_, err = session2.ParseID("../../etc/passwd")
	fmt.Println(err)
	// Output:
	// 171 <nil>
	// session2: an ID has 32 hexadecimal digits
}

func ExampleStore() {
	ctx := context.Background()
	var store session2.Store = session2.NewMemoryStore()
	rec := session2.Record{ID: session2.ID{1}, Version: 7}
	fmt.Println(store.Save(ctx, rec, 0)) // create
	fmt.Println(store.Save(ctx, rec, 0)) // asked again: it landed before

	rec.Version = 8
	fmt.Println(errors.Is(store.Save(ctx, rec, 6), session2.ErrConflict))
	fmt.Println(store.Save(ctx, rec, 7)) // replace
	store.Delete(ctx, rec.ID)
	rec.Version = 9
	fmt.Println(errors.Is(store.Save(ctx, rec, 8), session2.ErrNotFound))
	// Output:
	// <nil>
	// <nil>
	// true
	// <nil>
	// true
}

func ExampleRecord() {
	ctx := context.Background()
	store := session2.NewMemoryStore()
	rec := session2.Record{ID: session2.ID{1}, Version: 1, User: "alice", Data: []byte("opaque")}
	store.Save(ctx, rec, 0)
	rec.Data[0] = 'O' // the store has a copy
	rec, err := store.Load(ctx, rec.ID)
	fmt.Printf("%s %s %v\n", rec.User, rec.Data, err)
	// Output: alice opaque <nil>
}

func ExampleVersion() {
	ctx := context.Background()
	store := session2.NewMemoryStore()
	err := store.Save(ctx, session2.Record{ID: session2.ID{1}}, 0)
	fmt.Println(err)
	// Output: session2: save 01000000000000000000000000000000: a stored record's version is never zero
}

func ExampleCapabilities() {
	fmt.Printf("%+v\n", session2.NewMemoryStore().Capabilities())
	// Output: {ThreadSafe:true MultiprocessSafe:false MultihostSafe:false Durable:false}
}

func ExampleCapableStore() {
	var store session2.Store = session2.NewMemoryStore()
	if c, ok := store.(session2.CapableStore); !ok || !c.Capabilities().Durable {
		fmt.Println("sessions end with the process")
	}
	// Output: sessions end with the process
}

func ExampleSetupStore() {
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := session2.Open(context.Background(), "file:"+filepath.ToSlash(dir))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(session2.Setup(context.Background(), store)) // when the application starts
	// Output: <nil>
}

func ExampleDeleteOldStore() {
	ctx := context.Background()
	store := session2.NewMemoryStore()
	now := time.Now()
	store.Save(ctx, session2.Record{ID: session2.ID{1}, Version: 1, Accessed: now, Expires: now.Add(time.Hour)}, 0)
	old := now.Add(-2 * time.Hour)
	store.Save(ctx, session2.Record{ID: session2.ID{2}, Version: 1, Accessed: old, Expires: now.Add(time.Hour)}, 0)
	fmt.Println(store.DeleteOld(ctx, time.Hour))
	// Output: 1 <nil>
}

func ExampleIterStore() {
	ctx := context.Background()
	store := session2.NewMemoryStore()
	store.Save(ctx, session2.Record{ID: session2.ID{1}, Version: 1, User: "alice"}, 0)
	for rec, err := range store.Iter(ctx) {
		fmt.Println(rec.User, err)
	}
	// Output: alice <nil>
}

func ExampleTouchStore() {
	ctx := context.Background()
	store := session2.NewMemoryStore()
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	store.Save(ctx, session2.Record{ID: session2.ID{1}, Version: 1, Accessed: noon}, 0)
	store.Touch(ctx, session2.ID{1}, noon.Add(time.Minute), noon.Add(time.Hour))
	store.Touch(ctx, session2.ID{1}, noon, noon) // too late: nothing moves back
	rec, _ := store.Load(ctx, session2.ID{1})
	fmt.Println(rec.Accessed.Format("15:04"), rec.Expires.Format("15:04"), rec.Version)
	// Output: 12:01 13:00 1
}

func ExampleUserStore() {
	ctx := context.Background()
	store := session2.NewMemoryStore()
	store.Save(ctx, session2.Record{ID: session2.ID{1}, Version: 1, User: "alice"}, 0)
	store.Save(ctx, session2.Record{ID: session2.ID{2}, Version: 1, User: "bob"}, 0)
	for rec := range store.IterUser(ctx, "alice") {
		fmt.Println(rec.ID)
	}
	fmt.Println(store.DeleteUser(ctx, "alice"))
	// Output:
	// 01000000000000000000000000000000
	// 1 <nil>
}

func ExampleOpen() {
	ctx := context.Background()
	store, err := session2.Open(ctx, "memory:")
	fmt.Printf("%T %v\n", store, err)
	_, err = session2.Open(ctx, "bolt:sessions.db?color=green")
	fmt.Println(err)
	// Output:
	// *session2.MemoryStore <nil>
	// session2: open: unknown option "color"
}

// tempPath returns a path for an example's store.
func tempPath() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		log.Fatal(err)
	}
	return filepath.Join(dir, "store"), func() { os.RemoveAll(dir) }
}

func ExampleFileOptions() {
	path, remove := tempPath()
	defer remove()
	store, err := session2.OpenFileStore(path, &session2.FileOptions{NoSync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(store.Capabilities().Durable)
	// Output: false
}

func ExampleBoltOptions() {
	path, remove := tempPath()
	defer remove()
	first, err := session2.OpenBoltStore(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	_, err = session2.OpenBoltStore(path, &session2.BoltOptions{Timeout: 10 * time.Millisecond})
	fmt.Println(err != nil)
	// Output: true
}

func ExampleGobOptions() {
	path, remove := tempPath()
	defer remove()
	store, err := session2.OpenGobStore(path, &session2.GobOptions{NoSync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(store.Capabilities().Durable)
	// Output: false
}

func ExampleInspect() {
	store := session2.NewMemoryStore()
	m, err := session2.NewManager(store, session2.Config{})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	s, _ := m.Open(ctx, "")
	s.Set("color", "green")
	if err := s.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	for rec := range store.Iter(ctx) {
		contents, err := session2.Inspect(rec)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(contents.Values)
		fmt.Println(contents.Values[0].Value())
	}
	// Output:
	// ["color" 6 bytes]
	// green <nil>
}

func ExampleNewMemoryStore() {
	ctx := context.Background()
	store := session2.NewMemoryStore()
	defer store.Close()

	rec := session2.Record{ID: session2.ID{1}, Version: 7, User: "alice", Data: []byte("cart: 1 apple")}
	fmt.Println(store.Save(ctx, rec, 0)) // 0: create it

	got, _ := store.Load(ctx, rec.ID)
	fmt.Printf("%s, %s\n", got.User, got.Data)

	rec.Version, rec.Data = 8, []byte("cart: 2 apples")
	fmt.Println(store.Save(ctx, rec, 7)) // in place of version 7
	rec.Version = 9
	fmt.Println(errors.Is(store.Save(ctx, rec, 7), session2.ErrConflict)) // too late
	// Output:
	// <nil>
	// alice, cart: 1 apple
	// <nil>
	// true
}

func ExampleOpenBoltStore() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := session2.OpenBoltStore(filepath.Join(dir, "sessions.db"), nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	ctx := context.Background()
	now := time.Now()
	rec := session2.Record{
		ID: session2.ID{15: 1}, Version: 1, User: "ann",
		Created: now, Accessed: now, Expires: now.Add(time.Hour),
	}
	if err := store.Save(ctx, rec, 0); err != nil {
		panic(err)
	}
	for rec, err := range store.IterUser(ctx, "ann") {
		fmt.Println(rec.ID, err)
	}
	// Output: 00000000000000000000000000000001 <nil>
}

func ExampleOpenGobStore() {
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := session2.OpenGobStore(filepath.Join(dir, "sessions.gob"), nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	ctx := context.Background()
	now := time.Now()
	rec := session2.Record{ID: session2.ID{1}, Version: 1, User: "ada",
		Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: []byte("hello")}
	if err := store.Save(ctx, rec, 0); err != nil {
		panic(err)
	}
	got, err := store.Load(ctx, rec.ID)
	fmt.Println(got.User, string(got.Data), err)
	// Output: ada hello <nil>
}

func ExampleNewPostgresStore() {
	db, err := sql.Open("postgres", "host=localhost dbname=app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := session2.NewPostgresStore(db, &session2.SQLOptions{Table: "app.sessions"})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(store.Schema()[1])

	_, err = session2.NewPostgresStore(db, &session2.SQLOptions{Table: "sessions; --"})
	fmt.Println(err)
	// Output:
	// CREATE INDEX IF NOT EXISTS "sessions_username_idx" ON "app"."sessions" (username, id) WHERE username <> ''
	// session2: "sessions; --" is no name for a table: want letters, digits and underscores, at most 40
}

func ExampleNewMySQLStore() {
	db, err := sql.Open("mysql", "app@tcp(localhost)/app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := session2.NewMySQLStore(db, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for _, statement := range store.Schema()[1:] { // the first makes the table of sessions
		fmt.Println(statement)
	}
	// Output:
	// CREATE TABLE IF NOT EXISTS `session2_sessions_meta` (version bigint NOT NULL PRIMARY KEY) ENGINE=InnoDB
	// INSERT IGNORE INTO `session2_sessions_meta` (version) VALUES (1)
}

func ExampleSQLOptions() {
	// For PgBouncer in transaction mode.
	db, err := sql.Open("postgres", "host=pgbouncer dbname=app binary_parameters=yes")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := session2.NewPostgresStore(db, &session2.SQLOptions{
		Table:     "shop.sessions",
		NoPrepare: true,
		Timeout:   2 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Printf("%+v\n", store.Capabilities())
	// Output: {ThreadSafe:true MultiprocessSafe:true MultihostSafe:true Durable:true}
}
