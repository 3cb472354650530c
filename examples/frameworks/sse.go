package frameworks

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/session2/session2"
)

func events(m *session2.Manager, news <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if m.Session(r).User() == "" { // this look is what makes the context end with the session
			w.WriteHeader(http.StatusNoContent) // an EventSource does not come again after 204
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		out := http.NewResponseController(w)
		out.Flush()
		for {
			select {
			case text := <-news:
				fmt.Fprintf(w, "data: %s\n\n", text)
				out.Flush()
			case <-r.Context().Done():
				if errors.Is(context.Cause(r.Context()), session2.ErrNotFound) {
					fmt.Fprint(w, "event: signed-out\ndata:\n\n")
				}
				return
			}
		}
	}
}
