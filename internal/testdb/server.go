package testdb

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a private database server. Its methods end the test when they fail,
// so they belong into the test's goroutine.
type Server struct {
	t    testing.TB // nil for a shared server
	kind kind
	conf []string
	env  []string // of its process, beyond this one's

	dir      string // holds everything: data, socket, log, configuration
	port     int
	password string
	proc     *process
}

// kind is what differs between the systems.
type kind struct {
	name     string
	driver   string                   // of database/sql; "" with answers
	prepare  func(s *Server) error    // makes the data directory
	command  func(s *Server) []string // starts the server in the foreground
	dsn      func(s *Server) string
	ready    func(db *sql.DB) error // what an answering server must be beyond that; may be nil
	answers  func(s *Server) error  // for a server that database/sql does not speak to
	shutdown os.Signal              // asks for an orderly end
}

// DSN returns what the system's driver opens.
func (s *Server) DSN() string { return s.kind.dsn(s) }

// Addr returns the host and the port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Dir returns the directory that holds all its files.
func (s *Server) Dir() string { return s.dir }

// Start starts the server again, on its data and its port, and waits until it
// answers.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop ends the server in good order.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.stop(); err != nil {
		s.t.Fatal(err)
	}
}

// Kill ends all processes of the server at once, as a crash would, and waits
// until they are gone.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Ended reports whether the server is not running: it may end by itself.
func (s *Server) Ended() bool { return s.proc == nil || s.proc.ended() }

// Pause stops all processes of the server where they are: it hangs.
func (s *Server) Pause() {
	s.t.Helper()
	if err := s.proc.pause(); err != nil {
		s.t.Fatal(err)
	}
}

// Resume lets them go on.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.proc.resume(); err != nil {
		s.t.Fatal(err)
	}
}

// create makes the server's directory and data, and starts it.
func (s *Server) create() error {
	var err error
	if s.port, err = freePort(); err != nil {
		return err
	}
	removeLeftovers()
	if s.dir, err = os.MkdirTemp(parent(), fmt.Sprintf("%s%d-%s-", folderPrefix, os.Getpid(), s.kind.name)); err != nil {
		return err
	}
	if s.password == "" {
		s.password = newPassword()
	}
	if err := give(s.dir); err != nil {
		return err
	}
	if err := s.kind.prepare(s); err != nil {
		return fmt.Errorf("testdb: %s: %w", s.kind.name, err)
	}
	return s.start()
}

func (s *Server) start() error {
	args := s.kind.command(s)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), s.env...)
	log, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if s.proc, err = spawn(cmd, s.kind.shutdown); err != nil {
		return fmt.Errorf("testdb: %s: %w", s.kind.name, err)
	}
	if err := s.ready(); err != nil {
		return fmt.Errorf("testdb: %s: %w\n%s", s.kind.name, err, s.log())
	}
	return nil
}

// ready waits until the server answers.
func (s *Server) ready() error {
	if s.kind.answers != nil {
		return s.until(func() error { return s.kind.answers(s) })
	}
	db, err := sql.Open(s.kind.driver, s.DSN())
	if err != nil {
		return err
	}
	defer db.Close()
	return s.until(func() error {
		err := db.Ping()
		if err == nil && s.kind.ready != nil {
			err = s.kind.ready(db)
		}
		return err
	})
}

// until calls f until it has no error any more, or the server has ended.
func (s *Server) until(f func() error) error {
	return until(startTimeout, func() (bool, error) {
		if s.proc.ended() {
			return true, fmt.Errorf("the server ended")
		}
		err := f()
		return err == nil, err
	})
}

func (s *Server) stop() error {
	if s.proc == nil {
		return nil
	}
	return s.proc.stop(startTimeout)
}

func (s *Server) kill() error {
	if s.proc == nil {
		return nil
	}
	return s.proc.kill()
}

// remove ends the server and takes its directory away.
func (s *Server) remove() {
	if err := s.kill(); err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
	}
	if s.dir != "" {
		discard(s.dir)
	}
}

// discard removes a server's directory, and the shared memory that a killed
// PostgreSQL has left: there is room for some thousand pieces, and it is never
// given back otherwise.
func discard(dir string) {
	if key, id, err := sharedMemory(dir); err == nil {
		freeMemory(key, id)
	}
	os.RemoveAll(dir)
}

// sharedMemory returns which piece of System V shared memory the PostgreSQL in a
// directory uses, as its lock file has it.
func sharedMemory(dir string) (key, id int, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return 0, 0, err
	}
	lines := strings.Split(string(b), "\n")
	_, err = fmt.Sscan(lines[min(6, len(lines)-1)], &key, &id)
	return key, id, err
}

const folderPrefix = "session2-test-"

// parent returns the directory of the servers' directories: the one that is asked
// for, or a temporary one on a disk, for a server that is to be durable, where the
// others may be in memory.
func parent() string {
	if dir := os.Getenv(envParent); dir != "" {
		return dir
	}
	const disk = "/var/tmp"
	if f, err := os.CreateTemp(disk, folderPrefix); err == nil {
		f.Close()
		os.Remove(f.Name())
		return disk
	}
	return os.TempDir()
}

// removeLeftovers removes the directories of test processes that were killed, whose
// servers died with them.
func removeLeftovers() {
	dirs, _ := filepath.Glob(filepath.Join(parent(), folderPrefix+"*"))
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), folderPrefix+"%d-", &pid); err == nil && !alive(pid) {
			discard(dir)
		}
	}
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// log returns the end of the server's log.
func (s *Server) log() []byte {
	b, _ := os.ReadFile(s.path("log"))
	lines := bytes.Split(b, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-30):], []byte("\n"))
}

// tool runs one of the system's programs as the server's user.
func (s *Server) tool(args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	demote(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(args[0]), err, out)
	}
	return nil
}

// write writes a file that the server can read.
func (s *Server) write(name, text string) error {
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		return err
	}
	return give(s.path(name))
}

// append adds lines to a file.
func (s *Server) append(name string, lines []string) error {
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		return err
	}
	return s.write(name, string(b)+"\n"+strings.Join(lines, "\n")+"\n")
}

// freePort returns a port that nobody listens on, below those that the system
// gives to connections: one of them could else take it while the server is
// down. No other process that asks gets the same one, though the server takes it
// only later, and leaves it while it is down.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := strconv.Itoa(15000 + rand.IntN(15000))
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err != nil {
			continue
		}
		l.Close()
		if reserve(port) {
			return strconv.Atoi(port)
		}
	}
	return 0, fmt.Errorf("no free port: %w", err)
}

// reserved keeps the reservations until the process ends.
var reserved struct {
	sync.Mutex
	list []net.Listener
}

// reserve listens on the port of another loopback address, where whoever asks after
// this process meets it. Where the system has no such address, nothing is reserved.
func reserve(port string) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", port))
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	reserved.Lock()
	defer reserved.Unlock()
	reserved.list = append(reserved.list, l)
	return true
}

// find returns the path of a program, from the PATH or one of the places.
func find(name string, places ...string) (string, error) {
	for _, place := range places {
		if list, _ := filepath.Glob(filepath.Join(place, name)); len(list) > 0 {
			return list[len(list)-1], nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is %w", name, errMissing)
	}
	return path, nil
}

// stopTimeout is how long a killed process may take to be gone.
const stopTimeout = 30 * time.Second
