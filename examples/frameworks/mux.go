package frameworks

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/session2/session2"
)

func muxApp(m *session2.Manager) http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/login", login).Methods("POST")
	r.HandleFunc("/count", count).Methods("POST")
	r.HandleFunc("/logout", logout).Methods("POST")
	return m.Wrap(r)
}
