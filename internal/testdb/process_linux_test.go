package testdb

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestKilledServersLeaveNoMemory finds that a killed server's shared memory goes
// with its directory.
func TestKilledServersLeaveNoMemory(t *testing.T) {
	notShort(t)
	var id int
	t.Run("server", func(t *testing.T) {
		s := NewPostgres(t)
		s.Kill()
		var err error
		if _, id, err = sharedMemory(s.dir); err != nil {
			t.Fatal(err)
		}
	})
	var d unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d); err == nil {
		t.Errorf("piece %d is still there", id)
	}
}
