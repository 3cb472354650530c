package session2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Config configures a [Manager]. Its zero value is the secure default.
type Config struct {
	// Lifetime is the absolute limit of a session, counted from its creation or from
	// its latest login, and extended by nothing else but SetLifetime and Remember (ASVS
	// 7.3.2). Default 24 h.
	Lifetime time.Duration

	// IdleTimeout ends a session that was not used for so long (ASVS 7.3.1).
	// Default 30 min, or Lifetime if that is shorter; negative: none.
	IdleTimeout time.Duration

	// AccessResolution is how often at most an access is written. So a session may end
	// that much earlier than IdleTimeout after its last use. Default 1 min, or a tenth
	// of IdleTimeout if that is shorter.
	AccessResolution time.Duration

	// RenewEvery is how old a token may be that a session in use goes on with: the time
	// since the client first came with it. The next request after that is given another.
	// Default 0: only SetUser, SetLevel and Renew replace tokens. A session remembers the
	// latest 32 tokens, to notice their reuse, so RenewEvery must be RenewGrace/32 at
	// least; and at most Lifetime.
	RenewEvery time.Duration

	// RenewGrace is how long a token is still recognised after SetUser, SetLevel or
	// Renew has replaced it, or, of one that RenewEvery has replaced, after a client
	// has come with the new one. It is for the requests that were under way. Default 30
	// s.
	RenewGrace time.Duration

	// CommitTimeout bounds the store calls of one commit together, but for those that
	// take back what a commit that failed may have stored. Default 5 s.
	CommitTimeout time.Duration

	// WatchEvery is how often the session of a stream is looked at: of a request that
	// has looked at its session, and has waited for the end of its context for this
	// long. That is one Load for each session, however many requests it has, and no use
	// of the session. So the context ends within WatchEvery and the time of a Load
	// after the session was ended by another process, or by its limits; while the store
	// fails, it does not. With a [PubSub], it is looked at as well when another process
	// has changed it. Default 5 s, or 32 times RenewEvery if that is shorter;
	// negative: never, so that only what this manager does or meets ends a context.
	WatchEvery time.Duration

	// MaxBytes bounds what the application keeps in one session: keys, encoded
	// values and flash messages. Default 1 MiB; more is ErrTooLarge. A record's
	// Data hold up to 4 KiB more of the library's own.
	MaxBytes int

	// Realm is whose sessions these are, where several managers share a store: a
	// manager opens, lists and revokes those of its own realm only. At most 64 bytes
	// without control characters. Default "", a realm like any other. In any other
	// realm the store has a user under a name that includes the realm: ask the manager
	// for a user's sessions, not the store.
	Realm string

	// AllowLostUpdates lets a request set or delete a key that it has read,
	// although another one has changed it in between. The default refuses such a
	// request with ErrLostUpdate.
	AllowLostUpdates bool

	// Require is what the deployment needs of its store: [NewManager] refuses one
	// without it.
	Require Capabilities

	// Cookie describes the cookie.
	Cookie CookieConfig

	// Transport is how clients carry the token. Default by the cookie alone.
	Transport Transport

	// Codec encodes values of other than basic kinds. Default [Gob]. No codec reads what
	// another one wrote: such values count as absent, and an Update begins with nothing.
	Codec Codec

	// Logger gets events and failures. Default slog.Default.
	Logger *slog.Logger

	// OnEvent is called for each event, by the goroutine that met it, possibly by
	// several at once, when the store call or the commit that it is about is over. ctx
	// is the handler's, from which [FromContext] has the session, which OnEvent may
	// use; for a method of the Manager it is that method's, and for a look of
	// WatchEvery neither. If OnEvent panics, the request does, and what was committed
	// stays.
	OnEvent func(ctx context.Context, e Event)

	// ErrorHandler answers a request whose session failed, instead of the handler;
	// nothing is left of the handler's response. The session is as the handler left it, or,
	// where it has called Destroy, as it was before; what is changed now is not stored: a
	// message that is to outlive the error goes into the response. What was to be stored
	// was not, unless err matches [ErrUncertain]: then the answer of the store was lost,
	// and there was no finding out within CommitTimeout, or from the 16 latest versions of
	// the record. The status of an ErrorHandler that writes nothing, and of the default,
	// which logs err as well, is 409 for [ErrStale], [ErrLostUpdate] and
	// [ErrTooManySessions], 500 for [ErrTooLarge] and for mistakes in the program, such as
	// a value that cannot be encoded, and 503 for all else, which is the store's.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// MaxPerUser is how many live sessions one user may have in this realm; 0: any
	// number (ASVS 7.1.2). A login beyond it ends the user's oldest sessions, by their
	// latest login, which is an EventRevoked of each. Logins of one user wait for one
	// another, so that the number is exact on every store and across processes, as long
	// as their clocks agree to within CommitTimeout. If a process dies in the middle of
	// a login, that user's logins fail, each after CommitTimeout (503), until twice
	// CommitTimeout is over. The store, and what it wraps, must be a [UserStore] or an
	// [IterStore]; with the latter alone, each login reads all records.
	MaxPerUser int

	// RejectLogin refuses a login beyond MaxPerUser with [ErrTooManySessions], and ends
	// no session. Nothing of the request is stored. A handler that wants to say so on a
	// page of its own calls [Session.Commit] after SetUser and, with this error,
	// [Session.Discard].
	RejectLogin bool

	// NotBefore refuses all sessions that began before it, by their creation or their
	// latest login: set it to the present time and restart each process to end all
	// sessions at once, such as after a theft (ASVS 7.4.5). It must not be in the
	// future. Leave it set until the last of them has run out, which takes the longest
	// of Lifetime, SetLifetime and Remember: taken out sooner, what is left of them
	// opens again. [Manager.RevokeAll] deletes them.
	NotBefore time.Time

	// ClearSiteData has a logout's response, that of [Session.Destroy], clear what the
	// browser keeps of the site by a Clear-Site-Data header: cache, cookies and storage
	// (ASVS 14.3.1). One that begins a new session, such as for a flash message, keeps
	// the cookies. Cookies of the whole registrable domain go, those of other hosts too.
	ClearSiteData bool

	// Anomalies raises EventAnomaly.
	Anomalies bool

	// KeepOnReuse leaves a session alive whose long-replaced token was
	// presented. The event is raised all the same.
	KeepOnReuse bool

	// Sealed encrypts what a session holds: keys, values, flash messages, form tokens,
	// CSRF tokens, the remote address and the user agent (AES-256-GCM). The key is
	// derived from the client's token, of which the store has a hash only, so that
	// whoever steals the database can read none of it, and there is no key to manage.
	// In the clear are the user, the realm, the level, the times and limits, the
	// versions and the size. They are bound to the rest: a session whose record was
	// changed by others, or put together from several, is ErrCorrupt, and never opens.
	// Who may write into the database can still end sessions, put back an earlier state
	// of a record, move its last access, and add a session of their own making.
	//
	// [Manager.Sessions], [Inspect] and the command line see what is in the clear. A
	// manager with Sealed refuses records that are not sealed, and one without it those
	// that are, both as ErrCorrupt: when it is set, or unset, no earlier session opens
	// until it is set back. Those sessions go by their limits, or by
	// [Manager.RevokeAll]. Set it in all processes at one time. A request with a
	// session costs about twice the processor time, some 10 µs more.
	Sealed bool
}

// CookieConfig describes the session cookie. Its zero value is the safe one:
// __Host-session, Secure, HttpOnly, SameSite=Lax, Path=/ and no Domain, gone
// with the browser (RFC 6265bis, ASVS 3.3). HttpOnly is always set.
type CookieConfig struct {
	// Name is by default "__Host-session", and "session" with Insecure, Domain or a Path
	// other than /, which browsers do not allow with that prefix.
	Name string

	// SecureFunc is for an application that serves people both over TLS and over plain
	// HTTP. It reports whether a request has come over TLS, such as by r.TLS != nil;
	// behind a proxy, by what nobody but that proxy can have said: a header that
	// clients can send as well is no such thing. Default: always, or never with
	// Insecure, and no header is believed. It is called once for each request, when it
	// arrives.
	//
	// The two have a cookie each, and so a session each. Over plain HTTP the cookie has
	// no Secure attribute, and its Name is without the prefix, so Name must have one
	// ("__Host-" by default, or "__Secure-" with Domain or Path). A request reads only
	// the cookie of its own kind, so that nobody who can change what goes over plain
	// HTTP plants a session in the other. What goes over plain HTTP can be read on the
	// way: a login belongs over TLS (NIST SP 800-63B-4, 5.1). A logout ends the session
	// of its own kind alone, and over plain HTTP the other one's cookie is not even sent:
	// call [Manager.RevokeUser] before Destroy to end the user's sessions of both kinds.
	SecureFunc func(r *http.Request) bool

	Domain      string        // default none: this host alone
	Path        string        // default "/"
	SameSite    http.SameSite // default Lax
	Insecure    bool          // no Secure attribute: development over plain HTTP
	Partitioned bool          // a jar for each embedding site (CHIPS)
	Persistent  bool          // outlives the browser: Max-Age is what is left of Lifetime, 400 days at most

	// Former are the cookies that earlier releases of the application have set,
	// with other attributes: whoever logs in or out is rid of those too. They open
	// nothing, unless they have the same Name.
	Former []CookieConfig
}

const (
	defaultLifetime    = 24 * time.Hour
	defaultIdle        = 30 * time.Minute
	defaultResolution  = time.Minute
	defaultGrace       = 30 * time.Second
	defaultTimeout     = 5 * time.Second
	defaultWatch       = 5 * time.Second
	defaultMaxBytes    = 1 << 20
	maxCookieAge       = 400 * 24 * time.Hour // RFC 6265bis 5.5
	maxRealm           = 64                   // bytes
	maxCookieAttribute = 1024                 // bytes, RFC 6265bis 5.6
)

// withDefaults returns a copy with every field filled in.
func (c Config) withDefaults() Config {
	c.Lifetime = cmp.Or(c.Lifetime, defaultLifetime)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, min(defaultIdle, c.Lifetime))
	if c.AccessResolution == 0 {
		c.AccessResolution = defaultResolution
		if c.IdleTimeout > 0 {
			c.AccessResolution = min(c.AccessResolution, c.IdleTimeout/10)
		}
	}
	c.RenewGrace = cmp.Or(c.RenewGrace, defaultGrace)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, defaultTimeout)
	if c.WatchEvery == 0 {
		c.WatchEvery = defaultWatch
		if c.RenewEvery > 0 {
			c.WatchEvery = min(c.WatchEvery, maxRetired*c.RenewEvery)
		}
	}
	c.MaxBytes = cmp.Or(c.MaxBytes, defaultMaxBytes)
	if c.Codec == nil {
		c.Codec = Gob{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Cookie = c.Cookie.withDefaults()
	c.Transport.Header = http.CanonicalHeaderKey(c.Transport.Header)
	return c
}

func (c CookieConfig) withDefaults() CookieConfig {
	c.Path = cmp.Or(c.Path, "/")
	c.SameSite = cmp.Or(c.SameSite, http.SameSiteLaxMode)
	if c.Name == "" {
		c.Name = "__Host-session"
		switch wide := c.Domain != "" || c.Path != "/"; {
		case wide && c.SecureFunc != nil:
			c.Name = "__Secure-session"
		case wide, c.Insecure:
			c.Name = "session"
		}
	}
	former := slices.Clone(c.Former)
	for i := range former {
		former[i] = former[i].withDefaults()
	}
	c.Former = former
	return c
}

// limit is when the session ends however much it is used.
func (c *Config) limit(st *state) instant {
	return st.began().add(cmp.Or(st.lifetime, c.Lifetime))
}

// lasts returns until when the session's cookie outlives the browser; zero: it does not.
func (c *Config) lasts(st *state) instant {
	if st.persistent == persistYes || st.persistent == persistDefault && c.Cookie.Persistent {
		return c.limit(st)
	}
	return 0
}

// expiry is when it ends if it is not used after st.accessed.
func (c *Config) expiry(st *state) instant {
	limit := c.limit(st)
	if idle := cmp.Or(st.idle, c.IdleTimeout); idle > 0 {
		return min(limit, st.accessed.add(idle))
	}
	return limit
}

// resolution is how often an access is written.
func (c *Config) resolution(st *state) time.Duration {
	if st.idle > 0 {
		return min(c.AccessResolution, st.idle/10)
	}
	return c.AccessResolution
}

// expired reports whether the session's time is over, by what is stored and by
// what is configured now, whichever is less.
func (c *Config) expired(st *state, now instant) bool {
	return now >= st.expires || now >= c.expiry(st) || !c.NotBefore.IsZero() && st.began() < instantOf(c.NotBefore)
}

// shuts reports whether the session is of no use with this configuration: its time is
// over, or it is not sealed as configured.
func (c *Config) shuts(st *state, now instant) bool {
	return c.expired(st, now) || c.Sealed != (st.box != nil)
}

// problems collects what is wrong with a configuration, so that all of it is
// said at once.
type problems []error

func (p *problems) when(bad bool, format string, args ...any) {
	if bad {
		*p = append(*p, fmt.Errorf("session2: "+format, args...))
	}
}

// check refuses what is unsafe or contradicts itself.
func (c *Config) check() error {
	var p problems
	p.when(c.Lifetime < 0, "Config.Lifetime: %v is negative", c.Lifetime)
	p.when(c.Lifetime > 0 && c.IdleTimeout > c.Lifetime,
		"Config.IdleTimeout: %v is more than the Lifetime of %v", c.IdleTimeout, c.Lifetime)
	p.when(c.AccessResolution < 0, "Config.AccessResolution: %v is negative", c.AccessResolution)
	p.when(c.IdleTimeout > 0 && c.AccessResolution >= c.IdleTimeout,
		"Config.AccessResolution: %v would let a session in use run into the IdleTimeout of %v",
		c.AccessResolution, c.IdleTimeout)
	p.when(c.RenewEvery < 0, "Config.RenewEvery: %v is negative", c.RenewEvery)
	p.when(c.Lifetime > 0 && c.RenewEvery > c.Lifetime,
		"Config.RenewEvery: %v is more than the Lifetime of %v", c.RenewEvery, c.Lifetime)
	p.when(c.RenewGrace < 0, "Config.RenewGrace: %v is negative", c.RenewGrace)
	p.when(c.RenewEvery > 0 && c.RenewEvery < c.RenewGrace/maxRetired,
		"Config.RenewEvery: %v is less than %v, which is 1/%d of the RenewGrace of %v",
		c.RenewEvery, c.RenewGrace/maxRetired, maxRetired, c.RenewGrace)
	p.when(c.CommitTimeout < 0, "Config.CommitTimeout: %v is negative", c.CommitTimeout)
	p.when(c.RenewEvery > 0 && c.WatchEvery > maxRetired*c.RenewEvery,
		"Config.WatchEvery: %v is more than %d times the RenewEvery of %v", c.WatchEvery, maxRetired, c.RenewEvery)
	p = append(p, noUnit("Config.Lifetime", c.Lifetime), noUnit("Config.IdleTimeout", c.IdleTimeout),
		noUnit("Config.CommitTimeout", c.CommitTimeout), noUnit("Config.WatchEvery", c.WatchEvery))
	p.when(c.MaxBytes < 0, "Config.MaxBytes: %d is negative", c.MaxBytes)
	p.when(len(c.Realm) > maxRealm, "Config.Realm: longer than %d bytes", maxRealm)
	p.when(strings.ContainsFunc(c.Realm, unicode.IsControl), "Config.Realm: %q has control characters", c.Realm)
	p.when(c.MaxPerUser < 0, "Config.MaxPerUser: %d is negative", c.MaxPerUser)
	p.when(c.RejectLogin && c.MaxPerUser == 0, "Config.RejectLogin: there is no MaxPerUser")
	p.when(c.NotBefore.After(time.Now()), "Config.NotBefore: %v is in the future: no session could begin", c.NotBefore)
	c.Cookie.check(&p)
	c.Cookie.checkFormer(&p)
	c.Cookie.checkSecureFunc(&p)
	c.Transport.check(&p)
	return errors.Join(p...)
}

// noUnit refuses a duration that is a number of seconds or minutes, where what makes these
// of it was forgotten: no limit of a session is so short.
func noUnit(what string, d time.Duration) error {
	if d <= 0 || d >= time.Millisecond {
		return nil
	}
	return fmt.Errorf("session2: %s: %v is shorter than a millisecond: is a unit missing, as in %d*time.Second?",
		what, d, int64(d))
}

// cookiePrefix returns the prefix by which browsers hold a cookie to its attributes, in
// lower case, for they match it in any (RFC 6265bis 5.7); "" if the name has none.
func cookiePrefix(name string) string {
	name = strings.ToLower(name)
	for _, prefix := range []string{"__host-http-", "__host-", "__secure-", "__http-"} {
		if strings.HasPrefix(name, prefix) {
			return prefix
		}
	}
	return ""
}

func (c *CookieConfig) check(p *problems) {
	prefix := cookiePrefix(c.Name)
	host, secure := strings.HasPrefix(prefix, "__host-"), prefix != ""
	p.when((&http.Cookie{Name: c.Name}).Valid() != nil, "Config.Cookie.Name: %q is no cookie name", c.Name)
	p.when(c.Insecure && secure, "Config.Cookie.Insecure: browsers refuse %q without the Secure attribute", c.Name)
	p.when(host && c.Domain != "", "Config.Cookie.Domain: browsers refuse %q with a Domain", c.Name)
	p.when(host && c.Path != "/", "Config.Cookie.Path: browsers refuse %q with a Path other than /", c.Name)
	p.when(c.Domain != "" && (&http.Cookie{Name: "x", Domain: c.Domain}).Valid() != nil,
		"Config.Cookie.Domain: %q is no domain", c.Domain)
	p.when(len(c.Domain) > maxCookieAttribute, "Config.Cookie.Domain: longer than %d bytes", maxCookieAttribute)
	p.when(!strings.HasPrefix(c.Path, "/") || (&http.Cookie{Name: "x", Path: c.Path}).Valid() != nil,
		"Config.Cookie.Path: %q is no path", c.Path)
	p.when(len(c.Path) > maxCookieAttribute, "Config.Cookie.Path: longer than %d bytes", maxCookieAttribute)
	p.when(len(c.Name) > maxCookieAttribute, "Config.Cookie.Name: longer than %d bytes", maxCookieAttribute)
	p.when(c.SameSite < http.SameSiteLaxMode || c.SameSite > http.SameSiteNoneMode,
		"Config.Cookie.SameSite: %d is none of Lax, Strict and None", c.SameSite)
	p.when(c.SameSite == http.SameSiteNoneMode && c.Insecure,
		"Config.Cookie.SameSite: browsers refuse None without the Secure attribute")
	p.when(c.Partitioned && c.Insecure, "Config.Cookie.Partitioned: browsers refuse it without the Secure attribute")
}

// checkFormer refuses what would revoke the cookie that is set beside it, for
// these make up a cookie's identity (RFC 6265bis 5.7).
func (c *CookieConfig) checkFormer(p *problems) {
	for i := range c.Former {
		f := &c.Former[i]
		name := f.Name == c.Name || c.SecureFunc != nil && f.Name == c.plain().Name
		same := name && f.Path == c.Path && f.Partitioned == c.Partitioned &&
			strings.EqualFold(strings.TrimPrefix(f.Domain, "."), strings.TrimPrefix(c.Domain, "."))
		p.when(f.SecureFunc != nil, "Config.Cookie.Former[%d].SecureFunc: name the cookies of both kinds", i)
		p.when(same, "Config.Cookie.Former[%d]: it is the present cookie: "+
			"its name, domain, path and Partitioned are the same", i)
		p.when(len(f.Former) > 0, "Config.Cookie.Former[%d].Former: put all of them into one list", i)
		f.check(p)
	}
}

// checkSecureFunc refuses what cannot be a cookie of both kinds.
func (c *CookieConfig) checkSecureFunc(p *problems) {
	if c.SecureFunc == nil {
		return
	}
	plain := c.plain()
	p.when(c.Insecure, "Config.Cookie.Insecure: no cookie is Secure, and there is a SecureFunc")
	p.when(plain.Name == c.Name || plain.Name == "" || cookiePrefix(plain.Name) != "",
		"Config.Cookie.Name: with SecureFunc it is a prefix such as __Host-, and a name, and not %q", c.Name)
	p.when(c.SameSite == http.SameSiteNoneMode,
		"Config.Cookie.SameSite: browsers refuse None without the Secure attribute, and so over plain HTTP")
	p.when(c.Partitioned,
		"Config.Cookie.Partitioned: browsers refuse it without the Secure attribute, and so over plain HTTP")
}

// missing names the capabilities that are required and not there.
func (c Capabilities) missing(have Capabilities) error {
	var p problems
	p.when(c.ThreadSafe && !have.ThreadSafe, "Config.Require.ThreadSafe: the store is not")
	p.when(c.MultiprocessSafe && !have.MultiprocessSafe, "Config.Require.MultiprocessSafe: the store is not")
	p.when(c.MultihostSafe && !have.MultihostSafe, "Config.Require.MultihostSafe: the store is not")
	p.when(c.Durable && !have.Durable, "Config.Require.Durable: the store is not")
	return errors.Join(p...)
}

// statusOf returns the status for a request whose session failed. 503 is for a
// store that may come back.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrStale), errors.Is(err, ErrLostUpdate), errors.Is(err, ErrTooManySessions):
		return http.StatusConflict
	case errors.Is(err, ErrTooLarge), untold(err), errors.As(err, new(*changeError)):
		return http.StatusInternalServerError
	}
	return http.StatusServiceUnavailable
}

// defaultErrorHandler logs the error and answers without detail (ASVS 16.5.1).
func (c *Config) defaultErrorHandler(w http.ResponseWriter, r *http.Request, err error) {
	status, level := statusOf(err), slog.LevelError
	if status == http.StatusConflict || errors.Is(err, context.Canceled) {
		// Two requests at once, or a client that did not wait for its turn: nobody's fault.
		level = slog.LevelInfo
	}
	c.Logger.Log(r.Context(), level, "session2: request failed",
		"error", err.Error(), "status", status, "request", r.Pattern)
	httpError(w, status)
}

// httpError writes a response that says its status and nothing else.
func httpError(w http.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, http.StatusText(status), status)
}
