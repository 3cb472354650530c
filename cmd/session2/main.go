// Session2 looks after the sessions in a store.
//
//	session2 setup URL              make the tables or the directory, if they are not there;
//	                                rebuild a file store's indexes, if a record is missing there
//	session2 list                   list the sessions
//	session2 show ID                show one session
//	session2 delete ID...           end sessions
//	session2 delete-user USER       end all sessions of a user
//	session2 delete-old -age 30d    delete what was not used for so long, or has expired
//	session2 stats                  count
//	session2 check                  read every record, and report what is corrupt, or missing
//	                                from an index
//	session2 copy FROM TO           copy what TO does not have, or has older; make TO if it is
//	                                not there
//
// The store is a URL as session2.Open takes it, such as bolt:sessions.db or
// postgres://app@localhost/app. It is given by -store, as the first argument, or
// by the environment variable SESSION2_STORE. Flags may stand anywhere; -- ends
// them.
//
//	-store URL            the store
//	-password-file FILE   holds the password of database URLs that have none
//	-json                 print JSON: one object; for list, one object a line
//	-n                    say what would be done, and do nothing; opening a store may
//	                      still tidy it up
//	-values               with list and show: print the sessions' values, too
//	-user USER            with list: only this user's sessions
//	-realm NAME           with list and stats: only this realm's sessions; with -user and
//	                      delete-user: the realm that the user belongs to
//	-age DURATION         with delete-old: 90m, 12h, 30d
//	-workers N            with copy: how many records at a time (8)
//	-delete               with copy: delete in TO what FROM does not have
//
// # Passwords
//
// A command line can be read by others on the machine, so leave the password out
// of it. It is taken from -password-file, or from the environment variable
// SESSION2_PASSWORD; or write @FILE in place of a URL, and the whole URL into the
// file: so copy can have two of them. No output repeats a password.
//
// # Realms
//
// A manager with a Config.Realm has its sessions apart from those of the other
// managers on its store. List and show print each session's realm: - is the
// default one, and ? one that nobody can tell, because nobody is signed in and
// the data cannot be read. List and stats take all realms unless -realm names one.
// The default one's name is empty: -realm "".
//
// A user belongs to one realm: alice of another realm may be another person.
// Without -realm, -user and delete-user mean the default realm. They look for
// other realms among the first 1000 records, and say on standard error in which
// of them the user has sessions, too. Delete, delete-old, check and copy work on
// the sessions of all realms.
//
// # Copying
//
// Copy makes TO if it is not there, as setup does, and says so. It asks TO for each
// record of FROM. What is not there is created; what is
// there with the same version, or a newer one, is left alone; an older one is
// replaced, unless it changes in that moment. Expired sessions are left out. At
// the end everything is compared, and what changed since is copied, so that a
// copy that succeeded is complete. Both stores may be in use, and a copy that was
// interrupted is taken up again by the same command.
//
// Copy alone carries no logouts over: a session that ends in FROM after it was
// copied lives on in TO, and one that ended in TO a second copy brings back. So
// move in this order: copy while the application uses FROM; stop it; copy again
// with -delete, which ends in TO what is not in FROM any more; start it on TO.
//
// # What cannot be read
//
// Whichever command meets a corrupt record names it on standard error, goes on
// with the others, and ends with status 4. A file store moves the file to its
// subdirectory corrupt; list, stats, check and copy count it all the same until
// you delete or rename it there. List and show print what can be told without the
// data; with -realm, list leaves out what is not known to be of that realm, and
// names it all the same. In the file of a gob store a place may be so
// damaged that nobody can tell which record was there: it is reported as damaged.
//
// A file store has an index by user, by which delete-user and "log out everywhere"
// go, and one by time, by which delete-old does. An index that vanished is rebuilt
// by the first command, or call of the application, that needs it. One that lacks
// single entries, because somebody removed files in it, is not: check names the
// records that are missing there, with status 4, and setup rebuilds it. Both read
// every record for that, and hold up delete-old meanwhile.
//
// Copy also carries over records whose data this release cannot read (a later one
// may have written them), and counts them among the corrupt ones. With -delete it
// leaves in TO what is corrupt in FROM, and deletes nothing if a store is damaged.
//
// # Exit status
//
//	0    it is done
//	1    it failed
//	2    the command line was wrong
//	3    there is no such session
//	4    something is corrupt, or a copy is not complete
//	130  it was interrupted; what was done is done whole
//
// A database may carry out a deletion whose answer the command does not wait for,
// or does not get. Then delete, delete-user and delete-old print "deleted 400 or
// more", and the JSON has "uncertain": true.
package main

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

func main() {
	// The first Ctrl-C ends the work between two records, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out a command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := execute(ctx, args, stdout, stderr)
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
	"copy":        {flags: "n workers delete", least: 2, most: 2, needs: "two stores", run: copyStore},
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
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	opts, name, rest, err := parse(args)
	if err != nil {
		return err
	}
	cmd, ok := commands[name]
	if !ok {
		return usageError("there is no command %q: session2 help lists them", name)
	}
	j := &job{options: opts, out: newPrinter(stdout, opts.json), bar: newProgress(stderr, name)}
	j.found = newFindings(j.bar)
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(newStoreLog(j.found))) // stores log to it
	if name != "copy" {
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
