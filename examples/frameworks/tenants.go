package frameworks

import (
	"net/http"

	"github.com/session2/session2"
)

// tenantsApp serves each host as a tenant of its own, out of one store.
func tenantsApp(store session2.Store, app http.Handler, hosts ...string) (http.Handler, error) {
	tenants := make(map[string]http.Handler)
	for _, host := range hosts {
		m, err := session2.NewManager(store, session2.Config{Realm: host})
		if err != nil {
			return nil, err
		}
		tenants[host] = m.Wrap(app) // in app, session2.FromContext is the tenant's session
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tenant, ok := tenants[r.Host]
		if !ok {
			http.Error(w, "no such tenant", http.StatusMisdirectedRequest)
			return
		}
		tenant.ServeHTTP(w, r)
	}), nil
}
