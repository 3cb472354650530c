// The program of the README: a page that counts its visits.
package main

import (
	"context"
	"fmt"
	"html"
	"log"
	"net/http"
	"time"

	"github.com/session2/session2"
)

var visits = session2.NewKey[int]("visits")

const page = `<!doctype html><title>hello</title><p>Hello %s, this is your visit number %d.</p>
<form method=post action=/login><input name=user> <button>Log in</button></form>
<form method=post action=/logout><button>Log out</button></form>
`

func main() {
	store, err := session2.OpenBoltStore("sessions.db", nil) // sessions outlive the program
	if err != nil {
		log.Fatal(err)
	}
	m, err := session2.NewManager(store, session2.Config{
		Cookie: session2.CookieConfig{Insecure: true}, // plain HTTP, on your own machine only
	})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		n, err := visits.Commit(r.Context(), s, func(n int) (int, error) { return n + 1, nil })
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, page, html.EscapeString(s.User()), n)
	})
	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		m.Session(r).SetUser(r.FormValue("user")) // check a password first
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	http.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		m.Session(r).Destroy()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	go m.Cleanup(context.Background(), time.Minute)                            // deletes what has expired
	h := http.NewCrossOriginProtection().Handler(m.Wrap(http.DefaultServeMux)) // no login that another site sends
	log.Fatal(http.ListenAndServe("localhost:8080", h))
}
