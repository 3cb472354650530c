// The program of the README: a page that counts its visits.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/session2/session2"
)

var visits = session2.NewKey[int]("visits")

func main() {
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{
		Cookie: session2.CookieConfig{Insecure: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		n, err := visits.Commit(r.Context(), s, func(n int) (int, error) { return n + 1, nil })
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "Visit number %d.\n", n)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", m.Wrap(http.DefaultServeMux)))
}
