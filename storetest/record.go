package storetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/session2/session2"
)

// record returns a new record as a manager would make it: with a random ID and
// version, nobody signed in, and expiring in an hour.
func (e *exam) record() session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	rec := session2.Record{
		ID:       e.id(),
		Version:  e.version(),
		Created:  now.Add(-time.Hour),
		Accessed: now.Add(-time.Minute),
		Expires:  now.Add(time.Hour),
	}
	rec.Data = e.data(40)
	return rec
}

// records returns n new records.
func (e *exam) records(n int) []session2.Record {
	recs := make([]session2.Record, n)
	for i := range recs {
		recs[i] = e.record()
	}
	return recs
}

// recordsOf returns n new records of one user.
func (e *exam) recordsOf(user string, n int) []session2.Record {
	recs := e.records(n)
	for i := range recs {
		recs[i].User = user
	}
	return recs
}

// next returns a successor of rec: another version and other data.
func (e *exam) next(rec session2.Record) session2.Record {
	rec.Version = e.version()
	rec.Data = e.data(20 + e.rand.IntN(60))
	return rec
}

// id draws a random ID.
func (e *exam) id() session2.ID {
	var id session2.ID
	binary.BigEndian.PutUint64(id[:8], e.rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], e.rand.Uint64())
	return id
}

// version draws a random version.
func (e *exam) version() session2.Version {
	return session2.Version(max(1, e.rand.Uint64()))
}

// data draws n random bytes.
func (e *exam) data(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(e.rand.Uint32())
	}
	return data
}

// diff says in what two records differ, "" if in nothing that a store must keep.
func diff(got, want session2.Record) string {
	switch {
	case got.ID != want.ID:
		return fmt.Sprintf("got ID %v, want %v", got.ID, want.ID)
	case got.Version != want.Version:
		return fmt.Sprintf("got version %d, want %d", got.Version, want.Version)
	case got.User != want.User:
		return fmt.Sprintf("got user %q, want %q", got.User, want.User)
	case !bytes.Equal(got.Data, want.Data):
		return fmt.Sprintf("got data %s, want %s", brief(got.Data), brief(want.Data))
	}
	for _, t := range []struct {
		name      string
		got, want time.Time
	}{
		{"Created", got.Created, want.Created},
		{"Accessed", got.Accessed, want.Accessed},
		{"Expires", got.Expires, want.Expires},
	} {
		if d := diffTime(t.got, t.want); d != "" {
			return t.name + ": " + d
		}
	}
	return ""
}

// diffTime compares to the microsecond; which way a store rounds is its own
// affair. The zone must be UTC.
func diffTime(got, want time.Time) string {
	if d := got.Sub(want); d <= -time.Microsecond || d >= time.Microsecond {
		return fmt.Sprintf("got %v, want %v", got, want.UTC().Round(0))
	}
	if got.Location() != time.UTC {
		return fmt.Sprintf("got a time in the zone %v, want UTC", got.Location())
	}
	return ""
}

// brief shows the start of data and its length.
func brief(data []byte) string {
	if len(data) <= 24 {
		return fmt.Sprintf("%x", data)
	}
	return fmt.Sprintf("%x... (%d bytes)", data[:24], len(data))
}

// byID indexes records. It reports one that comes twice.
func byID(recs []session2.Record) (map[session2.ID]session2.Record, error) {
	m := make(map[session2.ID]session2.Record, len(recs))
	for _, rec := range recs {
		if _, twice := m[rec.ID]; twice {
			return nil, fmt.Errorf("record %v came twice", rec.ID)
		}
		m[rec.ID] = rec
	}
	return m, nil
}

// diffAll compares two lists of records in any order.
func diffAll(got, want []session2.Record) string {
	have, err := byID(got)
	if err != nil {
		return err.Error()
	}
	for _, w := range want {
		g, ok := have[w.ID]
		if !ok {
			return fmt.Sprintf("record %v is missing among %d", w.ID, len(got))
		}
		if d := diff(g, w); d != "" {
			return d
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("got %d records, want %d", len(got), len(want))
	}
	return ""
}
