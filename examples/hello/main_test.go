package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// listen is what the program under test has in place of http.ListenAndServe: a port that
// is free.
const listen = `package main

import (
	"fmt"
	"net"
	"net/http"
)

func listenAndServe(h http.Handler) error {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, h)
}
`

// build compiles the program with listen in it.
func build(t *testing.T) (program string) {
	t.Helper()
	text, err := os.ReadFile("main.go")
	must(t, err)
	changed := strings.Replace(string(text), `http.ListenAndServe("localhost:8080", `, "listenAndServe(", 1)
	dir, here := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(changed), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "listen.go"), []byte(listen), 0o600))
	wd, err := os.Getwd()
	must(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(wd, "main.go"):   filepath.Join(dir, "main.go"),
		filepath.Join(wd, "listen.go"): filepath.Join(dir, "listen.go"),
	}})
	must(t, err)
	list := filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(list, overlay, 0o600))
	program = filepath.Join(here, "hello")
	if out, err := exec.Command("go", "build", "-overlay", list, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var visit = regexp.MustCompile(`your visit number \d+\.`)

// 16 requests at once are shown 16 numbers.
func TestNobodysVisitIsShownTwice(t *testing.T) {
	cmd := exec.Command(build(t))
	cmd.Dir = t.TempDir()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	addr, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)

	browser := http.Client{}
	browser.Jar, _ = cookiejar.New(nil)
	defer browser.CloseIdleConnections()
	get := func() string {
		res, err := browser.Get("http://" + strings.TrimSpace(addr))
		if err != nil {
			t.Error(err)
			return ""
		}
		defer res.Body.Close()
		page, _ := io.ReadAll(res.Body)
		return visit.FindString(string(page))
	}
	shown := map[string]bool{get(): true}
	var mu sync.Mutex
	for range 10 {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				page := get()
				mu.Lock()
				defer mu.Unlock()
				shown[page] = true
			})
		}
		wg.Wait()
	}
	for n := range 161 {
		if said := fmt.Sprintf("your visit number %d.", n+1); !shown[said] {
			t.Errorf("no visit of 161 was shown %q", said)
		}
	}
}
