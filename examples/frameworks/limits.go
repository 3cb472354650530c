package frameworks

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/session2/session2"
)

// fromEnvironment opens the store that the program's surroundings name.
func fromEnvironment(ctx context.Context) (session2.Store, error) {
	store, err := session2.Open(ctx, os.Getenv("SESSION2_STORE")) // bolt:sessions.db, or postgres://app@db.internal/app
	if err != nil {
		return nil, err
	}
	err = session2.Setup(ctx, store) // makes what is not there, and never changes what is
	return store, err
}

// strict has the limits of assurance level 2, and some more.
func strict(store session2.Store) (*session2.Manager, error) {
	cfg := session2.AAL2()
	cfg.MaxPerUser, cfg.RenewEvery, cfg.ClearSiteData = 5, 15*time.Minute, true
	m, err := session2.NewManager(store, cfg)
	return m, err
}

// serve is a site that other sites cannot make requests to.
func serve(addr, cert, key string, m *session2.Manager, mux http.Handler) error {
	protect := http.NewCrossOriginProtection()
	err := http.ListenAndServeTLS(addr, cert, key, protect.Handler(m.Wrap(mux)))
	return err
}
