package session2

import (
	"context"
	"fmt"
	"reflect"
)

// Key is the name of a value together with its type: Get and Set need no type
// assertion, and gob no registration. Make it once, for a name that nothing else uses:
//
//	var cart = session2.NewKey[[]Item]("cart")
//
// Goroutines may share a Key. The zero value has the empty name.
type Key[T any] struct{ name string }

// NewKey returns the key with that name.
func NewKey[T any](name string) Key[T] { return Key[T]{name} }

// Get returns a copy of the value, and whether there is one. A value that cannot be
// decoded as a T counts as absent; this is in [Session.Err], and an EventCorrupt. T may
// be renamed, and fields may be added to it or removed: gob and JSON go by the fields'
// names. Where the type of a field or T itself becomes another, take another name for
// the key and Delete the old one.
func (k Key[T]) Get(s *Session) (T, bool) {
	return k.decode(s, s.raw(k.name))
}

// decode decodes a value that is there.
func (k Key[T]) decode(s *Session, e value) (v T, _ bool) {
	if !e.ok() {
		return v, false
	}
	v, err := decodeTyped[T](s.m.cfg.Codec, e.data())
	if err != nil {
		k.undecodable(s, err)
		var zero T
		return zero, false
	}
	return v, true
}

func (k Key[T]) undecodable(s *Session, err error) {
	s.undecodable(fmt.Sprintf("get %q", k.name), reflect.TypeFor[T]().String(), err)
}

// Set sets the value, as [Session.Set] does.
func (k Key[T]) Set(s *Session, v T) {
	s.must()
	if s.putBasic(k.name, any(v)) {
		return
	}
	e, err := encodeTyped(s.m.cfg.Codec, k.name, v)
	s.put(k.name, e, err)
}

// Has reports whether there is a value, of whatever type.
func (k Key[T]) Has(s *Session) bool { return s.Has(k.name) }

// Pop returns the value and removes it, and whether there was one. A value that cannot
// be decoded is removed, and counts as absent.
func (k Key[T]) Pop(s *Session) (T, bool) {
	return k.decode(s, s.pop(k.name))
}

// Delete removes the value, as [Session.Delete] does.
func (k Key[T]) Delete(s *Session) { s.Delete(k.name) }

// Update sets the value to what f makes of it. f is given the zero T if there is no
// value, or none that can be decoded as a T. If another request commits first, f is
// called again with that one's value: of any number of increments at once, none is
// lost. So f may run several times, and must do nothing but compute; it must not change
// s.
//
// What Update and Get then return is what this request made of the value that it knew.
// Another request may change that before the commit, so do not answer with it: of 16
// increments at once, all may return 1. [Key.Commit] returns the value as it is stored.
// If the value cannot be encoded, Update returns the zero T, and the error is in
// [Session.Err] and fails the request.
func (k Key[T]) Update(s *Session, f func(T) T) T {
	var zero T
	for range maxReplays {
		was := s.updated(k.name)
		v, _ := k.decode(s, was)
		v = f(v) // without a lock: f is the application's
		e, err := k.encode(s, v)
		if err != nil {
			s.refuse(err)
			return zero
		}
		if s.update(k.name, was, e, func(st *state) error { return k.apply(s, st, f) }) {
			return v
		}
	}
	s.refuse(fmt.Errorf("session2: update %q: the key is changed without end while the function runs: "+
		"by the function itself, or by other goroutines of the request", k.name))
	return zero
}

// apply is Update for the record of another request.
func (k Key[T]) apply(s *Session, st *state, f func(T) T) error {
	var v T
	if e := st.values.get(k.name); e.ok() {
		if old, err := decodeTyped[T](s.m.cfg.Codec, e.data()); err == nil {
			v = old
		}
	}
	e, err := k.encode(s, f(v))
	if err != nil {
		return &changeError{err}
	}
	st.values.set(e)
	return nil
}

func (k Key[T]) encode(s *Session, v T) (value, error) {
	e, err := encodeTyped(s.m.cfg.Codec, k.name, v)
	if err != nil {
		return value{}, setError(k.name, err)
	}
	return e, nil
}

// updated returns what is under key, for an Update. That is no look: the Update
// runs again where others change the key.
func (s *Session) updated(key string) value {
	s.look()
	defer s.mu.Unlock()
	return s.work.values.get(key)
}

// update sets key to e and logs do, which does the same, unless key is no
// longer what it was: another goroutine of the request was faster.
func (s *Session) update(key string, was, e value, do func(*state) error) bool {
	s.alter()
	defer s.mu.Unlock()
	if !s.work.values.get(key).equal(was) {
		return false
	}
	s.looks.updated(key, s.gen+1)
	work := s.own()
	work.values.put(key, e)
	s.changes(work, op{do: do})
	return true
}

// Commit sets the value to what f makes of it, as [Key.Update] does, commits, and
// returns the value as it was stored: of requests that increment a number at once, each
// is told another one. Use it where the response shows or depends on the new value, and
// Update where it does not. The changes that the request has made before are committed
// with it, as by [Session.Commit].
//
// f is given the zero T if there is no value, or none that can be decoded as a T. If
// another request commits first, f is called again with that one's value: f must do
// nothing but compute, and must not change s or commit. If it returns what was there,
// nothing is written, after a look whether that is still there.
//
// f refuses by an error. Commit then returns that error and the value that f has
// refused, which is the newest one in the store, or what this request has made of it:
// before f's error counts, the session is loaded again. Nothing is stored by this call,
// and the other changes of the request are still to come, as if Commit had not been
// called. A value that cannot be encoded is refused likewise. If f panics, nothing is
// stored either, and the panic goes on to the caller; if that was in a later call of f,
// the session commits nothing any more.
//
// With any other error Commit returns the zero T. If the value makes the session too
// large, which is [ErrTooLarge], the other changes are still to come as well. The other
// errors are those of Session.Commit, and mean the same for the request: [ErrNotFound]
// if the session has ended, [ErrStale] if its token was replaced, [ErrUncertain] if
// nobody can tell whether the value is stored. Once the response has begun, a new
// session cannot be stored, because no cookie can be sent. If ctx had ended, nothing
// was done. Goroutines may call Commit side by side.
func (k Key[T]) Commit(ctx context.Context, s *Session, f func(T) (T, error)) (T, error) {
	var v, zero T
	var bad error // the old value cannot be decoded
	c := &keyCommit{name: k.name, make: func(was value) (value, error) {
		var old T
		if bad = nil; was.ok() {
			if old, bad = decodeTyped[T](s.m.cfg.Codec, was.data()); bad != nil {
				old = zero
			}
		}
		var err error
		if v, err = f(old); err != nil {
			return value{}, err
		}
		return k.encode(s, v)
	}}
	o, err := s.commitKey(ctx, c)
	switch {
	case o == vetoed:
		v, _ = k.decode(s, c.was) // anew, for f may have changed what it was given
		return v, err
	case err != nil:
		return zero, err
	case bad != nil:
		k.undecodable(s, bad)
	}
	return v, nil
}

// keyCommit is the change of one Key.Commit. It is in the log of that commit alone, so that
// nothing is left of it if it comes to nothing, and so that no other commit takes it along
// with changes made after it.
type keyCommit struct {
	name string
	make func(was value) (value, error)

	done bool
	was  value // what make was given last
	made value // and what it has returned
	err  error
}

// apply is the change as an op. make is not called twice in a row for one value: a try
// that seemed lost may land late, and must then have stored what the next one stores.
func (k *keyCommit) apply(st *state) error {
	if was := st.values.get(k.name); !k.done || !was.equal(k.was) {
		k.made, k.err = k.make(was)
		k.was, k.done = was, true
	}
	if k.err != nil {
		return &vetoError{k.err}
	}
	st.values.put(k.name, k.made)
	return nil
}

// vetoError is what a change refuses by.
type vetoError struct{ cause error }

func (e *vetoError) Error() string { return e.cause.Error() }

// vetoOf returns what the function of a Key.Commit has returned, nil if err is another error.
func vetoOf(err error) error {
	if v, ok := err.(*vetoError); ok {
		return v.cause
	}
	return nil
}

// commitKey commits with k as the last change.
func (s *Session) commitKey(ctx context.Context, k *keyCommit) (o outcome, err error) {
	s.must()
	ctx = s.beyond(ctx)
	if err := ctx.Err(); err != nil {
		return pending, err
	}
	s.alter()
	s.mu.Unlock()
	h, err := s.exclusively(ctx, func(s *Session, ctx context.Context) (h hearing, err error) {
		h, o, err = s.commitNow(ctx, k, s.request == nil)
		return h, err
	})
	h.report(s.eventContext(), s.m)
	return o, err
}

// told notes that the request knows what a Key.Commit has stored: to set the key then
// must not undo what others do in between.
func (l *looks) told(k *keyCommit) {
	if row := l.row(k.name); row.changed == 0 {
		*row = look{at: &state{values: values{base: []value{k.made}}}}
	}
}
