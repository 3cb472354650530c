package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/session2/session2"
)

// stats counts.
func stats(ctx context.Context, j *job) error {
	records, err := all(ctx, j.store, j.where)
	if err != nil {
		return err
	}
	t := totals{realms: make(map[origin]*share)}
	for rec, err := range j.bar.over(records) {
		if err == nil {
			err = t.add(j, rec)
		}
		if errors.Is(err, session2.ErrCorrupt) {
			j.found.add(rec.ID, err)
		} else if err != nil {
			return err
		}
	}
	t.sortRealms()
	t.Corrupt, t.SetAside, t.Damaged = len(j.found.corrupt), j.found.aside, j.found.lost
	if j.json {
		return j.out.json.Encode(t)
	}
	return t.print(j)
}

// totals are what stats prints.
type totals struct {
	Records  int     `json:"records"`
	Expired  int     `json:"expired"`
	SignedIn int     `json:"signed_in"`
	Corrupt  int     `json:"corrupt"`   // of which Records has those whose data alone are
	SetAside int     `json:"set_aside"` // of the corrupt ones
	Damaged  int     `json:"damaged"`   // places where a record may be lost
	Bytes    int64   `json:"bytes"`
	Largest  int     `json:"largest"`
	Oldest   *moment `json:"oldest"` // creation; null if there is none
	Latest   *moment `json:"latest"` // access
	Realms   []share `json:"realms"` // by name

	realms map[origin]*share
}

// share is what a realm has of them.
type share struct {
	Realm    origin `json:"realm"`
	Records  int    `json:"records"`
	SignedIn int    `json:"signed_in"`
}

// add counts a record. Its error is that of the data, of which an expired
// session needs none.
func (t *totals) add(j *job, rec session2.Record) error {
	c, unread := session2.Inspect(rec)
	of, user := owner(rec, c, unread)
	expired := !rec.Expires.After(time.Now())
	if expired {
		unread = nil
	}
	if !j.chosen(of) {
		return unread
	}
	t.Records++
	if expired {
		t.Expired++
	}
	if user != "" {
		t.SignedIn++
	}
	t.addRealm(of, user)
	t.Bytes += int64(len(rec.Data))
	t.Largest = max(t.Largest, len(rec.Data))
	if t.Oldest == nil || rec.Created.Before(t.Oldest.Time) {
		t.Oldest = &moment{rec.Created}
	}
	if t.Latest == nil || rec.Accessed.After(t.Latest.Time) {
		t.Latest = &moment{rec.Accessed}
	}
	return unread
}

func (t *totals) addRealm(of origin, user string) {
	r := t.realms[of]
	if r == nil {
		r = &share{Realm: of}
		t.realms[of] = r
	}
	r.Records++
	if user != "" {
		r.SignedIn++
	}
}

// sortRealms lists the realms by name, and last the unknown one.
func (t *totals) sortRealms() {
	t.Realms = make([]share, 0, len(t.realms))
	for _, r := range t.realms {
		t.Realms = append(t.Realms, *r)
	}
	slices.SortFunc(t.Realms, func(a, b share) int { return a.Realm.compare(b.Realm) })
}

func (t *totals) print(j *job) error {
	mean, oldest, latest := int64(0), "-", "-"
	if t.Records > 0 {
		mean, oldest, latest = t.Bytes/int64(t.Records), stamp(t.Oldest.Time), stamp(t.Latest.Time)
	}
	var err error
	for _, line := range []struct {
		name  string
		value any
	}{
		{"records", t.Records}, {"expired", t.Expired},
		{"signed in", t.SignedIn}, {"anonymous", t.Records - t.SignedIn},
		{"corrupt", t.Corrupt}, {"set aside", t.SetAside}, {"damaged", t.Damaged},
		{"bytes", t.Bytes}, {"mean", mean}, {"largest", t.Largest}, {"oldest", oldest}, {"latest", latest},
	} {
		_, err = fmt.Fprintf(j.out.w, "%-10s %v\n", line.name, line.value)
	}
	for _, r := range t.Realms {
		if len(t.Realms) > 1 || r.Realm != (origin{"", true}) { // where there are none, nobody need know of them
			_, err = fmt.Fprintf(j.out.w, "%-10s %v: %d records, %d signed in\n",
				"realm", r.Realm, r.Records, r.SignedIn)
		}
	}
	return err // of a bufio.Writer, which keeps its first one
}

// check reads every record as a manager would, and looks it up in the indexes.
func check(ctx context.Context, j *job) error {
	records, err := all(ctx, j.store, j.where)
	if err != nil {
		return err
	}
	read := 0
	for rec, err := range j.bar.over(records) {
		read++
		if err == nil {
			_, err = session2.Inspect(rec)
		}
		if errors.Is(err, session2.ErrCorrupt) {
			j.found.add(rec.ID, err)
		} else if err != nil {
			return err
		}
	}
	if err := j.checkIndexes(ctx); err != nil {
		return err
	}
	corrupt, aside, lost := append([]string{}, j.found.corrupt...), j.found.aside, j.found.lost
	missing := make([]string, 0, len(j.found.missing))
	for _, id := range j.found.missing {
		missing = append(missing, id.String())
	}
	return j.out.result(
		fields{"records": read, "corrupt": corrupt, "set_aside": aside, "damaged": lost, "missing": missing},
		"%d records, %d corrupt (%d of them set aside), %d damaged places, %d missing from an index",
		read, len(corrupt), aside, lost, len(missing))
}
