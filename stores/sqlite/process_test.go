package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/stores/sqlite"
)

// openAs opens the file as the driver's application does, in another process.
func openAs(driver, path string) (*sqlite.Store, error) {
	for _, sys := range systems {
		if sys.driver == driver {
			db, err := sql.Open(driver, sys.dsn(path))
			if err != nil {
				return nil, err
			}
			return sqlite.NewStore(db, nil)
		}
	}
	return nil, fmt.Errorf("no driver %q", driver)
}

// write creates records from several goroutines until it is killed, and prints the ID of
// each that was acknowledged.
func write(args []string) int {
	store, err := openAs(args[0], args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var mu sync.Mutex
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				rec := record(byte(i + 1))
				copy(rec.ID[1:], args[2]+strconv.Itoa(n))
				if err := store.Save(context.Background(), rec, 0); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(rec.ID)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestKill kills processes while they write: what was acknowledged is there, and the file
// is whole.
func TestKill(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		path := filepath.Join(t.TempDir(), "app.db")
		db := sys.file(t, path)
		s := store(t, db)
		for round := range 3 {
			cmd := process(t, "write", sys.driver, path, strconv.Itoa(round)+"-")
			stdout, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			var ids []session2.ID
			for lines := bufio.NewScanner(stdout); lines.Scan(); {
				id, err := session2.ParseID(lines.Text())
				if err != nil {
					break // cut off
				}
				if ids = append(ids, id); len(ids) == 20*(round+1) {
					cmd.Process.Kill()
				}
			}
			cmd.Wait()
			for _, id := range ids {
				if _, err := s.Load(t.Context(), id); err != nil {
					t.Errorf("acknowledged before the kill: %v", err)
				}
			}
			var whole string
			must(t, db.QueryRow("PRAGMA integrity_check").Scan(&whole))
			if whole != "ok" || len(ids) < 20 {
				t.Errorf("got %d records, and integrity_check says %q", len(ids), whole)
			}
		}
	})
}

// site is an application that counts in the session.
func site(store session2.Store) (http.Handler, error) {
	m, err := session2.NewManager(store, session2.Config{
		Cookie: session2.CookieConfig{Insecure: true}, Logger: slog.New(slog.DiscardHandler),
		Require: session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true},
	})
	if err != nil {
		return nil, err
	}
	count := session2.NewKey[int]("count")
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session2.FromContext(r.Context())
		if r.Method == http.MethodPost {
			count.Update(s, func(n int) int { return n + 1 })
		}
		n, _ := count.Get(s)
		fmt.Fprint(w, n)
	})), nil
}

// serve is the site in another process, until its standard input ends.
func serve(args []string) int {
	store, err := openAs(args[0], args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	h, err := site(store)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server := httptest.NewServer(h)
	defer server.Close()
	fmt.Println(server.URL)
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// TestManagersInTwoProcesses counts in one session by concurrent requests to two
// processes.
func TestManagersInTwoProcesses(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		path := filepath.Join(t.TempDir(), "app.db")
		h, err := site(store(t, sys.file(t, path)))
		must(t, err)
		server := httptest.NewServer(h)
		defer server.Close()
		cmd := process(t, "serve", sys.driver, path)
		stdin, err := cmd.StdinPipe()
		must(t, err)
		stdout, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		other, err := bufio.NewReader(stdout).ReadString('\n')
		must(t, err)

		cookie, _ := post(t, server.URL, nil)
		var wg sync.WaitGroup
		urls := []string{server.URL, strings.TrimSpace(other)}
		acknowledged := make([]int, 6)
		for i := range acknowledged {
			wg.Go(func() {
				for range 10 {
					if _, ok := post(t, urls[i%2], cookie); ok {
						acknowledged[i]++
					}
				}
			})
		}
		wg.Wait()
		want := 1
		for _, n := range acknowledged {
			want += n
		}
		for _, url := range urls {
			if got := get(t, url, cookie); got != strconv.Itoa(want) {
				t.Errorf("got %s, want %d, as many as were acknowledged", got, want)
			}
		}
		if want < 30 {
			t.Errorf("only %d of 61 requests were acknowledged", want)
		}
		must(t, stdin.Close())
		must(t, cmd.Wait())
	})
}

// post counts, and reports whether it was acknowledged. On a busy machine a request may
// be refused with 503; then it must not have counted.
func post(t testing.TB, url string, cookie *http.Cookie) (set *http.Cookie, ok bool) {
	req, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		t.Error(err)
		return nil, false
	}
	if cookie != nil {
		req.AddCookie(cookie)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return nil, false
	}
	res.Body.Close()
	if list := res.Cookies(); len(list) > 0 {
		set = list[0]
	}
	return set, res.StatusCode == http.StatusOK
}

func get(t testing.TB, url string, cookie *http.Cookie) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	must(t, err)
	req.AddCookie(cookie)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	return string(body)
}
