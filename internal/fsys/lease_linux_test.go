package fsys_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/session2/session2/internal/fsys"
)

// A file on which a file server has a lease is opened when that has given it back.
func TestOpenFileWaitsForALease(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	lease := func(kind int) error {
		_, err := unix.FcntlInt(server.Fd(), unix.F_SETLEASE, kind)
		return err
	}
	if err := lease(unix.F_RDLCK); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error)
	go func() {
		f, err := fsys.OS.OpenFile(name, os.O_RDWR, 0)
		if err == nil {
			err = f.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("it was opened beside the lease: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := lease(unix.F_UNLCK); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
