package frameworks

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/session2/session2"
)

// What only a browser decides is asked of Chromium: shop.example and other sites, by nginx
// and over TLS.

// chromium is a browser for which all of the net is nginx, in front of one test's sites.
type chromium struct {
	ctx context.Context
	now atomic.Pointer[sites]
}

// tab is a page of it.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func TestChromium(t *testing.T) {
	t.Parallel()
	c := startChromium(t)
	for name, test := range map[string]func(*testing.T, *chromium){
		"keeps the cookie with the prefix __Host-": keepsTheHostCookie,
		"has a jar for each embedding site":        partitionsFrames,
		"posts the form of another site":           postsTheFormOfAnotherSite,
		"goes back after a logout":                 goesBackAfterALogout,
	} {
		t.Run(name, func(t *testing.T) { test(t, c) })
	}
}

func startChromium(t *testing.T) *chromium {
	bin := program(t, "chromium", "chromium-browser", "google-chrome")
	c := &chromium{}
	addr, key := nginx(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.now.Load().ServeHTTP(w, r) }))
	c.now.Store(&sites{})
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(bin), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(time.Minute), // the machine may be slow
		chromedp.Flag("host-resolver-rules", "MAP * "+addr),
		chromedp.Flag("ignore-certificate-errors-spki-list", key),
		chromedp.Flag("test-third-party-cookie-phaseout", true))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	c.ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Do(c.ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chromedp.Cancel(c.ctx) }) // ends the browser, and waits for it
	return c
}

// at opens a tab without cookies in a net that is these sites.
func (c *chromium) at(t *testing.T, net sites) *tab {
	t.Helper()
	c.now.Store(&net)
	ctx, stop := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(stop)
	return &tab{t, ctx}
}

// open goes to a page.
func (b *tab) open(url string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(url)); err != nil {
		b.t.Fatal(url, err)
	}
}

// script runs a script that may lead to another page.
func (b *tab) script(text string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Evaluate[chromedp.Void]("void("+text+")")); err != nil {
		b.t.Fatal(text, err)
	}
}

// eval returns what a script says, when its promise is kept.
func (b *tab) eval(text string) string {
	b.t.Helper()
	s, err := b.try(text)
	if err != nil {
		b.t.Fatal(text, err)
	}
	return s
}

func (b *tab) try(text string) (string, error) {
	return chromedp.Run(b.ctx,
		chromedp.Evaluate[string]("Promise.resolve("+text+").then(String)", chromedp.EvalAwaitPromise))
}

// post posts from the page, and returns what it is answered.
func (b *tab) post(path string) string {
	b.t.Helper()
	return b.eval(fmt.Sprintf("fetch(%q, {method: 'POST'}).then(r => r.text())", path))
}

// until waits until the page says want, whichever page it is by then.
func (b *tab) until(text, want string) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got, err := b.try(text)
		if got == want && err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}

// sites are handlers by host.
type sites map[string]http.Handler

func (s sites) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := s[r.Host]; h != nil {
		h.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	io.WriteString(w, "<!DOCTYPE html><title>"+html.EscapeString(r.Host)+"</title>")
}

// shop has the counter at /count, also by GET, and a page that shows who is signed in.
func shop(m *session2.Manager) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := visits.Get(m.Session(r))
		page(w, fmt.Sprint(m.Session(r).User(), " ", n))
	})
	return mux
}

func page(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprintf(w, "<!DOCTYPE html><title>shop</title><p>%s</p>", text)
}

// The zero Config's cookie works over TLS that nginx ends, no script sees it, and a sibling
// domain cannot put another one in its place.
func keepsTheHostCookie(t *testing.T, c *chromium) {
	m := manager(t, session2.Config{})
	b := c.at(t, sites{"shop.example": protected(m, shop(m))})
	b.open("https://sub.shop.example/")
	got := b.eval(`(document.cookie = "__Host-session=mine; Secure; Path=/; Domain=shop.example",
		document.cookie = "other=1; Secure; Path=/; Domain=shop.example", document.cookie)`)
	if got != "other=1" {
		t.Errorf("a sibling's cookies: %q", got)
	}
	b.open("https://shop.example/")
	b.post("/login")
	for i := range 3 {
		if got := b.post("/count"); got != fmt.Sprint(i+1) {
			t.Errorf("visit %q, want %d", got, i+1)
		}
	}
	if got := b.eval("document.cookie"); got != "other=1" {
		t.Errorf("a script sees %q", got)
	}
	b.open("https://shop.example/")
	b.until(shown, "alice 3")
	b.post("/logout")
	b.open("https://shop.example/")
	b.until(shown, "0")
}

// framed are sites that embed the shop, and show what its frame tells them.
func framed(m *session2.Manager) sites {
	embedding := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, `<!DOCTYPE html><title></title><script>onmessage = e => document.title = e.data</script>
			<iframe src="https://shop.example/framed"></iframe>`)
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /framed", func(w http.ResponseWriter, r *http.Request) {
		n, err := visits.Commit(r.Context(), m.Session(r), plusOne)
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><script>(parent || self).postMessage("%d %v", "*")</script>`, n, err)
	})
	return sites{"shop.example": m.Wrap(mux), "one.example": embedding, "two.example": embedding}
}

// In a frame of another site the default cookie is none, and a partitioned one is a jar for
// each embedding site.
func partitionsFrames(t *testing.T, c *chromium) {
	for _, partitioned := range []bool{false, true} {
		cfg := session2.Config{}
		if partitioned {
			cfg.Cookie = framedCookie
		}
		b := c.at(t, framed(manager(t, cfg)))
		second := "1"
		if partitioned {
			second = "2"
		}
		for _, step := range [][2]string{{"one", "1"}, {"one", second}, {"two", "1"}, {"two", second}} {
			b.open("https://" + step[0] + ".example/")
			b.until("document.title", step[1]+" <nil>")
		}
	}
}

// A provider's page posts the code to the shop: the state's cookie comes along, the
// session's own does not, and after the redirect the visitor has what was in the session.
func postsTheFormOfAnotherSite(t *testing.T, c *chromium) {
	store := session2.NewMemoryStore()
	states, err := newStates(store)
	if err != nil {
		t.Fatal(err)
	}
	m := managerOf(t, store, session2.Config{})
	for _, own := range []bool{false, true} {
		o := &oauth{m: m, state: states, provider: "https://id.example/authorize", exchange: provider}
		if own {
			o.state = m
		}
		mux := http.NewServeMux()
		mux.HandleFunc("POST /count", countOf(t, m))
		mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
			n, _ := visits.Get(m.Session(r))
			page(w, fmt.Sprint(m.Session(r).User(), " ", n))
		})
		id := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<!DOCTYPE html><form method="post" action="https://shop.example/oauth/callback">
				<input name="code" value="bob"><input name="state" value="%s"></form>
				<script>onload = () => document.forms[0].submit()</script>`, html.EscapeString(r.FormValue("state")))
		})
		b := c.at(t, sites{"shop.example": o.handler(mux), "id.example": id})
		b.open("https://shop.example/")
		b.post("/count")
		b.script("location = '/oauth/start'")
		want := "bob 1"
		if own {
			want = "This login was not begun here."
		}
		b.until("document.location.pathname !== '/oauth/start' && document.body && document.body.innerText.trim()", want)
	}
}

// Back after a logout shows the page from before it, unless that is loaded again.
func goesBackAfterALogout(t *testing.T, c *chromium) {
	const kept, loaded = "alice from memory", " loaded"
	for _, page := range []struct {
		cache string
		clear bool
		want  string
	}{
		{"", false, kept},
		{"no-store", false, loaded},
		{"", true, loaded},
	} {
		m := manager(t, session2.Config{ClearSiteData: page.clear})
		b := c.at(t, sites{"shop.example": m.Wrap(account(m, page.cache))})
		b.open("https://shop.example/")
		b.post("/login")
		b.script("location = '/account'")
		b.until(shown, "alice loaded")
		b.script("location = '/'")
		b.until(shown, "alice 0")
		b.post("/logout")
		b.script("history.back()")
		b.until("location.pathname === '/account' && /loaded|memory/.test("+shown+")", "true")
		got := b.eval(shown)
		if got == strings.TrimSpace(loaded) && page.want == kept {
			continue // a browser may keep no page, such as for want of memory
		}
		if got != strings.TrimSpace(page.want) {
			t.Errorf("Cache-Control %q, ClearSiteData %v: %q, want %q", page.cache, page.clear, got, page.want)
		}
	}
}

// shown is what a page of the shop shows.
const shown = "document.querySelector('p').innerText"

// account has a page that says how it came.
func account(m *session2.Manager, cache string) http.Handler {
	mux := shop(m)
	mux.HandleFunc("GET /account", func(w http.ResponseWriter, r *http.Request) {
		if cache != "" {
			w.Header().Set("Cache-Control", cache)
		}
		page(w, m.Session(r).User()+` <b></b><script>onpageshow = e =>
			document.querySelector("b").textContent = e.persisted ? "from memory" : "loaded"</script>`)
	})
	return mux
}
