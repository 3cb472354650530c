package main

import (
	"path/filepath"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"

	"github.com/session2/session2"
)

// groups returns what is measured, store by store.
func groups() []group {
	return []group{
		{store: "memory", contenders: memory(), volatile: true},
		{store: "file", contenders: files(), files: true},
		{store: "bolt", contenders: bolt()},
		{store: "gob", contenders: gob()},
		{
			store: "postgres", contenders: postgres(), server: startPostgres, cramped: crampedPostgres,
			settle: []string{"VACUUM ANALYZE", "CHECKPOINT"},
		},
		{store: "mysql", contenders: mysqls(), server: startMySQL, cramped: crampedMySQL},
	}
}

func memory() []contender {
	const byHand = "a map by hand"
	return []contender{
		floorOf(byHand, func(place) (h byHandStore, err error) {
			return &byHandMap{m: make(map[[16]byte][]byte)}, nil
		}),
		sessions("session2 memory", func(place) (session2.Store, error) {
			return session2.NewMemoryStore(), nil
		}, byHand),
		scsOn("scs memstore", func(place) (scs.Store, func() error, error) {
			store := memstore.NewWithCleanupInterval(0)
			return store, func() error { return nil }, nil
		}, byHand),
		gochiOn("go-chi/session memory", "memory", func(place) (string, error) { return "", nil }, byHand),
	}
}

func files() []contender {
	const both, synced, unsynced = "files by hand, directory synced too", "files by hand", "files by hand, no sync"
	return []contender{
		floorOf(both, func(p place) (byHandStore, error) { return openByHandFiles(p.dir, true, true) }),
		floorOf(synced, func(p place) (byHandStore, error) { return openByHandFiles(p.dir, true, false) }),
		floorOf(unsynced, func(p place) (byHandStore, error) { return openByHandFiles(p.dir, false, false) }),
		sessions("session2 file", func(p place) (session2.Store, error) {
			return session2.OpenFileStore(filepath.Join(p.dir, "sessions"), nil)
		}, both, synced),
		sessions("session2 file, NoSync", func(p place) (session2.Store, error) {
			return session2.OpenFileStore(filepath.Join(p.dir, "sessions"), &session2.FileOptions{NoSync: true})
		}, unsynced),
		gorillaFiles("gorilla FilesystemStore (no sync)", unsynced),
		gochiOn("go-chi/session file (no sync)", "file", func(p place) (string, error) { return p.dir, nil }, unsynced),
	}
}

func bolt() []contender {
	const byHand = "bbolt by hand"
	return []contender{
		floorOf(byHand, func(p place) (byHandStore, error) { return openByHandBolt(p.dir) }),
		sessions("session2 bolt", func(p place) (session2.Store, error) {
			return session2.OpenBoltStore(filepath.Join(p.dir, "sessions.db"), nil)
		}, byHand),
	}
}

func gob() []contender {
	const byHand = "a log by hand"
	return []contender{
		floorOf(byHand, func(p place) (byHandStore, error) { return openByHandLog(p.dir) }),
		sessions("session2 gob", func(p place) (session2.Store, error) {
			return session2.OpenGobStore(filepath.Join(p.dir, "sessions.gob"), nil)
		}, byHand),
	}
}
