package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/lockfile"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitCorrupt     = 4
	exitInterrupted = 130
)

// exitError is an error that has an exit status of its own.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// Main carries out the command line args, without the program's name, and returns the
// exit status. It takes stores by URL as [session2.OpenWith] does: schemes are those
// beside the built-in ones, and may be nil. It writes to standard output and standard
// error, and ends early on an interrupt or SIGTERM.
//
// With a store that has a method Schema() []string, setup -n prints the statements that
// this returns: those that the store's Setup runs. A method CheckSchema(context.Context)
// error is called when the store has been opened, and its error ends the command.
func Main(args []string, schemes map[string]session2.OpenFunc) int {
	// The first Ctrl-C ends the work between two records, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	ctx = lockfile.WithPatience(ctx, lockfile.Patience) // a process that stands still with a lock is named
	return run(ctx, args, schemes, os.Stdout, os.Stderr)
}

// run carries out a command line and returns the exit status.
func run(ctx context.Context, args []string, schemes map[string]session2.OpenFunc, stdout, stderr io.Writer) int {
	err := execute(ctx, args, schemes, stdout, stderr)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		if _, err = io.WriteString(stdout, usage()); err == nil {
			return 0
		}
	}
	text := strings.TrimPrefix(err.Error(), "session2: ")
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "session2: interrupted:", text)
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "session2:", text)
	switch {
	case errors.As(err, &exit):
		return exit.status
	case errors.Is(err, session2.ErrNotFound):
		return exitNotFound
	case errors.Is(err, session2.ErrCorrupt):
		return exitCorrupt
	}
	return exitFailed
}

// command is what one of the names does.
type command struct {
	flags       string // that it takes beside -store, -password-file and -json
	least, most int    // arguments after the store
	needs       string // what these are
	ids         bool   // they are session IDs
	noStore     bool   // it does without a store, or has its own
	run         func(ctx context.Context, j *job) error
}

const many = 1 << 20

var commands = map[string]command{
	"setup":       {flags: "n", needs: "a store", run: setup},
	"list":        {flags: "values user realm", needs: "a store", run: withStore(list)},
	"show":        {flags: "values", least: 1, most: 1, ids: true, needs: "one session ID", run: withStore(show)},
	"delete":      {flags: "n", least: 1, most: many, ids: true, needs: "session IDs", run: withStore(remove)},
	"delete-user": {flags: "n realm", least: 1, most: 1, needs: "one user", run: withStore(removeUser)},
	"delete-old":  {flags: "n age", needs: "a store", run: withStore(removeOld)},
	"stats":       {flags: "realm", needs: "a store", run: withStore(stats)},
	"check":       {needs: "a store", run: withStore(check)},
	"version":     {flags: "version", needs: "flags", noStore: true, run: version},
	"copy": {flags: "n workers delete force", least: 2, most: 2, needs: "two stores", noStore: true,
		run: copyStore},
}

// job is a command under way.
type job struct {
	options
	args  []string
	where location       // of the store; copy has two of its own
	store session2.Store // open, where the command is run by withStore
	out   *printer
	bar   *progress
	found *findings
}

// execute finds the command and runs it.
func execute(ctx context.Context, args []string, schemes map[string]session2.OpenFunc,
	stdout, stderr io.Writer,
) (err error) {
	opts, name, rest, err := parse(args)
	if err != nil {
		return err
	}
	opts.schemes = schemes
	cmd, ok := commands[name]
	if !ok {
		return usageError("there is no command %q: session2 help lists them", name)
	}
	j := &job{options: opts, out: newPrinter(stdout, opts.json), bar: newProgress(stderr, name)}
	j.found = newFindings(j.bar)
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(newStoreLog(j.found))) // stores log to it
	if !cmd.noStore {
		if rest, err = j.locateStore(cmd, rest); err != nil {
			return err
		}
	}
	if err := cmd.takes(name, opts, rest); err != nil {
		return err
	}
	j.args = rest
	err = cmd.run(ctx, j)
	j.bar.stop()
	switch failed := j.out.flush(); {
	case failed == nil || errors.Is(err, failed):
		return err
	case err == nil:
		return failed
	default: // what was to be read is not all there, whatever else it would say
		return fmt.Errorf("%w\n%v", failed, err)
	}
}

// withStore is a command on a store that is there.
func withStore(f func(ctx context.Context, j *job) error) func(context.Context, *job) error {
	return func(ctx context.Context, j *job) (err error) {
		if j.store, err = j.where.open(ctx, false); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session2.Close(j.store)) }()
		if err := j.setAside(func() error { return f(ctx, j) }); err != nil {
			return err
		}
		return j.found.verdict()
	}
}
