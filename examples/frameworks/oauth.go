package frameworks

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"time"

	"github.com/session2/session2"
)

// oauth signs in by a provider.
type oauth struct {
	m        *session2.Manager
	state    *session2.Manager // m for a redirect, newStates for form_post
	provider string            // the URL to send the browser to
	query    url.Values        // what it is asked: client_id, redirect_uri, response_type, response_mode

	// exchange asks the provider whose the code is.
	exchange func(ctx context.Context, code, verifier string) (user string, err error)
}

var (
	pkce   = session2.NewKey[string]("pkce")
	proved = session2.NewKey[string]("proved")
)

// newStates makes the manager for form_post: the provider's page posts to ours, and a
// browser sends only a cookie with SameSite=None along with that.
func newStates(store session2.Store) (*session2.Manager, error) {
	return session2.NewManager(store, session2.Config{
		Realm:    "oauth",
		Lifetime: 10 * time.Minute,
		Cookie:   session2.CookieConfig{Name: "__Host-oauth", SameSite: http.SameSiteNoneMode},
	})
}

func (o *oauth) start(w http.ResponseWriter, r *http.Request) {
	s := o.state.Session(r)
	verifier := rand.Text() + rand.Text()
	pkce.Set(s, verifier)
	hash := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"state":                 {s.FormToken()},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(hash[:])},
		"code_challenge_method": {"S256"},
	}
	http.Redirect(w, r, o.provider+"?"+o.query.Encode()+"&"+q.Encode(), http.StatusSeeOther)
}

// callback is where the provider sends the browser back, by GET or by form_post.
func (o *oauth) callback(w http.ResponseWriter, r *http.Request) {
	s := o.state.Session(r)
	ok, err := s.UseFormToken(r.Context(), r.FormValue("state")) // once, and for this browser alone
	if err != nil {
		http.Error(w, "Please try again.", http.StatusServiceUnavailable)
		return
	}
	if !ok { // before anything is taken out: another site can post here
		http.Error(w, "This login was not begun here.", http.StatusForbidden)
		return
	}
	verifier, _ := pkce.Pop(s)
	user, err := o.exchange(r.Context(), r.FormValue("code"), verifier)
	if err != nil {
		http.Error(w, "The provider did not say who you are.", http.StatusForbidden)
		return
	}
	proved.Set(s, user)
	http.Redirect(w, r, "/oauth/done", http.StatusSeeOther)
}

// done is a GET, to which the browser brings the session's own cookie again.
func (o *oauth) done(w http.ResponseWriter, r *http.Request) {
	user, ok := proved.Pop(o.state.Session(r))
	if !ok {
		http.Error(w, "This login was not begun here.", http.StatusForbidden)
		return
	}
	o.m.Session(r).SetUser(user) // what the visitor had in the session stays
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// handler has the session of the state inside the session's own.
func (o *oauth) handler(mux *http.ServeMux) http.Handler {
	mux.HandleFunc("GET /oauth/start", o.start)
	mux.HandleFunc("/oauth/callback", o.callback)
	mux.HandleFunc("GET /oauth/done", o.done)
	mux.HandleFunc("POST /login", func(_ http.ResponseWriter, r *http.Request) { o.m.Session(r).SetUser("alice") })
	mux.HandleFunc("POST /logout", func(_ http.ResponseWriter, r *http.Request) { o.m.Session(r).Destroy() })
	return protected(o.m, o.state.Wrap(mux))
}
