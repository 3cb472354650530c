package frameworks

import (
	"net/http"

	"github.com/session2/session2"
)

// framedCookie is for a site that others show in a frame.
var framedCookie = session2.CookieConfig{SameSite: http.SameSiteNoneMode, Partitioned: true}
