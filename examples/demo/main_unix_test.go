//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the demo as a person starts it.
type program struct {
	t    testing.TB
	cmd  *exec.Cmd
	said string // what it printed when it started
	url  string
}

func build(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func start(t testing.TB, path, dir string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(path, append([]string{"-addr", "127.0.0.1:0"}, args...)...)}
	p.cmd.Dir, p.cmd.Stderr = dir, os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	for range 2 {
		line, err := lines.ReadString('\n')
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		p.said += line
	}
	p.url = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`).FindString(p.said)
	if p.url == "" {
		t.Fatalf("no address in %q", p.said)
	}
	return p
}

// stop sends sig and wants a quick end in good order.
func (p *program) stop(sig os.Signal) {
	p.t.Helper()
	begun := time.Now()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("after %v: %v, want exit code 0", sig, err)
	}
	if d := time.Since(begun); d > 10*time.Second {
		p.t.Errorf("it took %v to end", d)
	}
}

func TestProgram(t *testing.T) {
	path := build(t)
	for _, scheme := range []string{"file", "bolt", "gob", "postgres", "mysql"} {
		t.Run(scheme, func(t *testing.T) {
			url := storeURL(t, scheme)
			p := start(t, path, t.TempDir(), "-store", url)
			b := newBrowser(t, func() string { return p.url })
			b.post("/login", "user", "alice")
			b.post("/increment")
			p.stop(os.Interrupt)
			b.client.CloseIdleConnections()

			t.Setenv("SESSION2_STORE", url) // which keeps a password out of the command line
			p = start(t, path, t.TempDir())
			b.post("/increment")
			b.want(200, "user", "alice", "counter", "2")
			p.stop(syscall.SIGTERM)
		})
	}
}

func TestProgramNamesItsDefaultStore(t *testing.T) {
	dir := t.TempDir()
	p := start(t, build(t), dir)
	b := newBrowser(t, func() string { return p.url })
	b.post("/login", "user", "alice")
	b.want(200, "user", "alice")
	p.stop(os.Interrupt)
	if _, err := os.Stat(filepath.Join(dir, defaultDir)); err != nil {
		t.Error(err)
	}
	if !strings.Contains(p.said, string(filepath.Separator)+defaultDir) {
		t.Errorf("it does not name its directory: %q", p.said)
	}
}

func TestProgramRefuses(t *testing.T) {
	path := build(t)
	for _, args := range [][]string{
		{"-store", "durus:x"},
		{"-store", "file:"},
		{"-addr", "127.0.0.1:99999", "-store", "memory:"},
		{"extra"},
	} {
		cmd := exec.Command(path, args...)
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err == nil || len(out) == 0 {
			t.Errorf("%v: error %v, output %q; want both", args, err, out)
		}
	}
}
