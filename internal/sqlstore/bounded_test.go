package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2/internal/record"
)

func TestBounded(t *testing.T) {
	answer := errors.New("the driver's own")
	for _, c := range []struct {
		what        string
		takes       time.Duration
		want        error
		wantElapsed time.Duration
	}{
		{"in time", time.Second, answer, time.Second},
		{"soon after", 2*time.Second + grace/2, answer, 2*time.Second + grace/2},
		{"too late", time.Hour, context.DeadlineExceeded, 2*time.Second + grace},
	} {
		synctest.Test(t, func(t *testing.T) {
			defer time.Sleep(2 * time.Hour) // no goroutine is left when the driver has ended
			start := time.Now()
			_, err := bounded(t.Context(), 2*time.Second, func(context.Context) (int, error) {
				time.Sleep(c.takes) // whatever the context says
				return 0, answer
			})
			if !errors.Is(err, c.want) || time.Since(start) != c.wantElapsed {
				t.Errorf("%s: got %v after %v, want %v after %v", c.what, err, time.Since(start), c.want, c.wantElapsed)
			}
		})
	}
}

func TestBoundedByTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(2 * time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := bounded(ctx, 0, func(ctx context.Context) (int, error) {
			time.Sleep(time.Hour)
			return 0, nil
		})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errSilent) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}

// deaf is a driver that goes on when its context is done, until it is let go,
// and only then reads what it was given.
type deaf struct {
	driver.Conn
	release, read chan struct{}
	data          string
}

func (d *deaf) Connect(context.Context) (driver.Conn, error) { return d, nil }
func (d *deaf) Driver() driver.Driver                        { return nil }
func (d *deaf) Close() error                                 { return nil }

func (d *deaf) ExecContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Result, error) {
	<-d.release
	d.data = string(args[5].Value.([]byte))
	close(d.read)
	return driver.RowsAffected(1), nil
}

// TestGivenUpSaveLeavesTheDataAlone finds, under the race detector above all,
// that a Save which was given up has no hand on the caller's data.
func TestGivenUpSaveLeavesTheDataAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time passes only once the driver waits
		d := &deaf{release: make(chan struct{}), read: make(chan struct{})}
		db := sql.OpenDB(d)
		defer db.Close()
		s, err := newStore(db, Options{NoPrepare: true, Timeout: time.Second}, func([]string) dialect {
			return dialect{meaning: func(error) Fault { return Failed }}
		})
		if err != nil {
			t.Fatal(err)
		}
		data := []byte("as it was")
		err = s.Save(t.Context(), record.Record{Version: 2, Data: data}, 1)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		copy(data, "otherwise")
		close(d.release)
		<-d.read
		if d.data != "as it was" {
			t.Errorf("the driver got %q", d.data)
		}
	})
}
