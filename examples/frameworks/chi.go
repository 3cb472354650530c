package frameworks

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/session2/session2"
)

func chiApp(m *session2.Manager) http.Handler {
	r := chi.NewRouter()
	r.Use(m.Wrap, recoverer)
	r.Post("/login", login)
	r.Post("/count", count)
	r.Post("/logout", logout)
	return r
}
