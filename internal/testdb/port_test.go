package testdb

import (
	"net"
	"strconv"
	"testing"
)

// A port that somebody was given is nobody else's, before a server has it and while
// that is down.
func TestFreePortIsReserved(t *testing.T) {
	second, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("this system has one loopback address only")
	}
	second.Close()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	l.Close()
	if reserve(strconv.Itoa(port)) {
		t.Errorf("port %d is given out twice", port)
	}
}
