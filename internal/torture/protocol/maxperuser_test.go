package protocol

import (
	"bytes"
	"github.com/session2/session2"
)

// isTurn reports whether a record is no session, but the turn of one of a user's logins:
// its identity has the hash zero.
func isTurn(rec session2.Record) bool { return bytes.Contains(rec.Data, make([]byte, 32)) }
