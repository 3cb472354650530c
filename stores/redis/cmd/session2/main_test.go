package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// asCommand has the test binary be the command.
const asCommand = "SESSION2_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	testdb.Main(m)
}

// TestCommand has the command line look after sessions in Redis, in a process of its own.
func TestCommand(t *testing.T) {
	url := testdb.Redis(t) + "?prefix=command:"
	run := func(want string, args ...string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), asCommand+"=1", "SESSION2_STORE="+url)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("session2 %s: got %v and %s, want %q", args[0], err, out, want)
		}
		if password := strings.Split(strings.Split(url, "@")[0], ":")[2]; strings.Contains(string(out), password) {
			t.Errorf("session2 %s prints the password", args[0])
		}
	}
	run("is ready", "setup")
	store, err := redisstore.Open(t.Context(), url)
	testsite.Must(t, err)
	defer session2.Close(store)
	st := testsite.NewSite(t, store, session2.Config{})
	for range 3 {
		st.Login("alice")
	}
	run("alice", "list")
	run("", "check")
	run("3", "copy", url, "bolt:"+t.TempDir()+"/copy.db")
	run("deleted 3", "delete-user", "alice")
}
