package frameworks

import (
	"net/http"
	"net/http/httputil"
	"net/url"

	"github.com/session2/session2"
)

func proxyApp(m *session2.Manager, backend *url.URL) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	mux.Handle("/", &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(backend)
			m.StripCookie(pr.Out)
			pr.Out.Header.Set("X-User", m.Session(pr.In).User()) // Set: a client's own X-User must not get through
		},
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode == http.StatusSwitchingProtocols { // a WebSocket, which leaves past Wrap
				res.Header.Del("Set-Cookie")
			}
			return nil
		},
	})
	return m.Wrap(mux)
}
