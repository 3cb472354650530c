//go:build !linux

package faultproxy

import "net"

// setListening does nothing: connections are taken, and end at once.
func setListening(net.Listener, bool) bool { return false }
