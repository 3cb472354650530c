// Package session2 keeps sessions on the server for net/http: a [Manager] wraps
// handlers and drives a [Store] of four methods.
//
//	m, err := session2.NewManager(store, session2.Config{})
//	...
//	http.ListenAndServe(addr, m.Wrap(mux))
//
// and in a handler
//
//	s := session2.FromContext(r.Context())
//	s.SetUser("alice")                       // signs in, and replaces the token
//	s.Set("color", "green")
//	cart.Update(s, addBook)                  // a typed key; runs again if another request was faster
//	n, err := visits.Commit(ctx, s, plusOne) // the same, and commits: n is what is stored
//	s.Destroy()                              // signs out
//
// Each request is a transaction on its session. It loads the session when it first
// looks at it, and not at all if it does not. Its changes are committed by one
// conditional Save just before the first byte of the response leaves. So concurrent
// requests merge their changes, and a client never sees a success for a change that was
// not stored. There is one exception: if the session has ended or expired meanwhile, or
// the request came with a token that a login had replaced, its changes are dropped and
// its response goes out, as if it had come just before that. [Session.Err] tells. A
// request that panics, answers with 500 or above, or has run out of its context's time
// leaves no trace, but for what was committed before: by [Session.Commit], [Key.Commit]
// or [Session.UseFormToken], or because the response had begun.
//
// # Concurrency
//
// A [Manager] and every [Store] of this package may be shared by goroutines; a store
// that is not [Capabilities].ThreadSafe is serialised by its manager. A [Session]
// belongs to one request, whose goroutines may share it. No lock is held during a
// handler, and requests for one session run side by side. When two change it at once,
// the changes of the later one are applied again to what the earlier one stored:
// different keys merge, [Key.Update] and [Key.Commit] run again on the new value, and
// of two plain Sets of one key one wins whole. A request that has read a key and then
// sets or deletes it is refused with [ErrLostUpdate] if another one has changed that
// key in between. [Manager.Exclusive] is for handlers that must run one at a time for
// a session. None of this depends on which process or machine the requests run on, if
// the store may be shared there.
//
// No constructor starts a goroutine: run [Manager.Cleanup] in one of your own.
//
// # Security
//
// The cookie holds selector.verifier. The selector is the record's [ID], which is
// public; the verifier is 256 random bits (ASVS 7.2.3), of which the store has only a
// SHA-256 hash, so that a stolen table opens no session. The cookie is __Host-session,
// Secure, HttpOnly and SameSite=Lax unless [CookieConfig] says otherwise.
// [Session.SetUser], [Session.SetLevel] and [Session.Renew] replace the verifier, and
// the old one is dead at once, for running requests too (ASVS 7.2.4). With
// Config.RenewEvery it is replaced periodically as well: the old verifier is good until
// a client has come with the new one, and for RenewGrace after that. A later use of it
// means that two have the cookie; it is an [EventReuse], and ends the session. An
// unknown token opens nothing and is never adopted. Idle and absolute limits hold by
// the manager's clock, whether the store is swept or not (ASVS 7.3.1, 7.3.2), and a
// login begins the absolute one anew. Managers that share a store open and revoke the
// sessions of their own Config.Realm only.
//
// If the store fails, the request fails: a session that cannot be loaded reads as
// nobody's, and the response is a 503 whatever the handler has written.
//
// API clients may carry the token in a header instead of the cookie, by
// [Config].Transport; the two never mix. See [Transport].
//
// Cross-site requests are the application's to refuse: by [net/http.CrossOriginProtection],
// or by [Session.CSRFToken]. [Session.UseFormToken] keeps a form from being submitted
// twice. No token and no value shows in an error, an event or the log.
//
// # Stores
//
// [MemoryStore] is for tests, [FileStore], [BoltStore] and [GobStore] are for one
// machine, [PostgresStore] and [MySQLStore] for many; [Open] opens any of them by URL.
// The modules stores/sqlite and stores/redis have two more. [NewCache] puts a cache in
// front of a store, and [NewMigrating] moves sessions from one to another. When the
// application starts, it calls [Setup]. In a database, Load, Save, Delete, Has and Touch
// are one statement and one round trip each, or two for a Save that comes too late, and
// nothing depends on the server's clock or settings.
//
// # Writing a store
//
// A [Store] has four methods, and one rule that matters: Save checks the version and
// writes in one atomic step. [SetupStore], [DeleteOldStore], [IterStore], [TouchStore],
// [UserStore] and [CapableStore] are optional. Package storetest has the contract as
// tests, one for each clause; run it on yours.
package session2
