package testdb

import (
	"bufio"
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
