package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/session2/session2/internal/testdb"
)

// TripTable is how many round trips to the server a request makes.
type TripTable struct {
	Store string
	Rows  []TripRow
}

// TripRow is a contender's, by workload; a workload that is not there was not counted.
type TripRow struct {
	Contender string
	Trips     map[Workload]float64
}

// countTrips opens the contenders anew, by way of a proxy that counts.
func countTrips(g group, p place, server *testdb.Server, dir string, o *options) (t TripTable, err error) {
	t.Store = g.store
	for i, c := range g.contenders {
		p.number, p.dir = 100+i, filepath.Join(dir, fmt.Sprint("trips", i))
		if err := os.Mkdir(p.dir, 0o700); err != nil {
			return t, err
		}
		row, err := countTripsOf(c, p, server, o.work)
		if err != nil {
			return t, fmt.Errorf("count round trips: %w", err)
		}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
}

func countTripsOf(c contender, p place, server *testdb.Server, work []Workload) (row TripRow, err error) {
	row = TripRow{c.name, make(map[Workload]float64)}
	proxy, err := newTripProxy(server.Addr())
	if err != nil {
		return row, err
	}
	defer proxy.close()
	p.dsn = strings.Replace(server.DSN(), server.Addr(), proxy.Addr().String(), 1)
	s, err := c.open(p)
	if err != nil {
		return row, err
	}
	defer s.close()
	m := &measured{contender: c, site: s}
	const requests = 10
	if err := m.fill(requests, 1); err != nil {
		return row, err
	}
	for _, w := range work {
		h := s.handler(w)
		if h == nil {
			continue
		}
		client := newInProcess(h)
		before := 0
		for i := range 2 * requests { // the first half prepares statements, and notes accesses
			if i == requests {
				before = proxy.trips.Count()
			}
			cookie := ""
			if w.signedIn() {
				cookie = m.cookies[i%requests]
			}
			if err := client.get(cookie); err != nil {
				return row, fmt.Errorf("%s: %v: %w", c.name, w, err)
			}
		}
		row.Trips[w] = float64(proxy.trips.Count()-before) / requests
	}
	return row, nil
}

// tripProxy hands connections on to a server, and counts round trips.
type tripProxy struct {
	net.Listener
	to    string
	trips testdb.Trips
	wg    sync.WaitGroup
}

func newTripProxy(to string) (*tripProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &tripProxy{Listener: l, to: to}
	p.wg.Go(p.serve)
	return p, nil
}

func (p *tripProxy) serve() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		counted := p.trips.Conn(server)
		p.wg.Go(func() { pipe(counted, client) })
		p.wg.Go(func() { pipe(client, counted) })
	}
}

// pipe copies until one side ends, and then ends both.
func pipe(to, from net.Conn) {
	// Not io.Copy alone: it would go by ReadFrom, past what counts.
	io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
	to.Close()
	from.Close()
}

// close ends the listener; the connections end with their clients.
func (p *tripProxy) close() { p.Listener.Close() }

func writeTrips(w io.Writer, tables []TripTable) {
	for _, t := range tables {
		var work []Workload
		for _, r := range t.Rows {
			for x := range r.Trips {
				if !slices.Contains(work, x) {
					work = append(work, x)
				}
			}
		}
		slices.Sort(work)
		head := []string{t.Store}
		for _, x := range work {
			head = append(head, x.String())
		}
		line(w, head...)
		line(w, slices.Repeat([]string{"---"}, len(head))...)
		for _, r := range t.Rows {
			cells := []string{r.Contender}
			for _, x := range work {
				cells = append(cells, strings.TrimSuffix(fmt.Sprintf("%.1f", r.Trips[x]), ".0"))
			}
			line(w, cells...)
		}
		fmt.Fprintln(w)
	}
}
