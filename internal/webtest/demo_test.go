package webtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestDemo presses the demo's buttons in a browser.
func TestDemo(t *testing.T) {
	c, url := chromium(t), runDemo(t)
	for _, test := range []struct {
		name string
		run  func(b *tab, other func() *tab)
	}{
		{"a visitor has no cookie", demoVisitor},
		{"log in and out", demoLogin},
		{"a failed request shows before and after", demoFailed},
		{"64 increments at once", demoAtOnce},
		{"a logout while a slow request runs", demoSlowLogout},
		{"the stolen cookie", demoStolen},
		{"two tabs", demoTabs},
		{"the live stream ends with the session", demoLive},
		{"messages and forms", demoForms},
		{"sessions are ended from the list", demoList},
		{"old sessions are deleted", demoDeleteOld},
		{"wide and narrow, light and dark", demoLooks},
	} {
		t.Run(test.name, func(t *testing.T) {
			open := func() *tab {
				b := newBrowser(t, c)
				b.open(url)
				return b
			}
			test.run(open(), open)
		})
	}
}

func demoVisitor(b *tab, _ func() *tab) {
	b.want("none", "You have no session…")
	b.wantCookies(0)
	if b.has("script") {
		b.t.Error("the page has a script")
	}
}

func demoLogin(b *tab, _ func() *tab) {
	b.login("alice")
	b.want("user", "alice", "message", "Hello alice…")
	b.wantCookies(1)
	if eval[string](b, `document.cookie`) != "" {
		b.t.Error("a script can read the cookie")
	}
	b.enter("value", "a < b")
	b.press("Keep", 200)
	b.want("kept", "a < b")
	b.press("Log out", 200)
	b.want("user", "", "none", "You have no session…")
	b.wantCookies(0)
}

func demoFailed(b *tab, _ func() *tab) {
	b.login("alice")
	b.press("Increment", 200)
	b.want("counter", "1", "message", "Stored: the counter is 1.")
	b.press("Increment and fail", 500)
	b.want("was-counter", "1", "had-counter", "2", "now-counter", "1")
	b.back()
	b.want("counter", "1")
	b.press("Log out and fail", 500)
	b.want("was-user", "alice", "had-user", "nobody", "now-user", "alice")
	b.back()
	b.want("user", "alice")
}

func demoAtOnce(b *tab, _ func() *tab) {
	b.press("Increment", 200)
	b.press("Send 64 increments at once", 200)
	b.want("commit-kept", "64 of 64", "commit-counter", "1 → 65", "commit-refused", "0",
		"commit-distinct", "64 different numbers")
	b.want("plain-kept", "1 of 64", "plain-counter", "1 → 2", "plain-lost", "63")
	b.want("get-and-set-kept", "1 of 1", "get-and-set-refused", "63", "get-and-set-lost", "0")
	b.back()
	b.want("counter", "66")
}

func demoSlowLogout(b *tab, _ func() *tab) {
	b.login("alice")
	b.press("Log out while a slow request runs", 200)
	b.want("slow", "dropped", "there", "is gone", "plain", "is back, and alice is logged in")
	for _, kind := range []string{"destroyed", "dropped"} {
		if !b.has("[data-event=" + kind + "]") {
			b.t.Errorf("the page does not show the event %q", kind)
		}
	}
	b.wantCookies(0)
	b.back()
	b.want("user", "", "none", "You have no session…")
}

func demoStolen(b *tab, _ func() *tab) {
	b.login("alice")
	b.press("Let a thief copy the cookie", 200)
	b.press("Use the stolen cookie", 200)
	b.want("thief", "The thief is in…", "response", "alice, who has counted to 0.")
	b.back()
	b.press("Renew the token", 200)
	b.press("Use the stolen cookie", 200)
	b.want("thief", "The thief is out…", "status", "401", "response", "Nobody…")
	if !b.has("[data-event=unknown]") {
		b.t.Error("the page does not show the event")
	}
	b.back()
	b.want("user", "alice")
}

func demoTabs(b *tab, _ func() *tab) {
	b.login("alice")
	second := b.newTab("Open this page in a second tab")
	second.await("user")
	second.press("Increment", 200)
	b.press("Increment", 200)
	b.want("counter", "2", "message", "Stored: the counter is 2.")
	second.login("bob")
	b.press("Increment", 403)
	b.want("problem", "That page was older than your session…", "was-user", "bob", "now-counter", "0")
	b.back()
	b.want("user", "bob", "counter", "0")
}

func demoLive(b *tab, other func() *tab) {
	b.login("carol")
	stream := b.newTab("Open a live stream in a second tab")
	stream.await("live")
	stream.want("live-user", "carol", "live-end", "")

	elsewhere := other()
	elsewhere.login("carol")
	elsewhere.press("Log out everywhere", 200)
	stream.await("live-end")
	stream.want("live-end", "The session has ended.")
	b.press("Increment", 200) // by somebody who has no session any more
	b.want("user", "", "counter", "1")
}

func demoForms(b *tab, _ func() *tab) {
	b.press("Leave a message", 200)
	b.want("message", "This message is shown once…")
	b.load(200, chromedp.Reload())
	b.want("message", "")
	b.press("Open a form", 200)
	b.press("Submit", 200)
	b.want("message", "The form was accepted…")
	b.press("Submit the same form again", 409)
	b.want("problem", "Refused…")
}

func demoList(b *tab, other func() *tab) {
	b.login("alice")
	victim := other()
	victim.login("mallory")
	id := victim.shows("id")
	b.load(200, chromedp.Reload())
	b.load(200, chromedp.Click(chromedp.CSS(`button[aria-label="End session `+id+`"]`)))
	b.want("message", "Session "+id+" has ended.")
	if b.has(`[data-row="` + id + `"]`) {
		b.t.Error("the list still has the session that was ended")
	}
	victim.load(200, chromedp.Reload())
	victim.want("user", "")
}

func demoDeleteOld(b *tab, _ func() *tab) {
	b.login("alice")
	b.enter("minutes", "0")
	b.press("Delete old sessions", 200)
	b.want("user", "")
}

// demoLooks looks at the pages as a phone and as a desk would show them. Nothing is wider
// than the window. SESSION2_SCREENSHOTS names a directory to leave pictures in.
func demoLooks(b *tab, other func() *tab) {
	other().login("somebody-else")
	b.login("alice")
	b.press("Let a thief copy the cookie", 200)
	b.press("Increment", 200)
	looks(b, "page")
	b.press("Increment and fail", 500)
	looks(b, "failed")
	b.back()
	b.press("Send 64 increments at once", 200)
	looks(b, "at-once")
	b.back()
	b.press("Renew the token", 200)
	b.press("Use the stolen cookie", 200)
	looks(b, "stolen")
	b.back()
	looks(b, "page-later")
	b.press("Log out while a slow request runs", 200)
	looks(b, "slow-logout")
	b.back()
	looks(b, "visitor")
}

func looks(b *tab, name string) {
	b.t.Helper()
	for _, width := range []int64{1200, 390} {
		for _, scheme := range []string{"light", "dark"} {
			b.look(width, scheme)
			if eval[bool](b, `document.documentElement.scrollWidth > innerWidth`) {
				b.t.Errorf("%s is wider than %d pixels", name, width)
			}
			if dir := os.Getenv("SESSION2_SCREENSHOTS"); dir != "" {
				b.picture(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, scheme)))
			}
		}
	}
}

// picture leaves a picture of the whole page in a file.
func (b *tab) picture(file string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(file, png, 0o600)
	}
	if err != nil {
		b.t.Error(err)
	}
}
