package frameworks

import (
	"net"
	"net/http"
)

// behindNginx, outside Wrap, takes the client's address from the header that nginx sets.
// The application must listen where nobody but nginx comes: 127.0.0.1, or a Unix socket.
func behindNginx(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ip := net.ParseIP(r.Header.Get("X-Real-IP")); ip != nil {
			r.RemoteAddr = net.JoinHostPort(ip.String(), "0")
		}
		next.ServeHTTP(w, r)
	})
}
