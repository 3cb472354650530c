package frameworks

import (
	"context"
	"net/http"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/session2/session2"
)

// coderSocket counts the visits, and echoes until the session ends.
func coderSocket(m *session2.Manager) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		visits.Update(m.Session(r), func(n int) int { return n + 1 })
		conn, err := coder.Accept(w, r, nil) // commits, and the 101 brings a new session's cookie
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := r.Context() // ends with the session
		for {
			kind, text, err := conn.Read(ctx)
			if err != nil || conn.Write(ctx, kind, text) != nil {
				return
			}
		}
	}
}

var upgrader gorilla.Upgrader

// gorillaSocket is the same.
func gorillaSocket(m *session2.Manager) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := visits.Commit(r.Context(), m.Session(r), plusOne); err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		conn, err := upgrader.Upgrade(w, r, w.Header()) // the header has the cookie by then
		if err != nil {
			return
		}
		defer conn.Close()
		defer context.AfterFunc(r.Context(), func() { conn.Close() })() // ends with the session
		for {
			kind, text, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, text) != nil {
				return
			}
		}
	}
}
