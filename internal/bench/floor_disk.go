package main

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"go.etcd.io/bbolt"
)

// byHandFiles is a file for each session, spread over 256 directories. A file is
// written to a temporary, synced and renamed, and then its directory may be synced.
type byHandFiles struct {
	dir               string
	syncFile, syncDir bool
}

func openByHandFiles(dir string, syncFile, syncDir bool) (byHandStore, error) {
	for i := range 256 {
		if err := os.Mkdir(filepath.Join(dir, hex.EncodeToString([]byte{byte(i)})), 0o700); err != nil {
			return nil, err
		}
	}
	return byHandFiles{dir, syncFile, syncDir}, nil
}

func (h byHandFiles) path(id [16]byte) string {
	name := hex.EncodeToString(id[:])
	return h.dir + "/" + name[:2] + "/" + name
}

func (h byHandFiles) get(id [16]byte) ([]byte, error) { return os.ReadFile(h.path(id)) }

func (h byHandFiles) put(id [16]byte, data []byte) error {
	path := h.path(id)
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if h.syncFile {
		err = errors.Join(err, f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil || !h.syncDir {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (h byHandFiles) add(id [16]byte, data []byte) error { return h.put(id, data) }
func (h byHandFiles) close() error                       { return nil }

// byHandBolt is a Get and a Put of bbolt: a transaction each, and a sync for each Put.
type byHandBolt struct{ db *bbolt.DB }

var byHandBucket = []byte("sessions")

func openByHandBolt(dir string) (byHandStore, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt.db"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(byHandBucket)
		return err
	})
	return byHandBolt{db}, err
}

func (h byHandBolt) get(id [16]byte) (data []byte, err error) {
	err = h.db.View(func(tx *bbolt.Tx) error {
		data = append(data, tx.Bucket(byHandBucket).Get(id[:])...)
		return nil
	})
	return data, err
}

func (h byHandBolt) put(id [16]byte, data []byte) error {
	return h.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(byHandBucket).Put(id[:], data) })
}

func (h byHandBolt) add(id [16]byte, data []byte) error { return h.put(id, data) }
func (h byHandBolt) close() error                       { return h.db.Close() }

// byHandLog is a file that is appended to, with a sync each time, and a map from IDs
// to places in it.
type byHandLog struct {
	f *os.File

	mu   sync.RWMutex
	end  int64
	from map[[16]byte]int64
}

func openByHandLog(dir string) (byHandStore, error) {
	f, err := os.Create(filepath.Join(dir, "log"))
	return &byHandLog{f: f, from: make(map[[16]byte]int64)}, err
}

func (h *byHandLog) get(id [16]byte) ([]byte, error) {
	h.mu.RLock()
	at, ok := h.from[id]
	h.mu.RUnlock()
	if !ok {
		return nil, errNoValue
	}
	data := make([]byte, len(keys)*len(value))
	_, err := h.f.ReadAt(data, at)
	return data, err
}

func (h *byHandLog) put(id [16]byte, data []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.f.WriteAt(data, h.end); err != nil {
		return err
	}
	if err := h.f.Sync(); err != nil {
		return err
	}
	h.from[id] = h.end
	h.end += int64(len(data))
	return nil
}

func (h *byHandLog) add(id [16]byte, data []byte) error { return h.put(id, data) }
func (h *byHandLog) close() error                       { return h.f.Close() }
