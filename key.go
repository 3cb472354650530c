package session2

// Key is a typed key: the session class of your own. It gives Set and Get their
// type back, and spares gob the registration of it. Make it once, for a name
// that nothing else uses:
//
//	var cart = session2.NewKey[[]Item]("cart")
//
// Goroutines may share a Key. The zero value has the empty name.
type Key[T any] struct{ name string }

// NewKey returns the key with that name.
func NewKey[T any](name string) Key[T] { return Key[T]{name} }

// Get returns a copy of the value, and whether there is one. A value that
// cannot be decoded as a T is none, and is in [Session.Err].
func (k Key[T]) Get(s *Session) (T, bool) {
	var zero T
	data, ok := s.raw(k.name)
	if !ok {
		return zero, false
	}
	v, err := decodeTyped[T](s.m.cfg.Codec, data)
	if err != nil {
		s.undecodable(k.name, err)
		return zero, false
	}
	return v, true
}

// Set sets the value, as [Session.Set] does.
func (k Key[T]) Set(s *Session, v T) {
	data, err := encodeTyped(s.m.cfg.Codec, v)
	s.put(k.name, data, err)
}

// Delete removes the value.
func (k Key[T]) Delete(s *Session) { s.Delete(k.name) }

// Update sets the value to what f makes of it, the zero T if there is none. If
// another request commits first, f is called again with that one's value: of
// any number of increments at once, none is lost. So f may run several times,
// and must do nothing but compute; it must not use s.
func (k Key[T]) Update(s *Session, f func(T) T) {
	apply := func(st *state) error { return k.apply(s, st, f) }
	for {
		s.look()
		st, gen := *s.work, s.gen
		s.mu.Unlock()
		err := apply(&st) // without the lock: f is the application's
		if err != nil {
			s.refuse(err)
			return
		}
		if s.applied(&st, gen, apply) {
			return
		}
	}
}

// apply sets the value in st to what f makes of it.
func (k Key[T]) apply(s *Session, st *state, f func(T) T) error {
	var v T
	if data, ok := st.get(k.name); ok {
		var err error
		if v, err = decodeTyped[T](s.m.cfg.Codec, data); err != nil {
			return getError(k.name, err)
		}
	}
	data, err := encodeTyped(s.m.cfg.Codec, f(v))
	if err != nil {
		return setError(k.name, err)
	}
	st.set(k.name, data)
	return nil
}

// applied takes over a change that was made to a copy of generation gen,
// unless another goroutine of the request was faster.
func (s *Session) applied(st *state, gen int, o op) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != gen {
		return false
	}
	s.work, s.log, s.gen = st, append(s.log, o), s.gen+1
	return true
}
