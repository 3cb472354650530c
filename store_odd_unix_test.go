//go:build unix

package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// oddFiles are what may be in the place of a file, and would be waited for, or not be opened.
var oddFiles = map[string]func(path string) error{
	"FIFO": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	"link to a FIFO": func(path string) error {
		return errors.Join(syscall.Mkfifo(path+".fifo", 0o600), os.Symlink(filepath.Base(path)+".fifo", path))
	},
	"socket": func(path string) error {
		short := filepath.Join(os.TempDir(), filepath.Base(path)[:1]+".socket") // a socket's path is short
		l, err := net.Listen("unix", short)
		if err != nil {
			return err
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		return errors.Join(l.Close(), os.Rename(short, path))
	},
}

// TestOddFiles puts something else in the place of each file of a store, one at a time. No
// call waits for it, opening fails by saying what is wrong or the store works, and no other
// record is harmed.
func TestOddFiles(t *testing.T) {
	for name, open := range map[string]func(path string) (session2.Store, error){
		"file": func(path string) (session2.Store, error) {
			return session2.OpenFileStore(path, &session2.FileOptions{NoSync: true, Logger: slog.New(slog.DiscardHandler)})
		},
		"gob": func(path string) (session2.Store, error) {
			return session2.OpenGobStore(path, &session2.GobOptions{NoSync: true, Logger: slog.New(slog.DiscardHandler)})
		},
		"bolt": func(path string) (session2.Store, error) {
			return session2.OpenBoltStore(path, &session2.BoltOptions{NoSync: true, Timeout: time.Second})
		},
	} {
		for _, file := range filesOf(t, open) {
			for kind, put := range oddFiles {
				t.Run(name+"/"+file+"/"+kind, func(t *testing.T) {
					path := oddStore(t, open)
					testsite.Must(t, os.RemoveAll(path+file))
					testsite.Must(t, put(path+file))
					done := make(chan error, 1)
					go func() { done <- useOdd(path, open, file) }()
					select {
					case err := <-done:
						if err != nil && !strings.Contains(err.Error(), "not a ") && !strings.Contains(err.Error(), "neither a ") {
							t.Error(err)
						}
					case <-time.After(20 * time.Second):
						t.Fatal("a call waits for it")
					}
				})
			}
		}
	}
}

// oddStore makes a store with two records, of which nothing is open.
func oddStore(t *testing.T, open func(path string) (session2.Store, error)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sessions")
	store, err := open(path)
	testsite.Must(t, err)
	for i, user := range []string{"alice", "bob"} {
		testsite.Must(t, store.Save(t.Context(), houseRecord(byte(i+1), user), 0))
	}
	_, err = store.(session2.DeleteOldStore).DeleteOld(t.Context(), math.MaxInt64)
	testsite.Must(t, err)
	testsite.Must(t, session2.Close(store))
	return path
}

// filesOf returns what a store opens by name, after its path: the files that it has, without
// those of a kind, their temporaries, and what is not always there.
func filesOf(t *testing.T, open func(path string) (session2.Store, error)) []string {
	t.Helper()
	path := oddStore(t, open)
	list := []string{"", ".tmp", ".index", ".index.tmp", ".compact.lock"}
	testsite.Must(t, filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		name, rel := filepath.Base(file), file[len(path):]
		if rel != "" && !(filepath.Base(filepath.Dir(file)) == "locks" && len(name) == 2 && name != "01") {
			list = append(list, rel)
			if !d.IsDir() {
				list = append(list, rel+".tmp")
			}
		}
		return err
	}))
	return list
}

// useOdd makes each call there is on a store that has something odd in the place of a file.
func useOdd(path string, open func(path string) (session2.Store, error), file string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	store, err := open(path)
	if err != nil {
		return err
	}
	defer session2.Close(store)
	if file == "" {
		return errors.New("the store was opened")
	}
	var first session2.Record
	for _, n := range []byte{2, 1} {
		id := houseRecord(n, "").ID
		rec, err := store.Load(ctx, id)
		damaged := file == fmt.Sprintf("/sessions/%02x/%v", n, id)
		if damaged != errors.Is(err, session2.ErrCorrupt) || !damaged && err != nil {
			return fmt.Errorf("Load of record %d: %w", n, err)
		}
		first = rec
	}
	listed := 0
	for _, err := range store.(session2.IterStore).Iter(ctx) {
		if err == nil {
			listed++
		} else if !errors.Is(err, session2.ErrCorrupt) {
			return err
		}
	}
	if listed == 0 {
		return errors.New("Iter has found nothing")
	}
	// What cannot be carried out may fail, at once.
	store.Save(ctx, houseRecord(3, "alice"), 0)
	next := first
	next.Version = 77
	store.Save(ctx, next, first.Version)
	store.(session2.TouchStore).Touch(ctx, first.ID, time.Now(), time.Now().Add(2*time.Hour))
	for range store.(session2.UserStore).IterUser(ctx, "alice") {
	}
	store.(session2.DeleteOldStore).DeleteOld(ctx, time.Hour)
	store.(session2.UserStore).DeleteUser(ctx, "alice")
	session2.Setup(ctx, store)
	return ctx.Err()
}
