package session2_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
)

// stallingProxy passes bytes on until it is told to stall; then it keeps the
// connections open and swallows everything, as a server that hangs.
func stallingProxy(t testing.TB, target string) (addr string, stall *atomic.Bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	stall = new(atomic.Bool)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			s, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			t.Cleanup(func() { s.Close() })
			go io.Copy(stalling{c, stall}, s)
			go io.Copy(stalling{s, stall}, c)
		}
	}()
	return l.Addr().String(), stall
}

type stalling struct {
	io.Writer
	stall *atomic.Bool
}

func (w stalling) Write(p []byte) (int, error) {
	if w.stall.Load() {
		return len(p), nil
	}
	return w.Writer.Write(p)
}

func TestSQLHungServer(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		u := sqlURL(t, sys.name, dsn)
		addr, stall := stallingProxy(t, u.Host)
		u.Host = addr
		u.RawQuery += "&timeout=300ms&table=" + sqlTable(t.TempDir())
		opened, err := session2.Open(t.Context(), u.String())
		must(t, err)
		store := opened.(sqlStore)
		defer store.Close()
		must(t, store.Setup(t.Context()))
		rec := sqlRecord(1)
		must(t, store.Save(t.Context(), rec, 0))
		stall.Store(true)
		start := time.Now()
		if _, err := store.Load(t.Context(), rec.ID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("got an answer after %v, want it in 300ms", d)
		}
		stall.Store(false)
		if _, err := store.Load(t.Context(), rec.ID); err != nil {
			t.Errorf("after the server came back: %v", err)
		}
	})
}
