package command

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/session2/session2"
)

// printer writes a command's output, as text or as JSON.
type printer struct {
	w    *bufio.Writer
	json *json.Encoder // nil for text
	rows bool          // there was one
}

func newPrinter(w io.Writer, asJSON bool) *printer {
	p := &printer{w: bufio.NewWriter(w)}
	if asJSON {
		p.json = json.NewEncoder(harmless{p.w})
		p.json.SetEscapeHTML(false)
	}
	return p
}

// harmless writes JSON of which a terminal obeys nothing: it escapes what the
// encoder lets through.
type harmless struct{ w io.Writer }

func (h harmless) Write(b []byte) (int, error) {
	var out strings.Builder
	for _, r := range string(b) {
		if r < 0x7f || unicode.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&out, `\u%04x`, u)
		}
	}
	if _, err := io.WriteString(h.w, out.String()); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *printer) flush() error { return p.w.Flush() }

// fields are a result for JSON.
type fields map[string]any

// result prints the one line that a command ends with.
func (p *printer) result(f fields, format string, args ...any) error {
	if p.json != nil {
		return p.json.Encode(f)
	}
	_, err := fmt.Fprintf(p.w, format+"\n", args...)
	return err
}

// entry is a record as it is printed.
type entry struct {
	ID       string `json:"id"`
	Realm    origin `json:"realm"`
	User     string `json:"user"`
	Created  moment `json:"created"`
	Accessed moment `json:"accessed"`
	Expires  moment `json:"expires"`
	Expired  bool   `json:"expired"`
	Bytes    int    `json:"bytes"`
	Sealed   bool   `json:"sealed,omitempty"` // its details and values are known to the client alone
	*details
}

// moment is a time that JSON shows in whatever year it is.
type moment struct{ time.Time }

// MarshalJSON implements [json.Marshaler].
func (m moment) MarshalJSON() ([]byte, error) {
	return json.Marshal(m.UTC().Format(time.RFC3339Nano))
}

// details are what show adds.
type details struct {
	RemoteAddr string  `json:"remote_addr"`
	UserAgent  string  `json:"user_agent"`
	Lifetime   string  `json:"lifetime,omitempty"`
	Idle       string  `json:"idle_timeout,omitempty"`
	FormTokens int     `json:"form_tokens"`
	Flashes    []datum `json:"flashes"`
	Values     []datum `json:"values"`
}

// datum is a value of a session; the value itself only if it was asked for.
type datum struct {
	Key   string `json:"key,omitempty"`
	Bytes int    `json:"bytes"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// newEntry takes a record apart. Where the data cannot be read, the entry is what
// can be told without them, and has no details.
func newEntry(rec session2.Record, values bool) (entry, error) {
	e := entry{ID: rec.ID.String(), Created: moment{rec.Created}, Accessed: moment{rec.Accessed},
		Expires: moment{rec.Expires}, Expired: !rec.Expires.After(time.Now()), Bytes: len(rec.Data)}
	c, err := session2.Inspect(rec)
	e.Realm, e.User = owner(rec, c, err)
	if err == nil {
		e.Sealed = c.Sealed
		e.details = &details{
			RemoteAddr: c.RemoteAddr, UserAgent: c.UserAgent,
			Lifetime: limit(c.Lifetime), Idle: limit(c.Idle),
			FormTokens: c.FormTokens, Flashes: data(c.Flashes, values), Values: data(c.Values, values),
		}
	}
	return e, err
}

// limit returns a session's own limit, or "" if it has none of its own.
func limit(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 0:
		return "none"
	}
	return d.String()
}

func data(items []session2.Item, values bool) []datum {
	list := make([]datum, len(items))
	for i, item := range items {
		list[i] = datum{Key: item.Key, Bytes: item.Size}
		if !values {
			continue
		}
		v, err := item.Value()
		if err != nil {
			list[i].Error = "of a type that only the application knows"
		} else {
			list[i].Value = printable(v)
		}
	}
	return list
}

// printable returns v, or its text if JSON cannot say it.
func printable(v any) any {
	if _, err := json.Marshal(v); err != nil {
		return fmt.Sprint(v)
	}
	return v
}

const rowFormat = "%-32s  %-20s  %-20s  %-20s  %-20s  %8v  %s\n"

// row prints a record as one of a list.
func (p *printer) row(e entry) error {
	if p.json != nil {
		return p.json.Encode(e)
	}
	if !p.rows {
		fmt.Fprintf(p.w, rowFormat, "ID", "CREATED", "ACCESSED", "EXPIRES", "USER", "BYTES", "REALM")
		p.rows = true
	}
	_, err := fmt.Fprintf(p.w, rowFormat, e.ID, stamp(e.Created.Time), stamp(e.Accessed.Time), stamp(e.Expires.Time),
		plain(e.User), e.Bytes, e.Realm)
	if e.details != nil {
		p.data(e.details)
	}
	return err
}

// page prints a record by itself.
func (p *printer) page(e entry) error {
	if p.json != nil {
		return p.json.Encode(e)
	}
	expired := ""
	if e.Expired {
		expired = " (expired)"
	}
	_, err := fmt.Fprintf(p.w, "id        %s\nrealm     %v\nuser      %s\n"+
		"created   %s\naccessed  %s\nexpires   %s%s\nbytes     %d\n",
		e.ID, e.Realm, plain(e.User),
		stamp(e.Created.Time), stamp(e.Accessed.Time), stamp(e.Expires.Time), expired, e.Bytes)
	if d := e.details; d != nil {
		fmt.Fprintf(p.w, "lifetime  %s\nidle      %s\n", plain(d.Lifetime), plain(d.Idle))
		if e.Sealed {
			_, err = fmt.Fprintln(p.w, "sealed    all else; only the client's token opens it")
			return err
		}
		fmt.Fprintf(p.w, "remote    %s\nagent     %s\nforms     %d\n",
			plain(d.RemoteAddr), plain(d.UserAgent), d.FormTokens)
		p.data(d)
	}
	return err
}

func (p *printer) data(d *details) {
	for _, f := range d.Flashes {
		fmt.Fprintf(p.w, "  flash %d bytes%s\n", f.Bytes, f.text())
	}
	for _, v := range d.Values {
		fmt.Fprintf(p.w, "  value %s %d bytes%s\n", strconv.Quote(v.Key), v.Bytes, v.text())
	}
}

// text returns the value, escaped, if there is one.
func (d datum) text() string {
	switch {
	case d.Error != "":
		return ": " + d.Error
	case d.Value == nil:
		return ""
	}
	b, _ := json.Marshal(d.Value)
	return ": " + escape(string(b))
}

// stamp writes a time in UTC, to the second.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// plain returns s if a terminal shows it as it is, and else quotes it: names
// come from outside, and may hold control characters.
func plain(s string) string {
	if s == "" {
		return "-"
	}
	if q := strconv.Quote(s); q != `"`+s+`"` || s == "-" {
		return q
	}
	return s
}

// escape replaces what a terminal would obey.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
