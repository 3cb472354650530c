package testdb

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Galera is a cluster of three MariaDB nodes on loopback, which all take
// writes. A node that is killed and started again gets what it missed from
// another one. If all were killed, they must be started together: see [Galera.Start].
type Galera struct {
	Nodes [3]*Server

	ports    [3]galeraPorts
	library  string
	password string
	founded  bool // node 0 has made the cluster
}

// galeraPorts are those that nodes talk to one another by.
type galeraPorts struct{ group, full, incremental int }

// galeraPlaces are where distributions keep the library.
var galeraPlaces = []string{"/usr/lib/galera", "/usr/lib64/galera-4", "/usr/lib64/galera", "/usr/lib/*/galera"}

// NewGalera starts a cluster for this test alone, with these lines added to
// each node's option file.
func NewGalera(t testing.TB, conf ...string) *Galera {
	t.Helper()
	g := &Galera{password: newPassword()}
	notShort(t)
	need(t, g.init())
	for i := range g.Nodes {
		g.Nodes[i] = g.node(i, conf)
		ends(t, g.Nodes[i])
	}
	need(t, g.Nodes[0].create())
	g.founded = true
	need(t, g.join())
	return g
}

// init finds what the nodes have in common.
func (g *Galera) init() (err error) {
	if g.library, err = find("libgalera_smm.so", galeraPlaces...); err != nil {
		return err
	}
	if _, err := find("rsync"); err != nil {
		return err
	}
	for i := range g.ports {
		for _, port := range []*int{&g.ports[i].group, &g.ports[i].full, &g.ports[i].incremental} {
			if *port, err = freePort(); err != nil {
				return err
			}
		}
	}
	return nil
}

// join adds the other nodes, at once.
func (g *Galera) join() error {
	return together(g.Nodes[1:], (*Server).create)
}

// Start starts all nodes after all were killed. They know one another, and are a
// cluster again when the last one is there.
func (g *Galera) Start() {
	t := g.Nodes[0].t
	t.Helper()
	if err := together(g.Nodes[:], (*Server).start); err != nil {
		t.Fatal(err)
	}
}

// Kill kills all nodes at once.
func (g *Galera) Kill() {
	t := g.Nodes[0].t
	t.Helper()
	if err := together(g.Nodes[:], (*Server).kill); err != nil {
		t.Fatal(err)
	}
}

// together does something with each server, at once.
func together(servers []*Server, do func(*Server) error) error {
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { errs[i] = do(s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// node is a server of the cluster. Only the first one makes data; the others
// get theirs, with the account, from it.
func (g *Galera) node(i int, conf []string) *Server {
	conf = append(galeraConf(g, i), conf...)
	k := newMySQL(nil).kind
	k.name, k.ready, k.shutdown = fmt.Sprintf("galera-%d", i), galeraReady, syscall.SIGTERM
	k.command = func(s *Server) []string {
		args := mysqlCommand(s)
		if i == 0 && !g.founded {
			return append(args, "--wsrep-new-cluster")
		}
		return append(args[:2], position(s, args[:2])...) // without the account's statements
	}
	if i != 0 {
		k.prepare = prepareJoiner
	}
	return &Server{kind: k, conf: conf, password: g.password}
}

var recovered = regexp.MustCompile(`Recovered position: ?([-0-9a-f]+:[0-9]+)`)

// position finds how far a node's data go after a crash, which it does not note
// anywhere but in them. A node that does not know gets a copy of everything, and
// none comes up where no node knows.
func position(s *Server, args []string) []string {
	if _, err := os.Stat(s.path("data/ibdata1")); err != nil {
		return nil // it has no data yet
	}
	log := s.path("recovery.err")
	if err := s.tool(append(args, "--wsrep-recover", "--log-error="+log)...); err != nil {
		return nil // its start says what is wrong
	}
	b, _ := os.ReadFile(log)
	os.Remove(log)
	if m := recovered.FindSubmatch(b); m != nil {
		return []string{"--wsrep-start-position=" + string(m[1])}
	}
	return nil
}

func prepareJoiner(s *Server) error {
	if err := s.write("my.cnf", mysqlConf(s)); err != nil {
		return err
	}
	if err := os.Mkdir(s.path("data"), 0o700); err != nil {
		return err
	}
	return give(s.path("data"))
}

// galeraConf names an address for everything that a node listens on: it would
// take all of the machine's for the rest.
func galeraConf(g *Galera, i int) []string {
	var peers []string
	for _, p := range g.ports {
		peers = append(peers, loopback(p.group))
	}
	p := g.ports[i]
	return []string{
		"innodb-buffer-pool-size = 64M",
		"binlog-format = ROW",
		"innodb-autoinc-lock-mode = 2",
		"wsrep-on = ON",
		"wsrep-provider = " + g.library,
		"wsrep-cluster-name = session2",
		"wsrep-cluster-address = gcomm://" + strings.Join(peers, ","),
		"wsrep-node-name = node" + strconv.Itoa(i),
		"wsrep-node-address = " + loopback(p.group),
		"wsrep-sst-method = rsync",
		"wsrep-sst-receive-address = " + loopback(p.full),
		`wsrep-provider-options = "` + strings.Join([]string{
			"base_host=127.0.0.1",
			"base_port=" + strconv.Itoa(p.group),
			"gmcast.listen_addr=tcp://" + loopback(p.group),
			"ist.recv_addr=" + loopback(p.incremental),
			"gcache.size=256M", // what a node that was away can get without a copy of everything
			// How long the others wait for a node that is silent.
			"evs.suspect_timeout=PT2S",
			"evs.keepalive_period=PT0.5S",
		}, ";") + `"`,
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// galeraReady waits until a node has joined the cluster and caught up.
func galeraReady(db *sql.DB) error {
	var name, state string
	if err := db.QueryRow("SHOW STATUS LIKE 'wsrep_local_state_comment'").Scan(&name, &state); err != nil {
		return err
	}
	if state != "Synced" {
		return fmt.Errorf("the node is %q", state)
	}
	return nil
}
