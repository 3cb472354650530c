package testdb

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const envRedis = "SESSION2_TEST_REDIS"

var sharedRedis = &shared{env: envRedis, server: newRedis}

// Redis returns the URL of a Redis or Valkey server likewise: the one that
// SESSION2_TEST_REDIS names, or a private one.
func Redis(t testing.TB) string {
	t.Helper()
	return sharedRedis.get(t)
}

// NewRedis starts a Redis server for this test alone, with these lines added to its
// configuration. It writes each change to its disk before it answers.
func NewRedis(t testing.TB, conf ...string) *Server {
	t.Helper()
	return own(t, newRedis(conf))
}

// NewRedisTLS starts a Redis server likewise that also speaks TLS, on another port, whose
// address it returns. The certificate is for 127.0.0.1, and signed by itself.
func NewRedisTLS(t testing.TB, cert tls.Certificate) (s *Server, addr string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	need(t, err)
	port, err := freePort()
	need(t, err)
	s = newRedis([]string{"tls-port " + strconv.Itoa(port), "tls-auth-clients no",
		"tls-cert-file ../cert.pem", "tls-key-file ../key.pem"})
	s.kind.prepare = func(s *Server) error {
		if err := prepareRedis(s); err != nil {
			return err
		}
		block := func(kind string, b []byte) string {
			return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
		}
		return errors.Join(s.write("cert.pem", block("CERTIFICATE", cert.Certificate[0])),
			s.write("key.pem", block("PRIVATE KEY", key)))
	}
	return own(t, s), net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// sentinelName is what a Sentinel of NewRedisSentinel calls its master.
const sentinelName = "sessions"

// NewRedisSentinel starts a master, a replica of it, and a Sentinel which knows both and
// promotes the replica when the master has not answered for a fifth of a second.
func NewRedisSentinel(t testing.TB) (master, replica, sentinel *Server) {
	t.Helper()
	password := newPassword()
	start := func(s *Server) *Server {
		s.password = password
		return own(t, s)
	}
	auth := "masterauth " + password
	master = start(newRedis([]string{auth, "repl-diskless-sync-delay 0"}))
	replica = start(newRedis([]string{auth, "replicaof 127.0.0.1 " + strconv.Itoa(master.port)}))
	replica.awaits(t, "INFO replication", "master_link_status:up")
	sentinel = newRedis([]string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 1", sentinelName, master.port),
		"sentinel auth-pass " + sentinelName + " " + password,
		"sentinel down-after-milliseconds " + sentinelName + " 200",
		"sentinel failover-timeout " + sentinelName + " 2000",
	})
	sentinel.kind.prepare = func(s *Server) error {
		return s.write("redis.conf", strings.Join(append([]string{
			"bind 127.0.0.1", "port " + strconv.Itoa(s.port), "requirepass " + s.password, "dir " + s.dir,
		}, s.conf...), "\n")+"\n")
	}
	sentinel.kind.command = func(s *Server) []string { return append(redisCommand(s), "--sentinel") }
	start(sentinel).awaits(t, "INFO sentinel", "status=ok", "slaves=1")
	return master, replica, sentinel
}

// awaits waits until the answer to a command says all this.
func (s *Server) awaits(t testing.TB, command string, says ...string) {
	t.Helper()
	need(t, s.until(func() error {
		info, err := s.ask(command)
		for _, text := range says {
			if err == nil && !strings.Contains(info, text) {
				err = fmt.Errorf("%s does not say %s: %s", command, text, info)
			}
		}
		return err
	}))
}

// NewRedisCluster starts masters of a Redis Cluster that share the slots evenly. They write
// to no disk.
func NewRedisCluster(t testing.TB, masters int) []*Server {
	t.Helper()
	nodes, password := make([]*Server, masters), newPassword()
	buses := make([]int, masters)
	for i := range nodes {
		var err error
		if buses[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
		nodes[i] = newRedis([]string{
			"cluster-enabled yes", "cluster-port " + strconv.Itoa(buses[i]), "appendonly no",
		})
		nodes[i].password = password
		own(t, nodes[i])
	}
	const slots = 16384
	for i, s := range nodes {
		need(t, s.redis(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*slots/masters, (i+1)*slots/masters-1)))
		need(t, s.redis(fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1)))
		if i > 0 {
			need(t, s.redis(fmt.Sprintf("CLUSTER MEET 127.0.0.1 %d %d", nodes[0].port, buses[0])))
		}
	}
	for _, s := range nodes {
		need(t, until(startTimeout, func() (bool, error) {
			info, err := s.ask("CLUSTER INFO")
			ok := strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", masters))
			if err == nil && !ok {
				err = fmt.Errorf("the cluster is not complete: %s", info)
			}
			return ok, err
		}))
	}
	return nodes
}

func newRedis(conf []string) *Server {
	return &Server{conf: conf, kind: kind{
		name: "redis", prepare: prepareRedis, command: redisCommand, dsn: redisDSN,
		answers:  func(s *Server) error { return s.redis("PING") },
		shutdown: syscall.SIGTERM,
	}}
}

func prepareRedis(s *Server) error {
	if _, err := find("redis-server"); err != nil {
		if _, err = find("valkey-server"); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.path("data"), 0o700); err != nil {
		return err
	}
	if err := give(s.path("data")); err != nil {
		return err
	}
	return s.write("redis.conf", strings.Join(append([]string{
		"bind 127.0.0.1",
		"port " + strconv.Itoa(s.port),
		"requirepass " + s.password,
		"dir " + s.path("data"),
		"save \"\"",
		"appendonly yes",
		"appendfsync always",
		"maxclients 1000",
	}, s.conf...), "\n")+"\n")
}

func redisCommand(s *Server) []string {
	path, err := find("redis-server")
	if err != nil {
		path = "valkey-server"
	}
	return []string{path, s.path("redis.conf")}
}

func redisDSN(s *Server) string {
	u := url.URL{Scheme: "redis", User: url.UserPassword("default", s.password), Host: s.Addr(), Path: "/0"}
	return u.String()
}

// redis runs a command whose answer does not matter.
func (s *Server) redis(command string) error {
	_, err := s.ask(command)
	return err
}

// ask runs a command of Redis, whose answer is a line or a bulk of text.
func (s *Server) ask(command string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Addr(), stopTimeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(stopTimeout))
	fmt.Fprintf(c, "AUTH %s\r\n%s\r\n", s.password, command)
	r := bufio.NewReader(c)
	var line string
	for range 2 {
		if line, err = r.ReadString('\n'); err != nil {
			return "", err
		}
		if line[0] == '-' {
			return "", fmt.Errorf("%s", strings.TrimSpace(line[1:]))
		}
	}
	if line[0] != '$' {
		return line[1:], nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil || n < 0 {
		return "", err
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	return string(text), err
}
