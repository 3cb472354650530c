// The demo is one page to play with sessions on: log in and out, keep values,
// let requests fail, send 64 of them at once, use a stolen cookie, end sessions.
//
//	go run ./examples/demo [-addr host:port] [-store URL]
//
// It prints the address to open. Sessions survive a restart: stop it with
// Ctrl-C, start it again, and the browser goes on where it was.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/session2/session2"
)

const (
	defaultAddr = "127.0.0.1:8080"
	defaultDir  = "session2-demo"
	envStore    = "SESSION2_STORE" // so that a password need not stand on the command line

	cleanupEvery = time.Minute
	shutdownTime = 2 * time.Second
)

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn) // the page shows the events
	// The first Ctrl-C ends the program in good order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run serves the demo until ctx ends.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	addr := flags.String("addr", defaultAddr,
		"`host:port` to listen on; whoever can reach it can end sessions, so keep it on loopback")
	url := flags.String("store", "",
		"`URL` of the store: memory:, file:DIR, bolt:FILE, gob:FILE, postgres://… or mysql://…"+
			" (default $"+envStore+", or else file:"+defaultDir+")")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	store, where, err := openStore(ctx, cmp.Or(*url, os.Getenv(envStore)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session2.Close(store)) }()
	d, err := newDemo(store)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w; -addr names another address", err)
	}
	fmt.Fprintf(out, "session2 demo: open http://%v/\nSessions are kept in %s. Ctrl-C ends the demo.\n",
		l.Addr(), where)
	return serve(ctx, l, d)
}

// openStore opens the store, prepares it, and says where it is. A URL may hold
// a password, so it is not repeated.
func openStore(ctx context.Context, url string) (session2.Store, string, error) {
	where := "the store that -store or " + envStore + " names"
	if url == "" {
		url = "file:" + defaultDir
		path, err := filepath.Abs(defaultDir)
		if err != nil {
			return nil, "", err
		}
		where = "the directory " + path
	}
	store, err := session2.Open(ctx, url)
	if err != nil {
		return nil, "", err
	}
	if err := session2.Setup(ctx, store); err != nil {
		return nil, "", errors.Join(err, session2.Close(store))
	}
	return store, where, nil
}

// serve serves d on l, and deletes what has expired, until ctx ends. When it
// returns nothing uses the store any more.
func serve(ctx context.Context, l net.Listener, d *demo) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { d.m.Cleanup(ctx, cleanupEvery) })

	server := &http.Server{Handler: d, ReadHeaderTimeout: 5 * time.Second}
	server.RegisterOnShutdown(d.close)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return shutdown(server)
	}
}

// shutdown lets the requests under way finish. Browsers open connections ahead
// of need, for which Shutdown waits five seconds: they are cut off before.
func shutdown(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	}
	return err
}
