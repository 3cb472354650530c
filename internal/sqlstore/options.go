package sqlstore

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Options are session2.SQLOptions, where they are explained.
type Options struct {
	Table     string
	NoPrepare bool
	Timeout   time.Duration
}

// Wait returns the timeout, or its default.
func (o *Options) Wait() time.Duration { return cmp.Or(o.Timeout, 5*time.Second) }

// nameForm is one name; indexes need some of PostgreSQL's 63 bytes for theirs.
var nameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`)

// table returns the parts of the table's name, or of its default.
func (o *Options) table() ([]string, error) {
	table := cmp.Or(o.Table, "session2_sessions")
	names := strings.Split(table, ".")
	ok := len(names) <= 2
	for _, name := range names {
		ok = ok && nameForm.MatchString(name)
	}
	if !ok {
		return nil, fmt.Errorf("%q is no name for a table: want letters, digits and underscores, at most 40", table)
	}
	if strings.HasSuffix(table, "_meta") || strings.HasSuffix(table, "_idx") { // another store's
		return nil, fmt.Errorf("%q is no name for a table: it ends in _meta or _idx", table)
	}
	return names, nil
}

// lists fills in the two queries of a list.
func lists(r *strings.Replacer, query string) List {
	rows := func(n int) string { return strings.ReplaceAll(r.Replace(query), "{rows}", strconv.Itoa(n)) }
	return List{Narrow: rows(PageRows), Wide: rows(WideRows)}
}

func replaceAll(r *strings.Replacer, list []string) []string {
	done := make([]string, len(list))
	for i, text := range list {
		done[i] = r.Replace(text)
	}
	return done
}
