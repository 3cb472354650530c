package main

import (
	"crypto/rand"
	"net/http"

	gorilla "github.com/gorilla/sessions"
)

// gorillaFiles returns gorilla/sessions' FilesystemStore, with its defaults. Its way to
// move a session's end with its use is a Save by each request.
func gorillaFiles(name string, floors ...string) contender {
	return contender{name: name, kind: rival, floors: floors, open: func(p place) (*site, error) {
		key := make([]byte, 32)
		rand.Read(key)
		store := gorilla.NewFilesystemStore(p.dir, key)
		return &site{
			handler: func(w Workload) http.Handler { return gorillaHandler(w, store) },
			close:   func() error { return nil },
		}, nil
	}}
}

func gorillaHandler(w Workload, store gorilla.Store) http.Handler {
	if w == W0 || w == W0b {
		return bare
	}
	return answer(func(rw http.ResponseWriter, r *http.Request) error {
		s, err := store.Get(r, "session")
		if err != nil {
			return err
		}
		if w == W3 {
			for _, k := range keys {
				s.Values[k] = value
			}
			return s.Save(r, rw)
		}
		v, _ := s.Values[theKey].(string)
		switch {
		case v == "":
			return errNoValue
		case w == W1:
			return nil
		case w == W2:
			s.Values[theKey] = next(v)
		}
		return s.Save(r, rw)
	})
}
