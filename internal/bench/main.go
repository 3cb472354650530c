// Command bench measures session2 against the libraries that people use today, and
// against the same work by hand, all of them in turns and in one run.
//
//	go run . -stores memory -work W1,W2,W3 -rounds 3    # a quick look
//	go run . -write ../../docs                          # everything, which takes a while
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// options are what the command line asks for.
type options struct {
	stores   []string
	work     []Workload
	rounds   int
	duration time.Duration // of a round
	within   time.Duration // of one in which the handler is called
	sessions int           // in each store
	files    int           // in each store that has a file for each, or that waits for a disk
	inside   []int
	loopback []int
	growth   []int  // sizes of stores
	media    []bool // whether writes are to be durable
	giant    int    // one more size, for PostgreSQL alone
	sweep    int    // sessions to begin a sweep with
	write    string
	args     []string
	quiet    bool
}

func main() {
	testing.Init() // for testdb, which asks whether tests are to be short
	flag.CommandLine.Parse(nil)
	mysql.SetLogger(new(mysql.NopLogger))
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	o, err := parse(os.Args[1:])
	go func() {
		<-interrupted
		o.clear()
		os.Exit(1)
	}()
	if err == nil {
		err = run(o, os.Stdout)
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{args: args}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	stores := fs.String("stores", strings.Join(storeNames(), ","), "stores to measure")
	work := fs.String("work", "W0,W0b,W1,W2,W3,W4", "workloads; report.md says what they are")
	inside := fs.String("inside", "1", "numbers of clients that call the handler")
	loopback := fs.String("loopback", "1,8,64", "numbers of clients over loopback")
	growth := fs.String("growth", "", "numbers of sessions at which to measure what session2's stores cost")
	media := fs.String("media", "ram", "ram, where nothing waits for a disk; disk, where all is durable; or both")
	seconds := fs.Float64("seconds", 0.5, "how long a round lasts")
	within := fs.Float64("inside-seconds", 0, "how long one lasts in which the handler is called (default as -seconds)")
	fs.IntVar(&o.rounds, "rounds", 5, "how often each contender has its turn")
	fs.IntVar(&o.sessions, "sessions", 100_000, "sessions in each store")
	fs.IntVar(&o.files, "files", 10_000, "sessions in each store that has a file for each, or that waits for a disk")
	fs.IntVar(&o.giant, "giant", 0, "one more number of sessions, at which to measure PostgreSQL")
	fs.IntVar(&o.sweep, "sweep", 0, "measure W5, sweeps beside readers of so many sessions")
	fs.StringVar(&o.write, "write", "", "the directory to write BENCHMARKS.md and benchmarks.svg to")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.duration = time.Duration(*seconds * float64(time.Second))
	o.within = time.Duration(cmp.Or(*within, *seconds) * float64(time.Second))
	o.stores = strings.Split(*stores, ",")
	for _, name := range o.stores {
		if !slices.Contains(storeNames(), name) {
			return nil, fmt.Errorf("no store %q: there are %s", name, strings.Join(storeNames(), ", "))
		}
	}
	for _, m := range strings.Split(*media, ",") {
		o.media = append(o.media, m == "disk")
	}
	var err error
	if o.work, err = parseWork(*work); err != nil {
		return nil, err
	}
	if o.inside, err = parseCounts(*inside); err != nil {
		return nil, err
	}
	if o.growth, err = parseCounts(*growth); err != nil {
		return nil, err
	}
	o.loopback, err = parseCounts(*loopback)
	return o, err
}

func parseWork(list string) (work []Workload, err error) {
	for _, name := range strings.Split(list, ",") {
		found := false
		for w, about := range workloads {
			if about.name == name {
				work, found = append(work, w), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no workload %q", name)
		}
	}
	slices.Sort(work) // W3 comes last
	return work, nil
}

// parseCounts takes numbers with commas between them, or nothing.
func parseCounts(list string) (counts []int, err error) {
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number that can be", text)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

func (o *options) modes() (list []mode) {
	for _, n := range o.inside {
		list = append(list, mode{clients: n})
	}
	for _, n := range o.loopback {
		list = append(list, mode{loopback: true, clients: n})
	}
	return list
}

// round is how long a round lasts.
func (o *options) round(md mode) time.Duration {
	if md.loopback {
		return o.duration
	}
	return o.within
}

// parent returns the directory for what is stored: on a disk, or in memory where the
// system has such a place.
func (o *options) parent(durable bool) string {
	if durable {
		return "/var/tmp"
	}
	if dir, err := os.MkdirTemp("/dev/shm", ""); err == nil {
		os.Remove(dir)
		return filepath.Dir(dir)
	}
	return os.TempDir()
}

// mkdir makes a directory for what is stored.
func (o *options) mkdir(durable bool) (string, error) {
	return os.MkdirTemp(o.parent(durable), dirPrefix())
}

func dirPrefix() string { return fmt.Sprintf("session2-bench-%d-", os.Getpid()) }

// clear removes the directories of a run that does not come to its end: they may be
// much of the memory. The servers end with this process.
func (o *options) clear() {
	for _, durable := range []bool{false, true} {
		for _, name := range []string{dirPrefix(), fmt.Sprintf("session2-test-%d-", os.Getpid())} {
			dirs, _ := filepath.Glob(filepath.Join(o.parent(durable), name+"*"))
			for _, dir := range dirs {
				os.RemoveAll(dir)
			}
		}
	}
}

// command is what was asked for, without the place that the report goes to.
func (o *options) command() string {
	words := []string{"go run ."}
	for i := 0; i < len(o.args); i++ {
		switch arg := o.args[i]; {
		case arg == "-write":
			i++
		case strings.HasPrefix(arg, "-write="):
		case arg == "":
			words = append(words, "''")
		default:
			words = append(words, arg)
		}
	}
	return strings.Join(words, " ")
}

func (o *options) log(format string, args ...any) {
	if !o.quiet {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

func storeNames() (names []string) {
	for _, g := range groups() {
		names = append(names, g.store)
	}
	return names
}

func run(o *options, out io.Writer) error {
	report := &Report{
		Date: time.Now(), Command: o.command(), Machine: machine(),
		Modules: modules(), Rounds: o.rounds, Round: o.duration, Within: o.within,
	}
	for _, g := range groups() {
		if !slices.Contains(o.stores, g.store) {
			continue
		}
		for _, durable := range o.media {
			if durable && g.volatile {
				continue
			}
			from := len(report.Tables)
			if err := runGroup(g, o, durable, report); err != nil {
				return fmt.Errorf("%s: %w", g.store, err)
			}
			writeTables(out, report.Tables[from:])
		}
		rows, err := growth(g, o)
		if err != nil {
			return fmt.Errorf("%s: growth: %w", g.store, err)
		}
		report.Growth = append(report.Growth, rows...)
		swept, err := sweeps(g, o)
		if err != nil {
			return fmt.Errorf("%s: %w", g.store, err)
		}
		report.Sweeps = append(report.Sweeps, swept...)
		if o.write != "" { // each time: the whole takes long, and may be interrupted
			if err := report.save(o.write); err != nil {
				return err
			}
		}
	}
	writeTrips(out, report.Trips)
	writeGrowth(out, report.Growth)
	writeSweeps(out, report.Sweeps)
	return nil
}
