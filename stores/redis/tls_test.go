package redisstore_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// TestTLS makes every call over TLS, and none to a server whose certificate nobody vouches
// for, or that speaks another protocol than the URL says: that is an error soon.
func TestTLS(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	server, addr := testdb.NewRedisTLS(t, web.TLS.Certificates[0])
	plain := parse(t, server.DSN())
	secure := *plain
	secure.Scheme, secure.Host = "rediss", addr

	o, err := redis.ParseURL(secure.String())
	testsite.Must(t, err)
	o.ContextTimeoutEnabled = true
	o.TLSConfig.RootCAs = x509.NewCertPool()
	o.TLSConfig.RootCAs.AddCert(web.Certificate())
	o.TLSConfig.MinVersion = tls.VersionTLS12
	c := redis.NewClient(o)
	defer c.Close()
	testsite.Must(t, everyCall(t.Context(), open(t, c, redisstore.Options{})))

	stranger, crossed, naked := secure, secure, *plain
	crossed.Host, naked.Host = plain.Host, addr
	for name, u := range map[string]string{
		"unknown authority": stranger.String() + "?timeout=1m", "EOF": naked.String() + "?timeout=1m",
		"no answer": crossed.String() + "?timeout=1s",
	} {
		began := time.Now()
		store, err := redisstore.Open(t.Context(), u+"&max_retries=-1")
		testsite.Must(t, err)
		defer session2.Close(store)
		err = session2.Setup(t.Context(), store)
		password, _ := plain.User.Password()
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), password) {
			t.Errorf("got %v, want an error with %q and without the password", err, name)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%v was said after %v", err, took)
		}
	}
}
