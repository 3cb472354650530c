package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// trait is a set of what a store offers and promises.
type trait uint

const (
	threads   trait = 1 << iota // goroutines may share it
	processes                   // processes may share its data
	durable                     // what it acknowledged survives
	reopens                     // opened again, it shows the same data
	closes
	setsUp
	sweeps
	lists
	touches
	users
	damage // a way to damage a record is known
)

var traitNames = []string{
	"ThreadSafe", "MultiprocessSafe", "Durable", "Durable or MultiprocessSafe", "Close",
	"Setup", "DeleteOld", "Iter", "Touch", "IterUser and DeleteUser", "Options.Corrupt",
}

// String names the traits of the set.
func (t trait) String() string {
	var names []string
	for i, name := range traitNames {
		if t&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// traitsOf reads off a fresh store what it offers.
func (s *suite) traitsOf(t testing.TB) trait {
	store := s.open(t, t.TempDir())
	if store == nil {
		t.Fatal("storetest: open has returned a nil Store")
	}
	defer closeStore(store)
	has := promises(capabilities(store)) | offers(t.Context(), store)
	if s.Corrupt != nil {
		has |= damage
	}
	return has
}

// promises translates a store's Capabilities.
func promises(caps session2.Capabilities) trait {
	var has trait
	if caps.ThreadSafe {
		has |= threads
	}
	if caps.MultiprocessSafe {
		has |= processes | reopens
	}
	if caps.Durable {
		has |= durable | reopens
	}
	return has
}

// offers finds the optional interfaces. A wrapper has all their methods, so
// each is asked whether it is supported by a call that changes nothing.
func offers(ctx context.Context, store session2.Store) trait {
	var has trait
	if _, ok := store.(closer); ok {
		has |= closes
	}
	if s, ok := store.(session2.SetupStore); ok && supported(s.Setup(ctx)) {
		has |= setsUp
	}
	if s, ok := store.(session2.DeleteOldStore); ok {
		if _, err := s.DeleteOld(ctx, time.Hour); supported(err) {
			has |= sweeps
		}
	}
	if s, ok := store.(session2.IterStore); ok {
		if _, err := collect(s.Iter(ctx)); supported(err) {
			has |= lists
		}
	}
	if s, ok := store.(session2.TouchStore); ok {
		if supported(s.Touch(ctx, session2.ID{}, time.Time{}, time.Time{})) {
			has |= touches
		}
	}
	if s, ok := store.(session2.UserStore); ok {
		if _, err := collect(s.IterUser(ctx, "nobody")); supported(err) {
			has |= users
		}
	}
	return has
}

func supported(err error) bool { return !errors.Is(err, errors.ErrUnsupported) }

// capabilities returns what store promises.
func capabilities(store session2.Store) session2.Capabilities {
	if c, ok := store.(session2.CapableStore); ok {
		return c.Capabilities()
	}
	return session2.Capabilities{}
}

// A closer is a store that holds something until it is closed.
type closer interface{ Close() error }

func closeStore(store session2.Store) error {
	if c, ok := store.(closer); ok {
		return c.Close()
	}
	return nil
}
