// Package command is session2's command line, for a program that knows stores beside
// the library's own. This one knows SQLite:
//
//	package main
//
//	import (
//		"os"
//
//		_ "modernc.org/sqlite"
//
//		"github.com/session2/session2"
//		"github.com/session2/session2/command"
//		"github.com/session2/session2/stores/sqlite"
//	)
//
//	func main() {
//		os.Exit(command.Main(os.Args[1:], map[string]session2.OpenFunc{"sqlite": sqlite.Open}))
//	}
//
// What follows is what session2 help prints.
//
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
//	session2 version                print the version
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
//	-force                with copy -delete: also if FROM has no session, and all would go
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
// with -delete, which ends in TO what is not in FROM any more; start it on TO. If
// FROM has no session that has not expired, -delete is refused, for FROM and TO may
// be swapped; -force does it all the same.
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
// # Waiting
//
// Where another process holds the lock of a file store or a gob store, a command
// waits 30 s for it, and then fails and names the lock's file. That process may be
// at long work, such as a sweep, or stand still (kill -STOP, a frozen container).
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
package command
