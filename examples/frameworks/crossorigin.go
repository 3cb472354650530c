package frameworks

import (
	"net/http"

	"github.com/session2/session2"
)

func protected(m *session2.Manager, mux http.Handler) http.Handler {
	protect := http.NewCrossOriginProtection()
	protect.AddInsecureBypassPattern("POST /oauth/callback") // another site's form_post, which has a state of its own
	return protect.Handler(m.Wrap(mux))
}
