package testdb

import (
	"net"
	"runtime"
	"strings"
	"sync/atomic"
)

// Writer tells which goroutine has written to its connections last.
type Writer struct{ last atomic.Pointer[string] }

// Conn returns the connection as one that the Writer hears of.
func (w *Writer) Conn(c net.Conn) net.Conn { return &written{c, w} }

// Note has the caller's goroutine be the last.
func (w *Writer) Note() {
	id := goroutine()
	w.last.Store(&id)
}

// WasCaller reports whether it was the goroutine that asks.
func (w *Writer) WasCaller() bool {
	last := w.last.Load()
	return last != nil && *last == goroutine()
}

type written struct {
	net.Conn
	w *Writer
}

func (c *written) Write(p []byte) (int, error) {
	c.w.Note()
	return c.Conn.Write(p)
}

// goroutine returns the caller's number, as stacks begin with it.
func goroutine() string {
	var b [64]byte
	name, _, _ := strings.Cut(string(b[:runtime.Stack(b[:], false)]), " [")
	return name
}
