package session2

import (
	"errors"
	"net"
)

// anomaly raises an event if a signed-in session is used from elsewhere than it began.
// A session that began without a request has nothing to compare with.
func (s *Session) anomaly(h *hearing, st *state) {
	if s.request == nil || st == nil || st.user == "" || st.remote == "" {
		return
	}
	var err error
	if host(st.remote) != host(s.request.RemoteAddr) {
		err = ErrOtherAddress
	}
	if st.agent != userAgent(s.request) {
		err = errors.Join(err, ErrOtherAgent)
	}
	if err != nil {
		h.hear(Event{Kind: EventAnomaly, ID: st.id, User: st.user, Err: err})
	}
}

// host returns an address without its port, which is another one for each connection.
func host(addr string) string {
	if name, _, err := net.SplitHostPort(addr); err == nil {
		return name
	}
	return addr
}
