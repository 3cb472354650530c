package frameworks

import (
	"net/http"
	"time"

	"github.com/session2/session2"
)

var wanted = session2.NewKey[string]("wanted page")

func passwordRight(w http.ResponseWriter, r *http.Request, user string) {
	s := session2.FromContext(r.Context())
	s.SetUser(user)
	if r.PostFormValue("remember") != "" {
		s.Remember(30 * 24 * time.Hour)
	} else { // whatever an earlier login of this session has asked for
		s.SetPersistent(false)
		s.SetLifetime(0)
		s.SetIdleTimeout(0)
	}
	onward(w, r)
}

func secondFactorRight(w http.ResponseWriter, r *http.Request) {
	session2.FromContext(r.Context()).SetLevel(2) // replaces the token, as SetUser does
	onward(w, r)
}

// sensitive lets in whoever has proved two factors, and has done so just now.
func sensitive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session2.FromContext(r.Context())
		switch {
		case s.User() == "":
			ask(w, r, "/login")
		case s.Level() < 2 || !s.AuthenticatedWithin(5*time.Minute):
			ask(w, r, "/second-factor")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ask keeps where the user wanted to go in the session, where no link can put it.
func ask(w http.ResponseWriter, r *http.Request, page string) {
	if r.Method == http.MethodGet {
		wanted.Set(session2.FromContext(r.Context()), r.URL.RequestURI())
	}
	http.Redirect(w, r, page, http.StatusSeeOther)
}

func onward(w http.ResponseWriter, r *http.Request) {
	page, ok := wanted.Pop(session2.FromContext(r.Context()))
	if !ok {
		page = "/"
	}
	http.Redirect(w, r, page, http.StatusSeeOther)
}

func factorsApp(m *session2.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { passwordRight(w, r, "alice") })
	mux.HandleFunc("POST /second-factor", func(w http.ResponseWriter, r *http.Request) {
		if session2.FromContext(r.Context()).User() == "" {
			ask(w, r, "/login")
			return
		}
		secondFactorRight(w, r)
	})
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	mux.Handle("/payment", sensitive(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("paid"))
	})))
	return m.Wrap(mux)
}
