package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/session2/session2"
)

// sessions returns session2 on a store. A workload without an idle timeout notes no
// accesses, as the others do not.
func sessions(name string, open func(place) (session2.Store, error), floors ...string) contender {
	return contender{name: name, kind: ours, floors: floors, sweeps: true, open: func(p place) (*site, error) {
		store, err := open(p)
		if err != nil {
			return nil, err
		}
		if err := session2.Setup(context.Background(), store); err != nil {
			return nil, err
		}
		plain, err := newManager(store, session2.Config{IdleTimeout: -1, AccessResolution: 24 * time.Hour})
		if err != nil {
			return nil, err
		}
		idle, err := newManager(store, session2.Config{IdleTimeout: 30 * time.Minute})
		if err != nil {
			return nil, err
		}
		short, err := newManager(store, session2.Config{Lifetime: shortLife, IdleTimeout: -1})
		if err != nil {
			return nil, err
		}
		s := &site{
			handler: func(w Workload) http.Handler {
				if w == W4 {
					return idle.Wrap(sessionsHandler(w))
				}
				return plain.Wrap(sessionsHandler(w))
			},
			close: func() error { return session2.Close(store) },
			sweeper: &sweeper{short.Wrap(sessionsHandler(W3)), []way{{"", func() error {
				_, err := store.(session2.DeleteOldStore).DeleteOld(context.Background(), 365*24*time.Hour)
				return err
			}}}},
		}
		if database, ok := store.(closing); ok {
			s.rows = database.rows
		}
		return s, nil
	}}
}

func newManager(store session2.Store, cfg session2.Config) (*session2.Manager, error) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	return session2.NewManager(store, cfg)
}

func sessionsHandler(w Workload) http.Handler {
	switch w {
	case W1, W4:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			if v, _ := session2.FromContext(r.Context()).Get(theKey).(string); v == "" {
				return errNoValue
			}
			return nil
		})
	case W2:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			s := session2.FromContext(r.Context())
			v, _ := s.Get(theKey).(string)
			if v == "" {
				return errNoValue
			}
			s.Set(theKey, next(v))
			return nil
		})
	case W3:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			s := session2.FromContext(r.Context())
			for _, k := range keys {
				s.Set(k, value)
			}
			return nil
		})
	}
	return bare
}
