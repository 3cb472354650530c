package main

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
)

// Workload is what a handler does with its session. A session has ten keys of
// 100 bytes.
type Workload int

const (
	W0  Workload = iota // never looks; the client has no cookie
	W0b                 // never looks; the client has a session
	W1                  // reads one key
	W2                  // reads one key and writes it
	W4                  // W1 with an idle timeout
	W3                  // creates a session of ten keys: last, for it makes the store grow
)

var workloads = map[Workload]struct{ name, text string }{
	W0:  {"W0", "never looks at the session; no cookie"},
	W0b: {"W0b", "never looks at the session; with a cookie"},
	W1:  {"W1", "reads one key"},
	W2:  {"W2", "reads one key and writes it"},
	W3:  {"W3", "creates a session of ten keys"},
	W4:  {"W4", "reads one key, with an idle timeout"},
}

func (w Workload) String() string { return workloads[w].name }

// signedIn reports whether the client comes with a session's cookie.
func (w Workload) signedIn() bool { return w != W0 && w != W3 }

// kind is whose work a contender is.
type kind int

const (
	floor kind = iota // the same work by hand
	ours
	rival
)

// contender is one way to keep sessions.
type contender struct {
	name   string
	kind   kind
	floors []string // what it is compared with; the first one counts
	sweeps bool     // it has a sweep that can be started here
	aging  bool     // what it costs depends on how much time goes by between requests
	shy    bool     // it connects anew where many ask at once: its sessions are made by few
	open   func(place) (*site, error)
}

// place is where contenders keep what they store.
type place struct {
	number  int    // the contender's
	dir     string // of the contender alone
	dsn     string // of the database server
	durable bool   // an acknowledged write is to be on the disk
}

// site is a contender that is open. Its handlers are what an application would be:
// they answer 200, with a cookie where a session is made, and anything else is a
// failure. A nil handler says that the contender has no such thing.
type site struct {
	handler func(Workload) http.Handler
	close   func() error
	sweeper *sweeper // where the contender sweeps
	rows    *rows    // nil where only requests make sessions
}

// answer makes a handler of what is to be done for a request.
func answer(do func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := do(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		io.WriteString(w, "ok")
	})
}

// bare is the handler that everything is more than.
var bare = answer(func(http.ResponseWriter, *http.Request) error { return nil })

var errNoValue = errors.New("the session does not have its value")

const theKey = "key7"

// keys are a session's, and value the value of each to begin with.
var (
	keys  = [...]string{"key0", "key1", "key2", "key3", "key4", "key5", "key6", "key7", "key8", "key9"}
	value = strings.Repeat("v", 100)
)

// next returns a value that differs from the old one: the same again could be no
// change.
func next(old string) string {
	b := []byte(old)
	for i := range b {
		if b[i]++; b[i] <= 'z' {
			break
		}
		b[i] = 'a'
	}
	return string(b)
}

// byHandName is the cookie's of the floors.
const byHandName = "id="

// byHandID returns the ID that a request has, as cheaply as can be.
func byHandID(r *http.Request) (id [16]byte, err error) {
	text, ok := strings.CutPrefix(r.Header.Get("Cookie"), byHandName)
	if !ok || len(text) != 2*len(id) {
		return id, errNoValue
	}
	_, err = hex.Decode(id[:], []byte(text))
	return id, err
}

func byHandCookie(w http.ResponseWriter, id [16]byte) {
	w.Header().Set("Set-Cookie", byHandName+hex.EncodeToString(id[:])+"; Path=/; HttpOnly; Secure; SameSite=Lax")
}
