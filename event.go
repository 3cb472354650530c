package session2

import (
	"context"
	"errors"
	"log/slog"
)

// EventKind says what happened to a session.
type EventKind int

// The events. Each is one call of Config.OnEvent and one log record.
const (
	// EventCreated: a session was stored for the first time.
	EventCreated EventKind = iota + 1

	// EventRenewed: its token was replaced, by a login (of another user as well, or
	// SetUser("")), by SetLevel, by Renew or by RenewEvery.
	EventRenewed

	// EventDestroyed: it was ended by Destroy, by a login of a request that presented
	// other sessions as well, by the reuse of a token, or because it came to hold
	// nothing.
	EventDestroyed

	// EventExpired: a token was presented whose session's time is over.
	EventExpired

	// EventRevoked: it was ended from outside, by Revoke, RevokeUser, RevokeOthers or
	// RevokeAll, or by a login of its user beyond Config.MaxPerUser.
	// There is no ID if it began while RevokeUser ran.
	EventRevoked

	// EventConflict: a commit met a concurrent one. Err matches ErrConflict if the
	// changes were applied again, ErrStale or ErrLostUpdate if the request was refused.
	EventConflict

	// EventUnknown: a well-formed token opens nothing. There is no such session, or the
	// token is not, or no longer, that session's.
	EventUnknown

	// EventMalformed: a cookie, or what a client of Config.Transport sends, is no
	// token, or several contradict one another.
	EventMalformed

	// EventDropped: changes were not stored. Err matches ErrNotFound if the session had
	// ended, ErrStale if its token had been replaced, and else says why.
	EventDropped

	// EventReuse: a token was presented that RenewEvery had replaced and whose time is
	// over. Somebody else holds the cookie.
	EventReuse

	// EventCorrupt: a record could not be read, or a value in it not by the codec or as
	// the type that its reader has.
	EventCorrupt

	// EventStoreError: the store failed a request, Cleanup or Open. Errors that other
	// methods return to the application are no events.
	EventStoreError

	// EventAnomaly: a signed-in session is used from another address than it began
	// with (the host, without the port), or with another User-Agent (ASVS 8.2.4). Err
	// matches ErrOtherAddress, ErrOtherAgent, or both, and shows no values. It is raised
	// at most once for a request, and only with Config.Anomalies. Addresses of mobile
	// clients change all the time; behind a proxy they are the proxy's.
	EventAnomaly
)

var eventNames = [...]string{"", "created", "renewed", "destroyed", "expired", "revoked", "conflict",
	"unknown", "malformed", "dropped", "reuse", "corrupt", "store error", "anomaly"}

// String returns the kind in lower case, such as "created".
func (k EventKind) String() string {
	if k <= 0 || int(k) >= len(eventNames) {
		return "event"
	}
	return eventNames[k]
}

// level keeps the log of a busy site quiet: the life of a session is for
// debugging, what an operator should know of is not. Changes that came too late
// for their session are nobody's fault; those that are lost otherwise are.
func (e Event) level() slog.Level {
	race := errors.Is(e.Err, ErrNotFound) || errors.Is(e.Err, ErrStale) || errors.Is(e.Err, ErrLostUpdate) ||
		errors.Is(e.Err, ErrTooManySessions)
	switch e.Kind {
	case EventReuse:
		return slog.LevelWarn
	case EventAnomaly:
		return slog.LevelInfo
	case EventCorrupt, EventStoreError:
		return slog.LevelError
	case EventDropped:
		if !race {
			return slog.LevelError
		}
		return slog.LevelInfo
	case EventConflict:
		if race {
			return slog.LevelInfo
		}
	}
	return slog.LevelDebug
}

// Event is something that happened to a session (ASVS 16.2.1, 16.3.1). It
// holds no secret. ID is zero where no session is known, User is empty where
// nobody is signed in, and Err is nil where nothing failed.
type Event struct {
	Kind EventKind
	ID   ID
	User string
	Err  error
}

// emit tells of an event: the requests whose session has ended by it, the log, and the
// application.
func (m *Manager) emit(ctx context.Context, e Event) {
	m.heard(ctx, e)
	m.counts[e.Kind].Add(1)
	if log, level := m.cfg.Logger, e.level(); log.Enabled(ctx, level) {
		attrs := make([]slog.Attr, 0, 4)
		if e.ID != (ID{}) {
			attrs = append(attrs, slog.String("session", e.ID.String()))
		}
		if e.User != "" {
			attrs = append(attrs, slog.String("user", e.User))
		}
		if e.Err != nil {
			attrs = append(attrs, slog.String("error", e.Err.Error()))
		}
		if level >= slog.LevelInfo {
			if s, ok := ctx.Value(m).(*Session); ok && s.request != nil && s.request.Pattern != "" {
				attrs = append(attrs, slog.String("request", s.request.Pattern))
			}
		}
		log.LogAttrs(ctx, level, "session2: "+e.Kind.String(), attrs...)
	}
	if m.cfg.OnEvent != nil {
		m.cfg.OnEvent(ctx, e)
	}
}

// Count returns how many events of a kind this manager has raised since it was made.
// Many of EventUnknown in a short time, for example, may be somebody's guesses.
func (m *Manager) Count(kind EventKind) uint64 {
	m.must()
	if kind <= 0 || int(kind) >= len(m.counts) {
		return 0
	}
	return m.counts[kind].Load()
}
