package session2

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// The errors that stores and the manager return. They come wrapped:
// test for them with [errors.Is].
var (
	// ErrNotFound says that no record has the ID, or that the session a
	// change was meant for has ended meanwhile.
	ErrNotFound = record.ErrNotFound

	// ErrConflict says that a conditional Save came too late: the stored record has
	// another version than the one it was to replace, or there is one where it was to
	// create one. From a Manager it says that others were faster in each of a commit's
	// tries, or that the request has lost its turn in [Manager.Exclusive].
	ErrConflict = record.ErrConflict

	// ErrUncertain says that a Save's answer was lost and that others have written
	// since, or that there was no answer after that, so that the store cannot tell
	// whether it took effect. With a number of
	// deleted records it says that there may be more. From a Manager it says that a
	// commit failed and its changes may be stored all the same: a request that is
	// repeated may apply them twice.
	ErrUncertain = record.ErrUncertain

	// ErrStale says that a request's token was replaced meanwhile by SetUser, SetLevel
	// or Renew in another request. What the request had not committed before that is
	// not stored.
	ErrStale = errors.New("session token was replaced meanwhile")

	// ErrTooLarge says that a session's data exceed Config.MaxBytes, or what the
	// store can hold.
	ErrTooLarge = record.ErrTooLarge

	// ErrCorrupt says that a record is there and cannot be read, for a reason
	// that lies in the record and not in the store. The manager raises
	// EventCorrupt for it and gives the client a fresh session.
	ErrCorrupt = record.ErrCorrupt

	// ErrLostUpdate says that a request read a key and then set or deleted it, and that
	// another request had changed that key in between. Nothing of that commit was
	// stored. [Key.Update] merges where Get and Set cannot. A request that has looked at
	// a thousand keys and more counts as having looked at all.
	ErrLostUpdate = errors.New("update would be lost")

	// ErrTooManySessions says that a user has as many sessions as Config.MaxPerUser
	// allows, and Config.RejectLogin is set. Nothing of the login was stored.
	ErrTooManySessions = errors.New("the user has too many sessions")

	// ErrOtherAddress and ErrOtherAgent say of an EventAnomaly what has changed: the
	// host of the client's address, its User-Agent, or both.
	ErrOtherAddress = errors.New("session used from another address")
	ErrOtherAgent   = errors.New("session used with another User-Agent")

	// ErrNotSetUp says that a call came before Setup: a table, for example, is not
	// there.
	ErrNotSetUp = record.ErrNotSetUp
)

// refused reports whether an error is a definite no: nothing was changed, and
// asking again is of no use.
func refused(err error) bool {
	return errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNotSetUp) || fsys.Refused(err)
}

// ID names a session: 128 random bits. It is the public half of the client's
// token and no secret: it may be logged, listed and used to end the session,
// and it opens nothing.
type ID [16]byte

// String returns the ID as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID is the inverse of [ID.String]. It takes exactly 32 lower-case
// hexadecimal digits, so that every ID has one spelling, and anything else is
// an error that does not repeat its input.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, errors.New("session2: an ID has 32 hexadecimal digits")
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ID{}, errors.New("session2: an ID has lower-case hexadecimal digits only")
		}
	}
	hex.Decode(id[:], []byte(s)) // cannot fail: every digit was checked
	return id, nil
}

// Version tells one state of a record from every other. It is random, picked
// by the caller of Save for each new state, and never zero in a stored record.
type Version uint64

// Record is a session as a store keeps it. Times are kept to the microsecond: what is
// finer is cut off. A store returns them in UTC, from the zero time to the year 9999.
// User and Data are bytes, not text: no encoding may change them. Nil Data and empty
// Data are the same.
type Record struct {
	ID       ID
	Version  Version
	User     string    // who is signed in, "" if nobody; a Save of more than 1024 bytes may be ErrTooLarge
	Created  time.Time // when the session began
	Accessed time.Time // when it was last used, to the manager's AccessResolution
	Expires  time.Time // from then on the record counts as absent
	Data     []byte    // opaque to stores
}

// Store keeps records. It is all that a Manager needs; see the optional interfaces
// ([SetupStore], [DeleteOldStore], [IterStore], [TouchStore], [UserStore],
// [CapableStore]) for more that a store can offer, and package storetest for the
// conformance suite. A store that wraps another one may have all of these methods:
// those that the other one does not have return an error matching
// [errors.ErrUnsupported].
//
// Every method honours its context: one that is done on entry makes the call fail with
// the context's error and change nothing. A store keeps no reference to the Data of a
// Record that it was given, and hands out none that it keeps. Expires matters to
// DeleteOld alone: Load and Has show an expired record. A store that must be closed is
// an [io.Closer]; it may be closed twice, and later calls return an error matching
// [io/fs.ErrClosed].
//
// A definite refusal matches ErrTooLarge, ErrNotSetUp, [io/fs.ErrClosed],
// [io/fs.ErrPermission] (no right, a constraint, a read-only server), [syscall.EROFS],
// [syscall.ENOSPC], [syscall.EDQUOT], [syscall.EFBIG] or [errors.ErrUnsupported]:
// nothing was changed, and the manager does not ask again. Where DeleteOld or
// DeleteUser returns a number with it, so many records were deleted before the refusal.
// Any other error that is none of this package's sentinels says nothing about whether a
// Save took effect; the manager then asks again.
type Store interface {
	// Load returns the record, or an error matching ErrNotFound; ErrCorrupt
	// if there is a record that cannot be read. The caller owns the Data.
	Load(ctx context.Context, id ID) (Record, error)

	// Save replaces the stored record by rec if its version is still prev. A
	// zero prev means "create": there must be no record with the ID. The check
	// and the write are one atomic step. A zero rec.Version is an error.
	//
	// Save returns nil and changes nothing if the stored version already is
	// rec.Version: the same Save landed before. Otherwise it returns
	// ErrConflict if the stored version is not prev, or if prev is zero and
	// there is a record; ErrNotFound if prev is not zero and there is none, for
	// nothing but a zero prev creates a record; ErrCorrupt, and changes nothing, if
	// the stored record cannot be read and so not be compared. A store that retries
	// by itself returns ErrUncertain where it cannot tell if an earlier try landed.
	Save(ctx context.Context, rec Record, prev Version) error

	// Delete removes the record, whatever its version, also one that cannot be
	// read. An absent record is no error.
	Delete(ctx context.Context, id ID) error

	// Has reports whether there is a record, without reading it. It is for tools
	// and tests: a Manager never calls it. Its answer is old by the time it is
	// read: never decide a Save by it.
	Has(ctx context.Context, id ID) (bool, error)
}

// SetupStore is a Store with something to prepare, such as a table. Setup may
// be called any number of times, by several processes at once, and never drops
// data. An application calls it when it starts.
type SetupStore interface {
	Setup(ctx context.Context) error
}

// Setup prepares a store where that is needed (see [SetupStore]). It returns nil for
// a store that has nothing to prepare.
func Setup(ctx context.Context, store Store) error {
	s, ok := store.(SetupStore)
	if !ok {
		return nil
	}
	err := s.Setup(ctx)
	if errors.Is(err, errors.ErrUnsupported) { // of a wrapper whose store has none
		return nil
	}
	return err
}

// Close closes a store that is an [io.Closer]. It returns nil for one that is not.
func Close(store Store) error {
	c, ok := store.(io.Closer)
	if !ok {
		return nil
	}
	return c.Close()
}

// DeleteOldStore is a Store that can sweep. DeleteOld removes the records that were not
// accessed for age (Accessed is at or before now-age) and those that have expired
// (Expires is at or before now), and returns their number. A negative age is an error.
// A record that was saved or touched in the meantime must survive. A corrupt record
// stops no sweep; the store may remove it, too. If the context ends while DeleteOld
// runs, it returns the context's error, or nil with a number that is exact. Sweeping is
// housekeeping: no session's end depends on it.
type DeleteOldStore interface {
	DeleteOld(ctx context.Context, age time.Duration) (int, error)
}

// IterStore is a Store that can list its records, in no particular order and
// without copying them all into memory at once. A record that is there throughout is
// seen exactly once; one that comes or goes meanwhile is seen at most once. The
// loop's body may call the store. A record that cannot be read is
// yielded as an error matching ErrCorrupt with the ID in the Record, where it
// is known, and the iteration goes on; after any other error, such as that of its
// context, it ends.
type IterStore interface {
	Iter(ctx context.Context) iter.Seq2[Record, error]
}

// TouchStore is a Store that can note an access without rewriting data. Touch moves
// Accessed and Expires forward, each by itself and never back, and keeps Version and
// Data. An absent record is not created and no error. A Touch that is acknowledged may
// be lost when the machine goes down. A store that could do it by a Save only leaves it
// out: the manager then saves the record, once per AccessResolution at most.
type TouchStore interface {
	Touch(ctx context.Context, id ID, accessed, expires time.Time) error
}

// UserStore is a Store with an index from users to their sessions. Both methods cost
// what the user's own sessions cost, not what the store holds. IterUser follows the
// rules of [IterStore]. DeleteUser removes the user's records but those named by keep,
// in batches, and returns their number. If the context ends while it runs, it returns
// the context's error, or nil with a number that is exact. For the empty user, who is
// nobody, both find nothing. A store that would have to read all its records leaves it
// out: the manager then lists by Iter, and deletes one by one.
type UserStore interface {
	IterUser(ctx context.Context, user string) iter.Seq2[Record, error]
	DeleteUser(ctx context.Context, user string, keep ...ID) (int, error)
}

// CapableStore is a Store that states what it can be trusted with. A store
// without Capabilities has none of them.
type CapableStore interface {
	Capabilities() Capabilities
}

// Capabilities are a store's promises. The zero value promises nothing.
type Capabilities struct {
	ThreadSafe       bool // goroutines may share the store; if false the manager serialises its calls
	MultiprocessSafe bool // processes on one machine may share the data
	MultihostSafe    bool // machines may share the data
	Durable          bool // an acknowledged Save or removal survives the death of the process and of the machine
}

// capabilities returns what store promises.
func capabilities(store Store) Capabilities {
	if c, ok := store.(CapableStore); ok {
		return c.Capabilities()
	}
	return Capabilities{}
}

// opError names the operation and the record that failed; nil stays nil.
func opError(op string, id ID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("session2: %s %v: %w", op, id, err)
}

// microTime and timeMicro convert between a Record's times and the
// microseconds since 1970 that stores keep.
func microTime(t time.Time) int64  { return t.UnixMicro() }
func timeMicro(µs int64) time.Time { return time.UnixMicro(µs).UTC() }

// instant is a time as records have it: microseconds since 1970, and 0 is none.
type instant int64

func microNow() instant                       { return instantOf(time.Now()) }
func instantOf(t time.Time) instant           { return instant(microTime(t)) }
func (t instant) time() time.Time             { return timeMicro(int64(t)) }
func (t instant) add(d time.Duration) instant { return t + instant(d.Microseconds()) }
