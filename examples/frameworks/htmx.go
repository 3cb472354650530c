package frameworks

import (
	"fmt"
	"html/template"
	"net/http"

	"github.com/session2/session2"
)

var htmxPage = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<body hx-headers='{"X-CSRF-Token": "{{.}}"}'>
<button hx-post="/count" hx-target="#count">Count</button> <b id="count"></b>
`))

func htmxApp(m *session2.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /logout", logout)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		htmxPage.Execute(w, m.Session(r).CSRFToken())
	})
	mux.HandleFunc("POST /count", fragment(m, func(w http.ResponseWriter, r *http.Request) {
		n, err := visits.Commit(r.Context(), m.Session(r), plusOne)
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, n)
	}))
	return m.Wrap(mux)
}

// fragment is for requests of htmx by somebody who is signed in.
func fragment(m *session2.Manager, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch s := m.Session(r); {
		case s.User() == "":
			w.Header().Set("HX-Redirect", "/login") // the page goes there; after a 303 its form would be the fragment
			w.WriteHeader(http.StatusUnauthorized)
		case !s.ValidCSRFToken(r):
			w.Header().Set("HX-Refresh", "true") // a login has replaced the token of this page
			w.WriteHeader(http.StatusForbidden)
		default:
			next(w, r)
		}
	}
}
