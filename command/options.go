package command

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/session2/session2"
)

// options are the flags' values.
type options struct {
	url          string
	passwordFile string
	json         bool
	version      bool
	dry          bool
	del          bool
	force        bool
	values       bool
	user         string
	realm        string
	age          time.Duration
	workers      int

	given   []string // the flags that were
	schemes map[string]session2.OpenFunc
}

// parse takes flags and arguments apart, in any order. The first argument is the
// command.
func parse(args []string) (opts options, name string, rest []string, err error) {
	fs := opts.flagSet()
	last := args[len(args):]
	if i := slices.Index(args, "--"); i >= 0 {
		args, last = args[:i], args[i+1:]
	}
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return opts, "", nil, err
		} else if err != nil {
			return opts, "", nil, usageError("%v", err)
		}
		if fs.NArg() == 0 {
			break
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
	rest = append(rest, last...)
	fs.Visit(func(f *flag.Flag) { opts.given = append(opts.given, f.Name) })
	switch {
	case opts.version && len(rest) == 0:
		return opts, "version", rest, nil
	case len(rest) == 0:
		return opts, "", nil, usageError("a command is missing: session2 help lists them")
	case rest[0] == "help":
		return opts, "", nil, flag.ErrHelp
	}
	return opts, rest[0], rest[1:], nil
}

// gave reports whether the flag was given, be it with its default.
func (o *options) gave(flag string) bool { return slices.Contains(o.given, flag) }

func (o *options) flagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("session2", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.url, "store", "", "")
	fs.StringVar(&o.passwordFile, "password-file", "", "")
	fs.BoolVar(&o.json, "json", false, "")
	fs.BoolVar(&o.version, "version", false, "")
	fs.BoolVar(&o.dry, "n", false, "")
	fs.BoolVar(&o.del, "delete", false, "")
	fs.BoolVar(&o.force, "force", false, "")
	fs.BoolVar(&o.values, "values", false, "")
	fs.StringVar(&o.user, "user", "", "")
	fs.StringVar(&o.realm, "realm", "", "")
	fs.Func("age", "", func(s string) (err error) { o.age, err = parseAge(s); return err })
	fs.IntVar(&o.workers, "workers", 8, "")
	return fs
}

// errAge says what the largest age is: a [time.Duration] has 63 bits of nanoseconds.
var errAge = fmt.Errorf("it is too large: at most %dd", int(math.MaxInt64/(24*time.Hour)))

// ageForm is what time.ParseDuration refuses for its size alone.
var ageForm = regexp.MustCompile(`^\+?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`)

// parseAge is time.ParseDuration that knows days, too.
func parseAge(s string) (time.Duration, error) {
	var age time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		n *= float64(24 * time.Hour)
		switch {
		case n >= math.MaxInt64:
			return 0, errAge
		case math.IsNaN(n):
			err = strconv.ErrSyntax
		default:
			age = time.Duration(max(n, -1))
		}
	} else {
		age, err = time.ParseDuration(s)
	}
	switch {
	case err != nil && ageForm.MatchString(s):
		return 0, errAge
	case err != nil:
		return 0, errors.New("not a duration such as 90m, 12h or 30d")
	case age <= 0: // an age of 0 would be every session there is
		return 0, errors.New("it must be positive")
	}
	return age, nil
}

// takes refuses flags and arguments that are not the command's.
func (c command) takes(name string, o options, args []string) error {
	allowed := append(strings.Fields(c.flags), "store", "password-file", "json")
	for _, flag := range o.given {
		if !slices.Contains(allowed, flag) {
			return usageError("%s takes no flag -%s", name, flag)
		}
	}
	switch {
	case len(args) < c.least:
		return usageError("%s needs %s", name, c.needs)
	case len(args) > c.most:
		return usageError("%s takes no more than %s", name, c.needs)
	case o.force && !o.del:
		return usageError("-force is for -delete")
	case name == "delete-old" && o.age == 0:
		return usageError("delete-old needs -age")
	case o.gave("user") && o.user == "":
		return usageError("the user is empty")
	case strings.ContainsFunc(o.realm, unicode.IsControl): // no manager has such a one
		return usageError("a realm has no control characters")
	case o.workers < 1:
		return usageError("-workers must be positive")
	}
	return nil
}

//go:embed doc.go
var source string

// usage is the text in doc.go that is about the program.
func usage() string {
	_, text, _ := strings.Cut(source, "session2 help prints.\n//\n")
	text, _, _ = strings.Cut(text, "package command")
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(strings.TrimPrefix(line, "//"), " ")
		b.WriteString(strings.TrimPrefix(line, "# "))
	}
	return strings.ReplaceAll(b.String(), "\t", "  ")
}
