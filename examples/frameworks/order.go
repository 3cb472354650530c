package frameworks

import (
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5/middleware"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/session2/session2"
)

// inOrder puts the usual middleware around an application, the innermost first.
func inOrder(m *session2.Manager, mux http.Handler, log *slog.Logger) http.Handler {
	h := recoverer(mux)           // a panic becomes a 500 before anything can write in a defer
	h = m.Wrap(h)                 // commits before the first byte, by the status that it sees
	h = middleware.Compress(5)(h) // outside, so that what it writes at the end comes after the commit
	h = cors(h)                   // outside, so that its headers stay on the session's own error page
	h = logged(h, log)            // outside, so that it sees the status that was sent; r.Pattern is there
	return otelhttp.NewHandler(h, "shop")
}

func recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch err := recover(); err {
			case nil:
			case http.ErrAbortHandler:
				panic(err)
			default:
				http.Error(w, "Something went wrong.", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Origin")
		if r.Header.Get("Origin") == "https://www.example.com" {
			w.Header().Set("Access-Control-Allow-Origin", "https://www.example.com")
			w.Header().Set("Access-Control-Allow-Credentials", "true")
		}
		next.ServeHTTP(w, r)
	})
}

func logged(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(ww, r)
		log.InfoContext(r.Context(), "request", "pattern", r.Pattern, "status", ww.Status())
	})
}
