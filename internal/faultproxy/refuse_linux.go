package faultproxy

import (
	"net"
	"syscall"
)

// setListening has the system refuse connections, as it does where nobody listens, or take
// them again. The port stays taken meanwhile.
func setListening(l net.Listener, on bool) bool {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return false
	}
	control := raw.Control(func(fd uintptr) {
		if on {
			err = syscall.Listen(int(fd), syscall.SOMAXCONN)
		} else {
			err = syscall.Shutdown(int(fd), syscall.SHUT_RD)
		}
	})
	return err == nil && control == nil
}
