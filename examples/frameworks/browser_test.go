package frameworks

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/session2/session2"
)

// What only a browser decides is asked of Chromium: shop.example and other sites, by nginx
// and over TLS.

// tab is a page of Chromium.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// chromium starts a browser for which all of the net is nginx in front of h.
func chromium(t *testing.T, h http.Handler) *tab {
	t.Helper()
	bin := program(t, "chromium", "chromium-browser", "google-chrome")
	addr, key := nginx(t, h)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(bin), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(time.Minute), // the machine may be slow
		chromedp.Flag("host-resolver-rules", "MAP * "+addr),
		chromedp.Flag("ignore-certificate-errors-spki-list", key),
		chromedp.Flag("test-third-party-cookie-phaseout", true))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	b := &tab{t, ctx}
	b.open("about:blank")
	t.Cleanup(func() { chromedp.Cancel(ctx) }) // ends the browser, and waits for it
	return b
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
func TestChromiumKeepsTheHostCookie(t *testing.T) {
	m := manager(t, session2.Config{})
	b := chromium(t, sites{"shop.example": protected(m, shop(m))})
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
	b.until("document.querySelector('p').textContent", "alice 3")
	b.post("/logout")
	b.open("https://shop.example/")
	b.until("document.querySelector('p').textContent", " 0")
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
func TestChromiumPartitionsFrames(t *testing.T) {
	for _, partitioned := range []bool{false, true} {
		cfg := session2.Config{}
		if partitioned {
			cfg.Cookie = framedCookie
		}
		b := chromium(t, framed(manager(t, cfg)))
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
func TestChromiumPostsTheFormOfAnotherSite(t *testing.T) {
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
		mux.HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) {
			n, err := visits.Commit(r.Context(), m.Session(r), plusOne)
			fmt.Fprint(w, n)
			if err != nil {
				t.Error(err)
			}
		})
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
		b := chromium(t, sites{"shop.example": o.handler(mux), "id.example": id})
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

var marks = strings.NewReplacer("\n", "", "\t", "")

// Back after a logout: what the browser shows.
func TestChromiumGoesBackAfterALogout(t *testing.T) {
	for name, c := range map[string]struct {
		clear bool
		cache string
		want  string
	}{
		"by default":              {false, "", "?"},
		"no-store":                {false, "no-store", "?"},
		"ClearSiteData":           {true, "", "?"},
		"no-store, ClearSiteData": {true, "no-store", "?"},
	} {
		t.Run(name, func(t *testing.T) {
			m := manager(t, session2.Config{ClearSiteData: c.clear})
			mux := shop(m)
			mux.HandleFunc("GET /account", func(w http.ResponseWriter, r *http.Request) {
				if c.cache != "" {
					w.Header().Set("Cache-Control", c.cache)
				}
				page(w, m.Session(r).User()+marks.Replace(`<b></b><script>onpageshow = e =>
					document.querySelector("b").textContent = e.persisted ? " from the cache" : " loaded"</script>`))
			})
			mux.HandleFunc("GET /bye", func(w http.ResponseWriter, _ *http.Request) { page(w, "bye") })
			b := chromium(t, sites{"shop.example": m.Wrap(mux)})
			b.open("https://shop.example/")
			b.post("/login")
			b.script("location = '/account'")
			b.until("document.querySelector('p').innerText", "alice loaded")
			b.script("location = '/bye'")
			b.until("document.querySelector('p').innerText", "bye")
			b.post("/logout")
			b.script("history.back()")
			b.until("location.pathname === '/account' && /loaded|cache/.test(document.querySelector('p').innerText)", "true")
			t.Log(b.eval("document.querySelector('p').innerText"))
		})
	}
}
