package main

import (
	"crypto/rand"
	"net/http"
	"sync"
)

// byHandStore is a floor: the same work without a library. A session is 1 KiB under a
// random ID.
type byHandStore interface {
	get(id [16]byte) ([]byte, error)
	put(id [16]byte, data []byte) error // of a session that is there
	add(id [16]byte, data []byte) error
	close() error
}

func byHandData() []byte {
	data := make([]byte, 0, 1024)
	for range keys {
		data = append(data, value...)
	}
	return data
}

// floorOf returns the floor of a store.
func floorOf(name string, open func(place) (byHandStore, error)) contender {
	return contender{name: name, kind: floor, open: func(p place) (*site, error) {
		h, err := open(p)
		if err != nil {
			return nil, err
		}
		s := &site{handler: func(w Workload) http.Handler { return byHandHandler(w, h) }, close: h.close}
		if table, ok := h.(byHandSQL); ok && table.rows != nil {
			s.sweeper, s.rows = table.sweeper(), table.rows
		}
		return s, nil
	}}
}

func byHandHandler(w Workload, h byHandStore) http.Handler {
	switch w {
	case W1, W4:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			_, _, err := byHandGet(h, r)
			return err
		})
	case W2:
		return answer(func(_ http.ResponseWriter, r *http.Request) error {
			id, data, err := byHandGet(h, r)
			if err != nil {
				return err
			}
			data[0]++
			return h.put(id, data)
		})
	case W3:
		return answer(func(w http.ResponseWriter, r *http.Request) error {
			var id [16]byte
			rand.Read(id[:])
			byHandCookie(w, id)
			return h.add(id, byHandData())
		})
	}
	return bare
}

func byHandGet(h byHandStore, r *http.Request) (id [16]byte, data []byte, err error) {
	if id, err = byHandID(r); err != nil {
		return id, nil, err
	}
	if data, err = h.get(id); err == nil && len(data) == 0 {
		err = errNoValue
	}
	return id, data, err
}

// byHandMap is a map behind a lock. Data are copied in and out.
type byHandMap struct {
	mu sync.RWMutex
	m  map[[16]byte][]byte
}

func (h *byHandMap) get(id [16]byte) ([]byte, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return append([]byte(nil), h.m[id]...), nil
}

func (h *byHandMap) put(id [16]byte, data []byte) error {
	data = append([]byte(nil), data...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.m[id] = data
	return nil
}

func (h *byHandMap) add(id [16]byte, data []byte) error { return h.put(id, data) }
func (h *byHandMap) close() error                       { return nil }
