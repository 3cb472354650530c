// Package frameworks is docs/RECIPES.md as programs: one file for each recipe, and a
// test of each over a real server. It is a module of its own, so that the library does
// not depend on the frameworks.
package frameworks

import (
	"fmt"
	"net/http"

	"github.com/session2/session2"
)

var visits = session2.NewKey[int]("visits")

func plusOne(n int) (int, error) { return n + 1, nil }

func login(_ http.ResponseWriter, r *http.Request) {
	session2.FromContext(r.Context()).SetUser("alice") // when the password was right
}

func count(w http.ResponseWriter, r *http.Request) {
	n, err := visits.Commit(r.Context(), session2.FromContext(r.Context()), plusOne)
	if err != nil {
		http.Error(w, "Please try again.", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, n)
}

func logout(_ http.ResponseWriter, r *http.Request) {
	session2.FromContext(r.Context()).Destroy()
}

func netHTTP(m *session2.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	return m.Wrap(mux)
}
