package webtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

const patience = 15 * time.Minute // with all tests of a browser, on a busy machine

// chromium starts a headless Chromium, which ends with the test.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("SESSION2_REQUIRE_DB") == "" {
		t.Skip("no chromium: install it, on Debian by apt-get install chromium")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // which root cannot have
		chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(patience),
		chromedp.UserDataDir(t.TempDir()))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// runDemo builds and starts the demo as a person does, and returns its address.
func runDemo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/session2/session2/examples/demo").
		CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(path, "-addr", "127.0.0.1:0")
	var log bytes.Buffer
	cmd.Dir, cmd.Stderr = t.TempDir(), &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || log.Len() > 0 {
			t.Errorf("the demo's end: %v; its log:\n%s", err, &log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://\S+`).FindString(line)
	if url == "" {
		t.Fatalf("no address in %q", line)
	}
	return url
}

// tab is a tab of a browser.
type tab struct {
	t   testing.TB
	ctx context.Context
}

// newBrowser opens a tab in a browser that has no cookies yet.
func newBrowser(t *testing.T, chromium context.Context) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{t, ctx}
	b.do(chromedp.EmulateViewport(1200, 900))
	return b
}

// newTab opens a further tab by a link that says text. Its page may never be complete.
func (b *tab) newTab(text string) *tab {
	b.t.Helper()
	opened := chromedp.WaitNewTarget(b.ctx, func(i *target.Info) bool { return i.Type == "page" })
	b.do(chromedp.Click(`//a[normalize-space()="` + text + `"]`))
	select {
	case id := <-opened:
		ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(id))
		b.t.Cleanup(cancel)
		return &tab{b.t, ctx}
	case <-b.ctx.Done():
		b.t.Fatal(b.ctx.Err())
		return nil
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// load does what leads to another page, waits for it, and wants its status.
func (b *tab) load(status int64, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	res, err := chromedp.RunResponse(b.ctx, actions...)
	if err != nil {
		b.t.Fatal(err)
	}
	if res.Status != status {
		b.t.Errorf("%s: status %d, want %d", res.URL, res.Status, status)
	}
}

func (b *tab) open(url string) {
	b.t.Helper()
	b.load(200, chromedp.Navigate(url))
}

// press presses the button that says text, and wants the status of the page that it leads to.
func (b *tab) press(text string, status int64) {
	b.t.Helper()
	b.load(status, chromedp.Click(`//button[normalize-space()="`+text+`"]`))
}

// back follows the link from a report to the demo.
func (b *tab) back() {
	b.t.Helper()
	b.load(200, chromedp.Click(`//a[normalize-space()="Back to the demo"]`))
}

// enter types into the field of that name.
func (b *tab) enter(field, text string) {
	b.t.Helper()
	b.do(chromedp.SetValue(chromedp.CSS(`input[name=`+field+`]`), text))
}

func (b *tab) login(user string) {
	b.t.Helper()
	b.enter("user", user)
	b.press("Log in", 200)
}

// eval returns the value of a JavaScript expression on the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// shows returns what the page shows of that name, "" if nothing.
func (b *tab) shows(name string) string {
	b.t.Helper()
	return eval[string](b, `document.querySelector('[data-is="`+name+`"]')?.innerText ?? ""`)
}

// want wants what the page shows: pairs of a name and a text, or the beginning of it with "…" at the end.
func (b *tab) want(pairs ...string) {
	b.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		got, want := b.shows(pairs[i]), pairs[i+1]
		begin, cut := strings.CutSuffix(want, "…")
		if got != want && !(cut && strings.HasPrefix(got, begin)) {
			b.t.Errorf("the page shows %s %q, want %q", pairs[i], got, want)
		}
	}
}

// has reports whether the page has an element that a CSS selector finds.
func (b *tab) has(selector string) bool {
	b.t.Helper()
	return eval[bool](b, fmt.Sprintf(`document.querySelector(%q) != null`, selector))
}

// await waits until the page shows something of that name, however long that takes.
func (b *tab) await(name string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](`document.querySelector('[data-is="`+name+`"]') != null`,
		chromedp.WithPollingTimeout(0), chromedp.WithPollingInterval(50*time.Millisecond)))
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) wantCookies(want int) {
	b.t.Helper()
	res, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	if got := len(res.Cookies); got != want {
		b.t.Errorf("the browser has %d cookies, want %d", got, want)
	}
}

// look makes the window so wide, and light or dark.
func (b *tab) look(width int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	if err != nil {
		b.t.Fatal(err)
	}
}
