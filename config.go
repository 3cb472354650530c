package session2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Config configures a [Manager]. Its zero value is the secure default.
type Config struct {
	// Lifetime is the absolute limit of a session, counted from its creation
	// and extended by nothing but SetLifetime (ASVS 7.3.2). Default 24 h.
	Lifetime time.Duration

	// IdleTimeout ends a session that was not used for so long (ASVS 7.3.1).
	// Default 30 min, or Lifetime if that is shorter; negative: none.
	IdleTimeout time.Duration

	// AccessResolution is how often at most an access is written. A session may
	// end by so much earlier than IdleTimeout after its last use. Default 1
	// min, or a tenth of IdleTimeout if that is shorter.
	AccessResolution time.Duration

	// RenewEvery replaces the token of a session in use so often. 0: never,
	// but at each login.
	RenewEvery time.Duration

	// RenewGrace is how long a replaced token is still recognised, for the
	// requests that were under way. Default 30 s.
	RenewGrace time.Duration

	// CommitTimeout bounds all store calls of one commit together. Default 5 s.
	CommitTimeout time.Duration

	// MaxBytes bounds one record's Data. Default 1 MiB; more is ErrTooLarge.
	MaxBytes int

	// Require is what the deployment needs of its store.
	Require Capabilities

	// Cookie describes the cookie.
	Cookie CookieConfig

	// Codec encodes values of other than basic kinds. Default [Gob].
	Codec Codec

	// Logger gets events and failures. Default slog.Default.
	Logger *slog.Logger

	// OnEvent is called for each event, by the goroutine that met it, possibly
	// by several at once. It must not use the session of the request: a commit
	// may be under way, and would wait for itself.
	OnEvent func(ctx context.Context, e Event)

	// ErrorHandler answers a request whose session failed, instead of the
	// handler, of whose response nothing is left. err matches ErrTooLarge,
	// ErrStale or what the store said. The default logs, and answers 500, 409
	// and 503, in that order; so does one that writes nothing, without the
	// log. What was to be stored was not, unless err
	// matches ErrUncertain: then the answer of the store was lost, and there was
	// no finding out within CommitTimeout.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// KeepOnReuse leaves a session alive whose long-replaced token was
	// presented. The event is raised all the same.
	KeepOnReuse bool
}

// CookieConfig describes the session cookie. Its zero value is the safe one:
// __Host-session, Secure, HttpOnly, SameSite=Lax, Path=/ and no Domain, gone
// with the browser (RFC 6265bis, ASVS 3.3). HttpOnly is always set.
type CookieConfig struct {
	Name        string        // default "__Host-session"; "session" where Insecure, Domain or Path rules the prefix out
	Domain      string        // default none: this host alone
	Path        string        // default "/"
	SameSite    http.SameSite // default Lax
	Insecure    bool          // no Secure attribute: development over plain HTTP
	Partitioned bool          // a jar for each embedding site (CHIPS)
	Persistent  bool          // outlives the browser: Max-Age is what is left of Lifetime
}

const (
	defaultLifetime    = 24 * time.Hour
	defaultIdle        = 30 * time.Minute
	defaultResolution  = time.Minute
	defaultGrace       = 30 * time.Second
	defaultTimeout     = 5 * time.Second
	defaultMaxBytes    = 1 << 20
	maxCookieAge       = 400 * 24 * time.Hour // RFC 6265bis 5.5
	maxCookieAttribute = 1024                 // bytes, RFC 6265bis 5.6
)

// withDefaults returns a copy with every field filled in.
func (c Config) withDefaults() Config {
	c.Lifetime = or(c.Lifetime, defaultLifetime)
	c.IdleTimeout = or(c.IdleTimeout, min(defaultIdle, c.Lifetime))
	if c.AccessResolution == 0 {
		c.AccessResolution = defaultResolution
		if c.IdleTimeout > 0 {
			c.AccessResolution = min(c.AccessResolution, c.IdleTimeout/10)
		}
	}
	c.RenewGrace = or(c.RenewGrace, defaultGrace)
	c.CommitTimeout = or(c.CommitTimeout, defaultTimeout)
	c.MaxBytes = or(c.MaxBytes, defaultMaxBytes)
	if c.Codec == nil {
		c.Codec = Gob{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Cookie = c.Cookie.withDefaults()
	return c
}

func (c CookieConfig) withDefaults() CookieConfig {
	c.Path = or(c.Path, "/")
	c.SameSite = or(c.SameSite, http.SameSiteLaxMode)
	if c.Name == "" {
		c.Name = "__Host-session"
		if c.Insecure || c.Domain != "" || c.Path != "/" {
			c.Name = "session"
		}
	}
	return c
}

// or returns v, or the default where v is zero.
func or[T comparable](v, or T) T {
	var zero T
	if v == zero {
		return or
	}
	return v
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
	p.when(c.Lifetime > 0 && c.IdleTimeout > c.Lifetime, "Config.IdleTimeout: %v is more than the Lifetime of %v", c.IdleTimeout, c.Lifetime)
	p.when(c.AccessResolution < 0, "Config.AccessResolution: %v is negative", c.AccessResolution)
	p.when(c.IdleTimeout > 0 && c.AccessResolution >= c.IdleTimeout, "Config.AccessResolution: %v would let a session in use run into the IdleTimeout of %v", c.AccessResolution, c.IdleTimeout)
	p.when(c.RenewEvery < 0, "Config.RenewEvery: %v is negative", c.RenewEvery)
	p.when(c.Lifetime > 0 && c.RenewEvery > c.Lifetime, "Config.RenewEvery: %v is more than the Lifetime of %v", c.RenewEvery, c.Lifetime)
	p.when(c.RenewGrace < 0, "Config.RenewGrace: %v is negative", c.RenewGrace)
	p.when(c.RenewEvery > 0 && c.RenewEvery < c.RenewGrace/maxRetired, "Config.RenewEvery: %v is too short beside a RenewGrace of %v", c.RenewEvery, c.RenewGrace)
	p.when(c.CommitTimeout < 0, "Config.CommitTimeout: %v is negative", c.CommitTimeout)
	p.when(c.MaxBytes < 0, "Config.MaxBytes: %d is negative", c.MaxBytes)
	c.Cookie.check(&p)
	return errors.Join(p...)
}

func (c *CookieConfig) check(p *problems) {
	name := strings.ToLower(c.Name) // browsers match prefixes so (RFC 6265bis 5.7)
	host := strings.HasPrefix(name, "__host-")
	secure := host || strings.HasPrefix(name, "__secure-") || strings.HasPrefix(name, "__http-")
	p.when((&http.Cookie{Name: c.Name}).Valid() != nil, "Config.Cookie.Name: %q is no cookie name", c.Name)
	p.when(c.Insecure && secure, "Config.Cookie.Insecure: browsers refuse %q without the Secure attribute", c.Name)
	p.when(host && c.Domain != "", "Config.Cookie.Domain: browsers refuse %q with a Domain", c.Name)
	p.when(host && c.Path != "/", "Config.Cookie.Path: browsers refuse %q with a Path other than /", c.Name)
	p.when(c.Domain != "" && (&http.Cookie{Name: "x", Domain: c.Domain}).Valid() != nil, "Config.Cookie.Domain: %q is no domain", c.Domain)
	p.when(len(c.Domain) > maxCookieAttribute, "Config.Cookie.Domain: longer than %d bytes", maxCookieAttribute)
	p.when(!strings.HasPrefix(c.Path, "/") || (&http.Cookie{Name: "x", Path: c.Path}).Valid() != nil, "Config.Cookie.Path: %q is no path", c.Path)
	p.when(len(c.Path) > maxCookieAttribute, "Config.Cookie.Path: longer than %d bytes", maxCookieAttribute)
	p.when(len(c.Name) > maxCookieAttribute, "Config.Cookie.Name: longer than %d bytes", maxCookieAttribute)
	p.when(c.SameSite < http.SameSiteLaxMode || c.SameSite > http.SameSiteNoneMode, "Config.Cookie.SameSite: %d is none of Lax, Strict and None", c.SameSite)
	p.when(c.SameSite == http.SameSiteNoneMode && c.Insecure, "Config.Cookie.SameSite: browsers refuse None without the Secure attribute")
	p.when(c.Partitioned && c.Insecure, "Config.Cookie.Partitioned: browsers refuse it without the Secure attribute")
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

// defaultErrorHandler logs the error and answers without detail (ASVS 16.5.1).
func (c *Config) defaultErrorHandler(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	c.Logger.ErrorContext(r.Context(), "session2: request failed", "error", err.Error(), "status", status)
	httpError(w, status)
}

// statusOf returns the status of a response whose session failed with err.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrTooLarge):
		return http.StatusInternalServerError
	case errors.Is(err, ErrStale):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

// httpError writes a response that says its status and nothing else.
func httpError(w http.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, http.StatusText(status), status)
}
