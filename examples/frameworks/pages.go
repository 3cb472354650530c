package frameworks

import (
	"html/template"
	"net/http"

	"github.com/session2/session2"
)

var settingsPage = template.Must(template.New("").Parse(`<!doctype html><title>settings</title>
{{range .Messages}}<p>{{.}}</p>{{end}}
<form method=post><input type=hidden name=csrf_token value="{{.CSRF}}"><button>Save</button></form>
`))

// settings takes from the session what the template shows, before that writes its first byte.
func settings(w http.ResponseWriter, r *http.Request) {
	s := session2.FromContext(r.Context())
	page := struct {
		CSRF     string
		Messages []any
	}{s.CSRFToken(), s.Flashes()}
	settingsPage.Execute(w, page)
}

func saveSettings(w http.ResponseWriter, r *http.Request) {
	s := session2.FromContext(r.Context())
	if !s.ValidCSRFToken(r) {
		http.Error(w, "Please try again.", http.StatusForbidden)
		return
	}
	s.Flash("Saved.")
	http.Redirect(w, r, "/settings", http.StatusSeeOther)
}
