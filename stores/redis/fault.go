package redisstore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
)

// refusals are what servers answer who have changed nothing and will not, and what it means.
// All else that a server says passes, such as LOADING or CLUSTERDOWN, or may be a proxy's that
// knows nothing of the outcome: then the manager asks again.
var refusals = []struct {
	begins string
	means  error
}{
	{"NOAUTH", fs.ErrPermission},
	{"WRONGPASS", fs.ErrPermission},
	{"NOPERM", fs.ErrPermission},
	{"DENIED", fs.ErrPermission},
	{"READONLY", fs.ErrPermission},
	{"MISCONF", fs.ErrPermission}, // it cannot write to its disk, and takes no writes
	{"WRONGTYPE", fs.ErrPermission},
	{"CROSSSLOT", fs.ErrPermission},
	{"ERR unknown command", fs.ErrPermission},
	{"ERR invalid password", fs.ErrPermission},
	{"ERR AUTH", fs.ErrPermission},
	{"ERR Protocol error: unauthenticated", fs.ErrPermission},
	{"ERR The user executing the script", fs.ErrPermission}, // has no right to a command or a key
	{"OOM", syscall.ENOSPC},
	{"ERR string exceeds maximum allowed size", session2.ErrTooLarge},
	{"ERR Protocol error: invalid bulk length", session2.ErrTooLarge},
	{"ERR Protocol error: invalid multibulk length", session2.ErrTooLarge},
}

// explain has an error match what it means, where that is a definite no.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, redis.ErrClosed) {
		return meaning(err, fs.ErrClosed)
	}
	text, ok := answer(err)
	if !ok {
		return err
	}
	for _, r := range refusals {
		// Redis 6 wraps what a script is told: "ERR Error running script (...): @user_script:1: -OOM ...".
		inside := strings.HasPrefix(text, "ERR Error running script") && strings.Contains(text, " -"+r.begins+" ")
		if strings.HasPrefix(text, r.begins) || inside {
			return meaning(err, r.means)
		}
	}
	return err
}

// answer returns what a server said, if that is what the error is.
func answer(err error) (text string, ok bool) {
	var said redis.Error
	if !errors.As(err, &said) || errors.Is(err, redis.Nil) {
		return "", false
	}
	return said.Error(), true
}

// answered reports whether the latest attempt had an answer.
func answered(err error) bool {
	_, ok := answer(err)
	return ok || errors.Is(err, redis.Nil)
}

// definite reports whether an error says that nothing was changed and that asking again is of
// no use.
func definite(err error) bool {
	for _, no := range []error{fs.ErrPermission, fs.ErrClosed, syscall.ENOSPC, session2.ErrTooLarge} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// absent is the error of a read: what is not there, and what is no string.
func absent(err error) error {
	switch text, _ := answer(err); {
	case errors.Is(err, redis.Nil):
		return session2.ErrNotFound
	case strings.HasPrefix(text, "WRONGTYPE"):
		return corrupt("it is no string")
	}
	return explain(err)
}

// meaning returns err with its text, made to match kind as well.
func meaning(err, kind error) error { return &meant{err, kind} }

type meant struct{ err, kind error }

// Error implements error.
func (m *meant) Error() string { return m.err.Error() }

// Unwrap is for [errors.Is] and [errors.As].
func (m *meant) Unwrap() []error { return []error{m.err, m.kind} }

func uncertain(err error) error { return fmt.Errorf("%w: %w", session2.ErrUncertain, err) }

// opError names the operation and the record that failed; nil stays nil.
func opError(op string, id session2.ID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("session2: %s %v: %w", op, id, err)
}

// failed names the operation that failed; nil stays nil.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("session2: %s: %w", op, err)
}
