package main

import (
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"
)

// scsSweepsOn returns scs on a store that is a scsSweeping.
func scsSweepsOn(name string, open func(place) (scs.Store, func() error, error), floors ...string) contender {
	c := scsOn(name, open, floors...)
	c.sweeps = true
	return c
}

// scsOn returns alexedwards/scs on a store of its own, with its defaults.
func scsOn(name string, open func(place) (scs.Store, func() error, error), floors ...string) contender {
	return contender{name: name, kind: rival, floors: floors, open: func(p place) (*site, error) {
		store, done, err := open(p)
		if err != nil {
			return nil, err
		}
		plain, idle := scs.New(), scs.New()
		plain.Store, idle.Store = store, store
		idle.IdleTimeout = 30 * time.Minute
		st := &site{close: done, handler: func(w Workload) http.Handler {
			m := plain
			if w == W4 {
				m = idle
			}
			return m.LoadAndSave(scsHandler(w, m))
		}}
		if can, ok := store.(scsSweeping); ok {
			short := scs.New()
			short.Store, short.Lifetime = store, shortLife
			st.sweeper = &sweeper{short.LoadAndSave(scsHandler(W3, short)), []way{{"", can.sweep}}}
			st.rows = can.rows
		}
		return st, nil
	}}
}

// scsSweeping is a store with the statement that its own cleanup runs, which only a
// timer can start.
type scsSweeping struct {
	scs.Store
	sweep func() error
	rows  *rows
}

func scsHandler(w Workload, m *scs.SessionManager) http.Handler {
	switch w {
	case W1, W4:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			if m.GetString(r.Context(), theKey) == "" {
				return errNoValue
			}
			return nil
		})
	case W2:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			v := m.GetString(r.Context(), theKey)
			if v == "" {
				return errNoValue
			}
			m.Put(r.Context(), theKey, next(v))
			return nil
		})
	case W3:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			for _, k := range keys {
				m.Put(r.Context(), k, value)
			}
			return nil
		})
	}
	return bare
}
