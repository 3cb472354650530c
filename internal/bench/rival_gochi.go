package main

import (
	"net/http"

	gochi "gitea.com/go-chi/session"
)

// gochiOn returns gitea.com/go-chi/session with one of its providers, and its
// defaults. It notes each access, with an idle timeout or not.
func gochiOn(name, provider string, setup func(place) (config string, err error), floors ...string) contender {
	return contender{name: name, kind: rival, floors: floors, shy: true, open: func(p place) (*site, error) {
		config, err := setup(p)
		if err != nil {
			return nil, err
		}
		wrap, err := gochi.Sessioner(gochi.Options{Provider: provider, ProviderConfig: config})
		if err != nil {
			return nil, err
		}
		return &site{
			handler: func(w Workload) http.Handler { return wrap(gochiHandler(w)) },
			close:   func() error { return nil },
		}, nil
	}}
}

func gochiHandler(w Workload) http.Handler {
	switch w {
	case W1, W4:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			if v, _ := gochi.GetSession(r).Get(theKey).(string); v == "" {
				return errNoValue
			}
			return nil
		})
	case W2:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			s := gochi.GetSession(r)
			v, _ := s.Get(theKey).(string)
			if v == "" {
				return errNoValue
			}
			return s.Set(theKey, next(v))
		})
	case W3:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			s := gochi.GetSession(r)
			for _, k := range keys {
				if err := s.Set(k, value); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return bare
}
